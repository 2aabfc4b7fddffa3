"""Train the judge of another kind: valence by small networks from scratch, a probe on CLIP, and boosted trees.

    python independent.py                                                   # the weights that ship
    python independent.py --learns first --out out/first                    # of the other half: to cross-check
    python independent.py --unseen --out out/unseen                         # the held-out concepts' pictures never shown
    python independent.py --check --out out/first --learns first            # only what a judge there is worth

It learns the half of the ratings that the embedded scorer (`aligned`) never saw, as `judge` does, on artwork in five
styles. Pictures that this half does not rate are taught, weakly, what their names and keywords suggest by it and by half of
a rated lexicon (`data.spread`), as in `align.py`; with `--unseen` those of the other half are left out altogether. The
generator's own drawings are shown too, under the names they were drawn by. Pictures of nothing (scrambled ones, patterns in
their colours, and what the generator draws with its weights disturbed at random) are taught what people felt at characters
that picture nothing (block elements, box drawing): colours alone say little.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import CACHE, WEIGHTS
from data import STYLES, _words, halves, lexicon, rated, spread, uncertainty
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from shown import World, marks, world
from torch import Tensor, nn
from torch.nn import functional as F

from cogguided.scorers import load_scorer
from cogguided.scorers.models.independent.features import measured
from cogguided.scorers.models.independent.members import PARTS, Net, Probe, Trees
from cogguided.scorers.models.independent.scorer import CONFIG, MEMBERS, SCALE, IndependentScorer, built, unpacked
from cogguided.scorers.models.independent.scorer import WEIGHTS as FILE

SIZES = {"nets": 2, "width": 32, "features": 1024, "trees": 200, "nodes": 63, "depth": 5}
OWN_NOISE, SUGGESTED_NOISE = 0.4, 0.6
"""Standard deviations that are added to a rating's own, and that a suggestion has."""
NOTHING = 1.0
"""Weight of a picture of nothing, as against the one it was made of."""
RIDGE, SHARPNESS = 3e-4, 1.4
"""Of the probe: how much is shrunk, and the scale of its random projections."""


@dataclass
class Lesson:
    """What is taught: rows of the world's pictures, valence and weight of each, and the valence of a picture of nothing."""

    rows: np.ndarray
    valence: np.ndarray
    weight: np.ndarray
    nothing: float

    @property
    def mean(self) -> float:
        return float(np.average(self.valence, weights=self.weight))

    def with_nothing(self) -> tuple[np.ndarray, np.ndarray]:
        """Valence and weight with as many pictures of nothing behind."""
        return (
            np.concatenate([self.valence, np.full(len(self.rows), self.nothing)]),
            np.concatenate([self.weight, NOTHING * self.weight]),
        )


def lesson(about: World, half: int, unseen: bool) -> Lesson:
    """Ratings of one half (0 or 1), and what they suggest for other pictures."""
    two = halves(rated(about.concepts))
    mine = {c.char for c in two[half]}
    left = {c.char for c in two[1 - half]} if unseen else set()
    others = [c for c in about.concepts if c.char not in mine | left]
    suggested = np.clip(spread(two[half], others, lexicon(CACHE, half)), -3, 3)
    taught = {c.char: (float(c.valence or 0.0), 1 / (uncertainty(c) ** 2 + OWN_NOISE**2)) for c in two[half]}
    taught |= {
        c.char: (float(v), 1 / (SUGGESTED_NOISE**2 + OWN_NOISE**2)) for c, v in zip(others, suggested, strict=True)
    }
    chars = [about.concepts[i].char for i in about.shows]
    rows = np.array([row for row, char in enumerate(chars) if char in taught])
    told = np.array([taught[chars[row]] for row in rows])
    return Lesson(rows, told[:, 0], told[:, 1], marks(CACHE))


def probe(about: World, what: Lesson) -> dict[str, Tensor]:
    """Fit the probe on CLIP's image vectors, by ridge regression."""
    clip = load_scorer("clip")
    vectors = torch.cat([clip.encode_images(of[what.rows]) for of in (about.pictures, about.nothing)])
    model = Probe(clip, SIZES["features"])
    generator = torch.Generator().manual_seed(0)
    projections = SHARPNESS * PARTS * torch.randn(model.turn.shape, generator=generator)
    model.turn.copy_(projections.round().clamp(-127, 127))
    model.phase.copy_((2 * math.pi * torch.rand(model.phase.shape, generator=generator)).half())  # as it is stored
    model.center.copy_(vectors[: len(what.rows)].mean(0).half())
    seen = model.features(vectors).double().numpy()
    told, weight = what.with_nothing()
    center, level = np.average(seen, axis=0, weights=weight), np.average(told, weights=weight)
    z = seen - center
    gram = (z * weight[:, None]).T @ z + RIDGE / 2 * weight.sum() * np.eye(z.shape[1])
    slopes = np.linalg.solve(gram, (z * weight[:, None]).T @ (told - level))
    model.out.weight.data[0] = torch.from_numpy(slopes)
    model.out.bias.data[0] = float(level - center @ slopes)
    return {f"probe.{name}": of for name, of in model.state_dict().items()}


def trees(about: World, what: Lesson) -> dict[str, Tensor]:
    """Boost regression trees on what is measured of the pictures, and write them as arrays."""
    from sklearn.ensemble import GradientBoostingRegressor

    seen = torch.cat([measured(p) for of in (about.pictures, about.nothing) for p in of[what.rows].split(256)]).numpy()
    told, weight = what.with_nothing()
    boosted = GradientBoostingRegressor(
        n_estimators=SIZES["trees"], max_depth=SIZES["depth"], learning_rate=0.08, subsample=0.4, max_features=0.08,
        min_samples_leaf=5, random_state=0,
    ).fit(seen, told, weight)  # fmt: skip
    grown = Trees(SIZES["trees"], SIZES["nodes"], SIZES["depth"])
    for number, (estimator,) in enumerate(boosted.estimators_):
        tree = estimator.tree_
        own, leaf = np.arange(tree.node_count), tree.children_left < 0
        columns = {
            "feature": np.where(leaf, 0, tree.feature), "threshold": np.where(leaf, 0, tree.threshold),
            "left": np.where(leaf, own, tree.children_left), "right": np.where(leaf, own, tree.children_right),
            "value": np.where(leaf, boosted.learning_rate * tree.value[:, 0, 0], 0),
        }  # fmt: skip
        for name, column in columns.items():
            array = getattr(grown, name)
            array[number, : tree.node_count] = torch.from_numpy(column).to(array.dtype)
    level = float(np.average(told, weights=weight))  # where boosting starts from
    grown.value[0] += level * (grown.left[0] == torch.arange(SIZES["nodes"]))
    expected = torch.from_numpy(boosted.predict(seen[:50])).float()
    torch.testing.assert_close(grown.grown(torch.from_numpy(seen[:50])), expected, atol=1e-3, rtol=0)
    return {f"trees.{name}": of.half() if name == "value" else of for name, of in grown.state_dict().items()}


def disturbed(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale, shift, mirror, tint and roughen pictures (B, 3, S, S) on white."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    count = len(pixels)
    mirror = (uniform(count) < 0.5).float() * -2 + 1
    turn, size = (uniform(count) - 0.5) * 0.5, 0.9 + uniform(count) * 0.35
    where = torch.zeros(count, 2, 3)
    where[:, 0, 0], where[:, 0, 1] = size * turn.cos() * mirror, -size * turn.sin()
    where[:, 1, 0], where[:, 1, 1] = size * turn.sin() * mirror, size * turn.cos()
    where[:, :, 2] = (uniform(count, 2) - 0.5) * 0.2
    grid = F.affine_grid(where, list(pixels.shape), align_corners=False)
    ink = F.grid_sample(1 - pixels, grid, align_corners=False)
    ink = ink * (1 + 0.15 * torch.randn(count, 3, 1, 1, generator=generator))
    noise = torch.randn(ink.shape, generator=generator)
    return 1 - ink + 0.06 * uniform(count, 1, 1, 1) * noise


@torch.enable_grad()
def net(about: World, what: Lesson, seed: int, steps: int, batch: int = 64) -> dict[str, Tensor]:
    """Train one network from scratch on valence and, for the features' sake, on the words of names and keywords."""
    uses = Counter(word for c in about.concepts for word in _words(c))
    vocabulary = [word for word, n in uses.items() if n >= 4]
    says = torch.tensor([[float(word in _words(c)) for word in vocabulary] for c in about.concepts])
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = Net(SIZES["width"])
    reader = nn.Linear(model.out.in_features, len(vocabulary))
    optimizer = torch.optim.AdamW([*model.parameters(), *reader.parameters()], lr=3e-3, weight_decay=0.05)
    small, none = (F.avg_pool2d(of[what.rows], 2) for of in (about.pictures, about.nothing))
    told = torch.from_numpy(what.valence).float() - what.mean
    told_of = torch.from_numpy(about.shows[what.rows])
    chance = torch.from_numpy(what.weight)
    empty, started = round(0.25 * batch), time.monotonic()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, step / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
        rows = torch.multinomial(chance, batch, replacement=True, generator=generator)
        shown, blank = rows[empty:], rows[:empty]
        features = model.features(disturbed(torch.cat([small[shown], none[blank]]), generator))
        features = F.dropout(features, 0.2)
        aim = torch.cat([told[shown], torch.full((empty,), what.nothing - what.mean)])
        loss = ((model.out(features)[:, 0] - aim) ** 2).mean() / 0.5
        loss = loss + 16 * F.binary_cross_entropy_with_logits(reader(features[: len(shown)]), says[told_of[shown]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 199:
            print(f"net {seed}: step {step + 1}, loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)
    model.out.bias.data += what.mean
    return {f"nets.nets.{seed}.{name}": of for name, of in model.state_dict().items()}


def once(path: Path, train: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Train a member, or read what was trained before the run was killed."""
    file = path.with_suffix(".safetensors")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(train(), file)
    return load_file(file)


def packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Kernels as 8-bit numbers with a scale for each channel, other floats in half precision; see `unpacked`."""
    found = {}
    for name, of in state.items():
        if of.ndim == 4:
            scale = of.abs().amax(dim=(1, 2, 3)).half()
            found[name + SCALE] = scale
            found[name] = (of / scale.float().view(-1, 1, 1, 1) * 127).round().clamp(-127, 127).to(torch.int8)
        else:
            found[name] = of.half() if of.dtype == torch.float32 else of
    return found


@torch.no_grad()
def make(about: World, half: int, unseen: bool, steps: int, folder: Path) -> None:
    """Train the members, standardise them on what they were taught, and save the judge."""
    what = lesson(about, half, unseen)
    kept = CACHE / f"independent-{'second' if half else 'first'}{'-unseen' * unseen}"
    state = once(kept / "probe", lambda: probe(about, what)) | once(kept / "trees", lambda: trees(about, what))
    for seed in range(SIZES["nets"]):
        state |= once(kept / f"net-{seed}-{steps}", lambda seed=seed: net(about, what, seed, steps))
    state = packed(state)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: of.contiguous() for n, of in state.items()}, folder / FILE)
    members = built(SIZES, load_scorer("clip"))
    members.load_state_dict(unpacked(state))
    members.eval()
    shown = about.pictures[what.rows]
    calibration: dict[str, object] = {}
    for name in MEMBERS:
        values = torch.cat([members[name](part) for part in shown.split(256)])
        calibration[name] = [round(float(values.mean()), 5), round(float(values.std()), 5)]
    calibration["offset"] = round(what.mean, 5)
    calibration["slope"] = round(float(np.mean([calibration[name][1] for name in MEMBERS])), 5)
    facts = {
        "name": "independent",
        "description": "networks from scratch, a probe on the embedded CLIP and boosted trees, on human valence ratings",
        "licence": "CC BY-SA 4.0",
        "grounding": {"emotional_valence": "human"},
        "sizes": SIZES,
        "calibration": calibration,
    }
    (folder / CONFIG).write_text(json.dumps(facts, indent=1) + "\n")


def held_out(about: World, half: int, minimum: int = 20) -> tuple[np.ndarray, list[int]]:
    """Pictures, in the three styles that the MLLMs know, of the other half's well-rated concepts."""
    other = {c.char for c in halves(rated(about.concepts))[1 - half] if c.count >= minimum}
    chosen = [i for i, c in enumerate(about.concepts) if c.char in other]
    return np.flatnonzero(np.isin(about.shows, chosen) & (about.style < len(STYLES))), chosen


def interval(first: np.ndarray, second: np.ndarray, resamples: int = 4000) -> tuple[float, float, float]:
    """Spearman's correlation with its 95 % bootstrap interval over concepts."""
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(first), len(first)) for _ in range(resamples)]
    low, high = np.percentile([spearmanr(first[d], second[d]).statistic for d in draws], [2.5, 97.5])
    return float(spearmanr(first, second).statistic), float(low), float(high)


def check(about: World, half: int, folder: Path) -> None:
    """Print what the judge in a folder, its members and both MLLMs are worth on the concepts that it was not rated on."""
    rows, chosen = held_out(about, half)
    shown = about.pictures[rows]
    own = IndependentScorer.from_pretrained(folder)
    values = {"independent": own(shown).values.numpy()}
    with torch.no_grad():
        standard = torch.cat([own.standardised(part) for part in shown.split(256)]).numpy()
    values |= {name: standard[:, i] for i, name in enumerate(MEMBERS)}
    for name in ("aligned", "judge"):
        values[name] = load_scorer(WEIGHTS / name, dimension="emotional_valence")(shown).values.numpy()
    truth = np.array([about.concepts[i].valence for i in chosen], dtype=float)
    means = {n: np.array([of[about.shows[rows] == i].mean() for i in chosen]) for n, of in values.items()}
    faces = np.array(["face" in about.concepts[i].name for i in chosen])
    for name, of in means.items():
        told = "{:.2f} [{:.2f}, {:.2f}]".format(*interval(of, truth))
        told += ", {} faces {:.2f} [{:.2f}, {:.2f}]".format(faces.sum(), *interval(of[faces], truth[faces]))
        print(f"{name}: {len(truth)} concepts, Spearman {told}, MAE {np.abs(of - truth).mean():.2f}")
    names = ["independent", *MEMBERS, "aligned", "judge"]
    errors = np.stack([z(means[n]) - z(truth) for n in names])
    print("correlation of errors:", ", ".join(names))
    print(np.round(np.corrcoef(errors), 2))


def z(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "independent")
    parser.add_argument("--learns", choices=("first", "second"), default="second", help="half of the ratings; the scorer's is the first")
    parser.add_argument("--unseen", action="store_true", help="leave out the pictures of the held-out half")
    parser.add_argument("--steps", type=int, default=600, help="of each network")
    parser.add_argument("--check", action="store_true", help="train nothing")
    args = parser.parse_args()
    half = ("first", "second").index(args.learns)
    about = world()
    if not args.check:
        make(about, half, args.unseen, args.steps, args.out)
    check(about, half, args.out)


if __name__ == "__main__":
    main()
