"""Does fine-tuning by reward teach a generator what people feel, and how fast?

On the embedded generator, for emotional valence upward and downward: 40 training prompts (`finetuning_train.txt`; a fifth of
them watches the run) and 40 held-out prompts of concepts that are not trained on (`finetuning_held_out.txt`), each with the
same four seeds before and after. Where all images of a prompt feel alike there is nothing to learn, so the lists are those
of `CANDIDATES` whose images of the untrained generator differ most in the target (standard deviation over eight seeds), of
those that it can draw (CLIP); the held-out judge was not asked (`--choose`). Told of the held-out prompts: the target; a
held-out judge (the MLLM aligned on the other half of the human ratings, never asked in training); the judge of another kind
(`independent`: no language model, no gradient); faithfulness (CLIP) and diversity (mean distance of CLIP embeddings of a
prompt's images). Intervals are 95 % bootstrap over prompts; with several seeds a prompt's value is their mean. Methods have
the same minutes; a method's gain per minute is over the time of its rounds.

    python benchmarks/finetuning.py --out out/finetuning --minutes 8                  # all; goes on where it was killed
    python benchmarks/finetuning.py --out out/finetuning --methods nft --targets up   # some
    python benchmarks/finetuning.py --out out/finetuning --report                     # table and sheets of what is there
    python benchmarks/finetuning.py --choose                                          # choose the prompts again
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from cogguided import CogGuidedPipeline, FinetuneConfig, finetune, load_scorer
from cogguided.guidance.choosing import mean_distance
from cogguided.pipelines.embedded import embedded_path

HERE = Path(__file__).resolve().parent
TARGETS = {"up": 1.0, "down": -1.0}
SEEDS_OF_IMAGES = (90001, 90002, 90003, 90004)
COMMON = {"num_inference_steps": 10, "updates": 8, "warmup": 2, "evaluate_every": 20, "images_per_evaluation": 2, "save": "last"}
METHODS: dict[str, dict[str, Any]] = {
    "nft": {"method": "nft", "learning_rate": 2e-3},
    "nft-anchored": {"method": "nft", "learning_rate": 2e-3, "num_inference_steps": 5, "anchor_weight": 3.0},
    "nft-guided": {"method": "nft", "learning_rate": 2e-3, "guided": True},
    "rwr": {"method": "rwr", "learning_rate": 5e-4},
    "rwr-guided": {"method": "rwr", "learning_rate": 5e-4, "guided": True},
    "drtune": {"method": "drtune", "learning_rate": 3e-3, "timesteps": 3, "evaluate_every": 1, "save": "best"},
    "dpo": {"method": "dpo", "learning_rate": 2e-3},
}
ANCHORED = ("nft-anchored",)
"""Methods that hold the prompts of `finetuning_anchors.txt` in place: other things, in neither list."""
STYLES = ("", "glossy ", "flat ", "cartoon ")
MOODS = (
    "calm tired shy cool nervous bored surprised sleepy cold shocked funny silly confused excited worried disappointed scared "
    "embarrassed"
).split()
CANDIDATES = {
    "train": [
        *(style + thing for thing in "face smiley emoji heart bird flower fruit drink insect".split() for style in STYLES),
        *(f"{mood} face" for mood in MOODS),
        *(f"{mood} smiley" for mood in MOODS[::2]),
    ],
    "held_out": [
        *(
            style + thing
            for thing in "cat monster hand thing dessert plant monkey tree dog cake fish person ball car vegetable".split()
            for style in STYLES
        ),
        *(style + "food" for style in STYLES),
        "the weather",
        *(style + "weather" for style in STYLES[1:]),
        *(f"{mood} cat" for mood in MOODS),
    ],
}
LEAST_FAITHFUL = 0.45
TOLD = ("target", "judge", "independent")
"""What is told in parts of the scale."""


def lines(name: str) -> list[str]:
    return (HERE / name).read_text("utf8").split("\n")[:-1]


class Judges:
    """What is told of held-out images."""

    def __init__(self) -> None:
        self.scorers = {
            "target": load_scorer("emotional_valence"),
            "judge": load_scorer(embedded_path() / "judge", dimension="emotional_valence"),
            "independent": load_scorer("independent"),
            "faithfulness": load_scorer("clip"),
        }

    def __call__(self, pipe: CogGuidedPipeline, prompts: list[str]) -> tuple[dict[str, list[float]], list[Image.Image]]:
        """Values of each prompt, means over its seeds, and all images."""
        found: dict[str, list[float]] = {name: [] for name in (*self.scorers, "diversity")}
        images: list[Image.Image] = []
        for prompt in prompts:
            made = pipe([prompt] * len(SEEDS_OF_IMAGES), seed=list(SEEDS_OF_IMAGES)).images
            for name, scorer in self.scorers.items():
                found[name].append(float(scorer(made, [prompt] * len(made)).values.mean()))
            found["diversity"].append(float(mean_distance(self.scorers["faithfulness"].encode_images(made)) or 0.0))
            images += made
        return found, images


def choose(count: int = 40, seeds: range = range(500, 508)) -> None:
    """Write the lists of prompts: those of a list of candidates that leave the target most open."""
    pipe, target, clip = generator(), load_scorer("emotional_valence"), load_scorer("clip")
    for name, candidates in CANDIDATES.items():
        found = {}
        for text in candidates:
            bare = text.startswith("the ") or text.endswith(("food", "weather"))
            prompt = text if bare else f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
            made = pipe([prompt] * len(seeds), seed=list(seeds)).images
            if float(clip(made, [prompt] * len(made)).values.mean()) >= LEAST_FAITHFUL:
                found[prompt] = float(target(made).values.std(correction=0))
        best = set(sorted(found, key=lambda prompt: -found[prompt])[:count])
        (HERE / f"finetuning_{name}.txt").write_text("".join(f"{p}\n" for p in found if p in best))


def generator() -> CogGuidedPipeline:
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def measure(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    train, held_out = lines("finetuning_train.txt"), lines("finetuning_held_out.txt")
    judges = Judges()
    before = args.out / "before.json"
    if not before.exists():
        write(before, args.out / "before", *judges(generator(), held_out))
    for seed in args.seeds:
        for target in args.targets:
            for method in args.methods:
                folder = args.out / f"{method}_{target}_{seed}"
                if (folder / "test.json").exists():
                    continue
                config = FinetuneConfig(minutes=args.minutes, seed=seed, **{**COMMON, **METHODS[method]})
                anchors = lines("finetuning_anchors.txt") if method in ANCHORED else None
                pipe = generator()
                started = (folder / "finetuning.json").exists()
                result = finetune(
                    pipe, {"emotional_valence": TARGETS[target]}, train, folder, config, anchors=anchors, resume=started,
                    progress=args.progress,
                )  # fmt: skip
                write(folder / "test.json", folder / "images", *judges(pipe, held_out), rounds=result.rounds)
                print(f"{method} {target} {seed}: {result.rounds} rounds, {result.seconds:.0f} s", flush=True)


def write(file: Path, folder: Path, values: dict[str, list[float]], images: list[Image.Image], **facts: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        image.save(folder / f"{i:03d}.png")
    file.write_text(json.dumps({**values, **facts}))


def training_seconds(folder: Path) -> float:
    newest = sorted((folder / "checkpoints").glob("round-*"))[-1]
    return float(sum(row["duration"] for row in json.loads((newest / "state.json").read_text())["history"]))


def bootstrap(values: np.ndarray, resamples: int = 4000) -> tuple[float, float, float]:
    """Mean of (P,), or ratio of the means of (P, 2), and its 95 % interval over prompts."""
    draws = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    means = values[draws].mean(1)
    whole = values.mean(0)
    found = means[:, 0] / means[:, 1] if values.ndim == 2 else means
    low, high = np.percentile(found, [2.5, 97.5])
    return float(whole[0] / whole[1] if values.ndim == 2 else whole), float(low), float(high)


def cell(numbers: tuple[float, float, float], digits: int = 3, sign: str = "+") -> str:
    value, low, high = (f"{n:{sign}.{digits}f}" for n in numbers)
    return f"{value} [{low}, {high}]"


def runs(out: Path, method: str, target: str) -> list[Path]:
    return sorted(file.parent for file in out.glob(f"{method}_{target}_*/test.json"))


def report(args: argparse.Namespace) -> None:
    before = json.loads((args.out / "before.json").read_text())
    table = [
        "Held-out prompts, after minus before, signed so that up is what was asked for: target and judges in parts of their "
        "scale (-3 to 3), faithfulness and diversity as shares of what they were.", "",
        "| method | direction | seeds | minutes of training | target | held-out judge | independent judge | faithfulness "
        "| diversity | target, per minute |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    speeds: dict[tuple[str, str], np.ndarray] = {}
    for method in METHODS:
        for target, sign in TARGETS.items():
            folders = runs(args.out, method, target)
            if not folders:
                continue
            after = [json.loads((folder / "test.json").read_text()) for folder in folders]
            minutes = float(np.mean([training_seconds(folder) for folder in folders])) / 60
            gain = {
                name: sign * (np.mean([a[name] for a in after], 0) - np.array(before[name])) / 6 for name in TOLD
            }
            share = {
                name: 1 + (np.mean([a[name] for a in after], 0) - np.array(before[name])) / np.mean(before[name])
                for name in ("faithfulness", "diversity")
            }
            speeds[method, target] = gain["target"] / minutes
            cells = [method, target, str(len(folders)), f"{minutes:.1f}"]
            cells += [cell(bootstrap(gain[n])) for n in TOLD]
            cells += [cell(bootstrap(share[n]), sign="") for n in ("faithfulness", "diversity")]
            table.append("| " + " | ".join([*cells, cell(bootstrap(speeds[method, target]), 4)]) + " |")
    for method in METHODS:
        both = [t for t in TARGETS if (method, t) in speeds and ("rwr", t) in speeds]
        if method != "rwr" and both:
            pairs = np.stack([np.concatenate([speeds[m, t] for t in both]) for m in (method, "rwr")], 1)
            table += ["", f"{method} gains {cell(bootstrap(pairs), 2, '')} times as much of the target per minute as rwr ({', '.join(both)})."]
    (args.out / "report.md").write_text("\n".join(table) + "\n")
    print("\n".join(table))
    for method in METHODS:
        for target in TARGETS:
            for folder in runs(args.out, method, target)[:1]:
                sheet(args.out, folder, args.out / f"sheet_{method}_{target}.png")


def sheet(out: Path, folder: Path, file: Path, each: int = 2, columns: int = 4) -> None:
    """Held-out prompts, before on the left of each cell and after on the right."""
    prompts = lines("finetuning_held_out.txt")
    size, text, gap = 64, 14, 10
    wide, tall = 2 * each * size + gap, size + text
    rows = -(-len(prompts) // columns)
    page = Image.new("RGB", (columns * (wide + gap) + gap, rows * (tall + 4) + 4), "white")
    draw = ImageDraw.Draw(page)
    for i, prompt in enumerate(prompts):
        x, y = gap + i % columns * (wide + gap), 4 + i // columns * (tall + 4)
        draw.text((x, y), prompt, fill="black")
        for place, where in enumerate((out / "before", folder / "images")):
            for k in range(each):
                number = i * len(SEEDS_OF_IMAGES) + k
                image = Image.open(where / f"{number:03d}.png")
                page.paste(image, (x + (place * each + k) * size + place * gap, y + text))
    page.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/finetuning"))
    parser.add_argument("--minutes", type=float, default=8.0, help="of each run")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["nft", "rwr"])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    parser.add_argument("--progress", action="store_true", help="show a bar")
    parser.add_argument("--report", action="store_true", help="only the table and the sheets")
    parser.add_argument("--choose", action="store_true", help="only write the lists of prompts")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.choose:
        choose()
        return
    if not args.report:
        measure(args)
    report(args)


if __name__ == "__main__":
    main()
