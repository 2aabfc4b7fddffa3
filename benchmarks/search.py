"""Which way of spending time on a prompt gives most of what is wanted?

On the embedded model: 64 prompts x 4 targets, `--together` of them a call, as with `cogguided generate --prompts FILE`; time
is the wall-clock of the call, scorer included, per prompt. Best-of-N for N = 1 to 32 is one run of 32 candidates, whose
first N are taken and timed by the batches they came in. All methods begin with the same seeds.

For each method: the target's score of the image it returns, beside that of best-of-16 on the same prompts; the ratio of
their times; what two held-out judges (the MLLM aligned on the other half of the human ratings, and `independent`, of another
kind; valence only) say of the same images beside a single sample; and how faithful they are to the prompt (CLIP), beside a single sample. Intervals are 95 %
bootstrap over families of prompts (those with the same last word).

    python benchmarks/search.py --out out/search                     # all; goes on where it was killed
    python benchmarks/search.py --out out/search --methods halving   # one method more
    python benchmarks/search.py --out out/search --report            # table, plot and contact sheet of what is there

The prompts were never used to choose a method or its settings: these were tried on `DEV` (--dev).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cogguided import (
    BestOfN,
    CogGuidedPipeline,
    Drafts,
    FKSteering,
    Halving,
    JointSearch,
    NoiseSearch,
    RewritePrompt,
    load_scorer,
)
from cogguided._reports.plots import Line, Scale, curves
from cogguided._reports.svg import standalone
from cogguided.pipelines.embedded import embedded_path
from cogguided.pipelines.records.sheet import Tile, draw_sheet

HERE = Path(__file__).resolve().parent
TARGETS = {
    "valence up": {"emotional_valence": 1.0},
    "valence down": {"emotional_valence": -1.0},
    "funniness": {"funniness": 1.0},
    "memorability": {"memorability": 1.0},
}
JUDGED = {"valence up": 1.0, "valence down": -1.0}
DEV = (
    "a happy face|a sad face|a funny cat|a cute smiley|a bug|a fish|a bear|a tulip|a bush|a candy|a pizza|"
    "a glossy insect|a flat monster|a cartoon bird|a sleepy face|an angry cat|a face|a smiley|an emoji|a cat|"
    "a heart|a dog|a monkey|an animal|a bird|an insect|a sea animal|a monster|a flower|a plant|food|a fruit|"
    "a dessert|a drink|a hand|a thing|a vegetable|a cake|a tree|the weather"
).split("|")
SIZES = (1, 2, 4, 8, 16, 32)
WHOLE = 41
"""Network evaluations of one candidate: 20 steps, two passes each, and one of the scorer."""
FIVE = {"num_inference_steps": 5}
PLAIN = {f"best-of-{n}, 5 steps": (BestOfN(n), FIVE) for n in (16, 19, 21)}
"""Best-of-N at few steps: what part of a search's gain is the steps alone, which anyone can use."""
METHODS: dict[str, Any] = {
    **PLAIN,
    "drafts 19, 5 steps": Drafts(19, steps=5, full=0),
    "joint 19, 5 steps": JointSearch(19, rewrites=6, steps=5, full=0),
    "joint 17, 5 steps": JointSearch(17, rewrites=6, steps=5, full=0),
    "joint 15, 6 steps": JointSearch(15, steps=6, full=0),
    "joint 12": JointSearch(12),
    "drafts 16, 6 steps": Drafts(16, steps=6, full=0),
    "drafts 16": Drafts(16),
    "halving 16": Halving(16),
    "fk 8": FKSteering(8),
    "noise 16": NoiseSearch(4, 4, rounds=3),
    "rewrite 4, drafts 8": [RewritePrompt(4, images=2, steps=4), Drafts(8)],
}


def read(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    lines = file.read_text("utf8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what was cut off by a kill has no end of line


class Bench:
    """The pipeline, the judges, and the files of results."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.out, self.seed = args.out, args.seed
        (self.out / "images").mkdir(parents=True, exist_ok=True)
        self.pipe = CogGuidedPipeline.from_pretrained("embedded")
        self.pipe.set_progress_bar_config(disable=True)
        self.judge = load_scorer(embedded_path() / "judge", dimension="emotional_valence")
        self.independent = load_scorer("independent")
        self.clip = load_scorer("clip")
        self.pipe("a face", target={"clip": 1, **{t: 1 for w in TARGETS.values() for t in w}}, guidance=BestOfN(2))
        self.pipe("a face", target="emotional_valence", guidance=JointSearch(2))  # first calls are slow

    def call(self, prompts: list[str], target: dict[str, float], guidance: Any) -> tuple[Any, float]:
        guidance, arguments = guidance if isinstance(guidance, tuple) else (guidance, {})
        start = time.perf_counter()
        out = self.pipe(prompts, target=target, guidance=guidance, seed=self.seed, **arguments)
        return out, time.perf_counter() - start

    def look(self, prompt: str, images: list[Image.Image]) -> dict[str, list[float]]:
        """What the held-out judges say."""
        return {
            "judge": self.judge(images).values.tolist(),
            "independent": self.independent(images).values.tolist(),
            "clip": self.clip(images, [prompt] * len(images)).values.tolist(),
        }

    def write(self, rows: list[dict[str, Any]]) -> None:
        with (self.out / "results.jsonl").open("a", encoding="utf8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

    def best_of_n(self, chunk: list[str]) -> None:
        """One run of all candidates, scored by each term; both directions of a term share images and times."""
        count, first = max(SIZES), next(iter(TARGETS.values()))
        out, _ = self.call(chunk, first, BestOfN(count))
        made = [[c for c in out.candidates if c.request == i] for i in range(len(chunk))]
        looked = [self.look(p, [c.image for c in mine]) for p, mine in zip(chunk, made, strict=True)]
        rows = []
        for name, target in TARGETS.items():
            seconds = {id(c): c.seconds["sample"] + c.seconds["score"] for c in out.candidates}
            scores = {id(c): c.score for c in out.candidates}
            if target.keys() != first.keys():
                spec = self.pipe.load_target(target)
                for start in range(0, len(out.candidates), 8):
                    batch = out.candidates[start : start + 8]
                    begun = time.perf_counter()
                    total = spec([c.image for c in batch]).total.tolist()
                    each = (time.perf_counter() - begun) / len(batch)
                    for c, value in zip(batch, total, strict=True):
                        scores[id(c)], seconds[id(c)] = value, c.seconds["sample"] + each
            elif target != first:
                scores = {id(c): -c.score for c in out.candidates}
            for prompt, mine, seen in zip(chunk, made, looked, strict=True):
                own = [scores[id(c)] for c in mine]
                best = {n: int(np.argmax(own[:n])) for n in SIZES}
                times = {n: sum(seconds[id(c)] for m in made for c in m[:n]) / len(chunk) for n in SIZES}
                rows.append(
                    {
                        "method": "best of n", "target": name, "prompt": prompt, "seconds": times,
                        "score": {n: own[i] for n, i in best.items()}, "single": float(np.mean(own)),
                        "judge": {n: seen["judge"][i] for n, i in best.items()},
                        "judge_single": float(np.mean(seen["judge"])),
                        "independent": {n: seen["independent"][i] for n, i in best.items()},
                        "independent_single": float(np.mean(seen["independent"])),
                        "clip": {n: seen["clip"][i] for n, i in best.items()},
                        "clip_single": float(np.mean(seen["clip"])),
                    }
                )  # fmt: skip
                self.keep(mine[0].image, "single", name, prompt)
                self.keep(mine[best[16]].image, "best of 16", name, prompt)
        self.write(rows)

    def method(self, method: str, chunk: list[str], name: str) -> None:
        out, seconds = self.call(chunk, TARGETS[name], METHODS[method])
        rows = []
        for prompt, chosen in zip(chunk, out.chosen, strict=True):
            looked = self.look(prompt, [chosen.image])
            rows.append(
                {
                    "method": method, "target": name, "prompt": prompt, "wording": chosen.prompt,
                    "seconds": seconds / len(chunk), "nfe": out.nfe / len(chunk), "score": chosen.score,
                    "judge": looked["judge"][0], "independent": looked["independent"][0], "clip": looked["clip"][0],
                }
            )  # fmt: skip
            self.keep(chosen.image, method, name, prompt)
        self.write(rows)

    def keep(self, image: Image.Image, method: str, name: str, prompt: str) -> None:
        image.save(self.out / picture(method, name, prompt))


def picture(method: str, target: str, prompt: str) -> str:
    return f"images/{method}_{target}_{prompt}.png".replace(" ", "-").replace(",", "").replace("%", "")


def measure(args: argparse.Namespace, prompts: list[str]) -> None:
    done = {(r["method"], r["target"], r["prompt"]) for r in read(args.out / "results.jsonl")}
    methods = args.methods or list(METHODS)
    bench: Bench | None = None
    for number in range(0, len(prompts), args.together):
        chunk = prompts[number : number + args.together]
        # in another order each time, so that none is always first
        jobs = [("best of n", next(iter(TARGETS))), *((m, t) for m in methods for t in args.targets)]
        for i in np.random.default_rng(number).permutation(len(jobs)):
            method, name = jobs[i]
            if all((method, name, prompt) in done for prompt in chunk):
                continue
            bench = bench or Bench(args)
            if method == "best of n":
                bench.best_of_n(chunk)
            else:
                bench.method(method, chunk, name)
        print(f"{number + len(chunk)} of {len(prompts)} prompts", flush=True)


def bootstrap(
    values: np.ndarray, prompts: list[str], resamples: int = 4000, ratio: bool = False
) -> tuple[float, float, float]:
    """Mean of (P,), or with `ratio` the ratio of the means of (P, 2), and its 95 % interval over families of prompts."""
    words = np.array([prompt.rsplit(" ", 1)[-1] for prompt in prompts])
    families = [np.flatnonzero(words == word) for word in dict.fromkeys(words)]
    draws = np.random.default_rng(0).integers(0, len(families), (resamples, len(families)))

    def statistic(rows: np.ndarray) -> float:
        mean = values[rows].mean(0)
        return float(mean[0] / mean[1]) if ratio else float(mean)

    found = [statistic(np.concatenate([families[i] for i in draw])) for draw in draws]
    low, high = np.percentile(found, [2.5, 97.5])
    return statistic(np.arange(len(prompts))), float(low), float(high)


def cell(numbers: tuple[float, float, float], digits: int = 3, sign: str = "") -> str:
    value, low, high = (f"{n:{sign}.{digits}f}" for n in numbers)
    return f"{value} [{low}, {high}]"


class Results:
    """What was measured, by method, target and prompt; `seconds` is per prompt."""

    def __init__(self, rows: list[dict[str, Any]], beside: str = "best of 16") -> None:
        self.beside = beside
        self.base = {(r["target"], r["prompt"]): r for r in rows if r["method"] == "best of n"}
        self.rows: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        for n in SIZES:
            own = self.rows.setdefault(f"best of {n}", {})
            for key, row in self.base.items():
                own[key] = {k: row[k][str(n)] for k in ("seconds", "score", "judge", "independent", "clip")}
                own[key]["nfe"] = n * WHOLE
        for row in rows:
            if row["method"] != "best of n" and (row["target"], row["prompt"]) in self.base:
                self.rows.setdefault(row["method"], {})[row["target"], row["prompt"]] = row

    def pairs(self, method: str, keys: list[tuple[str, str]], what: str) -> np.ndarray:
        """Of a method and of what it is set beside (P, 2)."""
        return np.array([[self.rows[method][k][what], self.rows[self.beside][k][what]] for k in keys])

    def gains(self, method: str, keys: list[tuple[str, str]], what: str = "score") -> np.ndarray:
        """Of a method and of what it is set beside, over a single sample of the same prompt (P, 2)."""
        single = "single" if what == "score" else f"{what}_single"
        return self.pairs(method, keys, what) - np.array([[self.base[k][single]] for k in keys])


def report(args: argparse.Namespace) -> None:
    found = Results(read(args.out / "results.jsonl"), args.beside)
    if args.beside not in found.rows:
        raise SystemExit(f"--beside: {args.beside!r} was not measured; there are {', '.join(found.rows)}")
    targets = [t for t in TARGETS if any(key[0] == t for key in found.base)]
    lines = [
        "Gains are over the mean of single samples of the same prompt, in parts of the scale; seconds are per prompt.", "",
        f"| method | target | prompts | gain | share of that of {args.beside} | seconds | time, of its | evaluations, of best-of-16's "
        "| reaches it | held-out judge: gain | that of what it is beside | independent judge: gain | that of what it is beside | CLIP, of a single sample's | CLIP, of its |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for method, rows in found.rows.items():
        for target in [*targets, "all"]:
            keys = [k for k in rows if target in (k[0], "all")]
            if not keys or (target == "all" and {k[0] for k in keys} != set(targets)):
                continue
            prompts = [k[1] for k in keys]
            gains, times, clips = (
                found.gains(method, keys), found.pairs(method, keys, "seconds"), found.pairs(method, keys, "clip")
            )  # fmt: skip
            single = np.array([[row[0], found.base[k]["clip_single"]] for row, k in zip(clips, keys, strict=True)])
            share = bootstrap(gains, prompts, ratio=True)
            cells = [method, target, str(len(keys)), cell(bootstrap(gains[:, 0], prompts), 3, "+"), cell(share, 2),
                     f"{times[:, 0].mean():.2f}", cell(bootstrap(times, prompts, ratio=True), 2),
                     f"{np.mean([rows[k]['nfe'] for k in keys]) / (16 * WHOLE):.2f}",
                     "yes" if share[0] >= 1 else "no"]  # fmt: skip
            if target in JUDGED:
                for who in ("judge", "independent"):
                    judged = JUDGED[target] * found.gains(method, keys, who)
                    cells += [cell(bootstrap(judged[:, i], prompts), 2, "+") for i in (0, 1)]
            else:
                cells += ["–"] * 4
            cells += [cell(bootstrap(pair, prompts, ratio=True), 3) for pair in (single, clips)]
            lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    (args.out / "report.md").write_text(text)
    plot(args, found, targets)
    sheet(args, found, targets)


def plot(args: argparse.Namespace, found: Results, targets: list[str]) -> None:
    """Mean gain against seconds, with intervals: best-of-N as a line, each method as a point."""
    others = [m for m in found.rows if not m.startswith("best of ")]
    drawings = []
    for target in targets:

        def of(methods: list[str], name: str, joined: bool, target: str = target) -> Line:
            points, within = [], []
            for method in methods:
                keys = [k for k in found.rows[method] if k[0] == target]
                if keys:
                    value, low, high = bootstrap(found.gains(method, keys)[:, 0], [k[1] for k in keys])
                    points.append((float(found.pairs(method, keys, "seconds")[:, 0].mean()), value))
                    within.append((low, high))
            return Line(points, within, name, joined)

        line = of([f"best of {n}" for n in SIZES], f"best of {SIZES[0]} to {SIZES[-1]}", True)
        lines = [line, *(of([method], method, False) for method in others)]
        across, up = Scale("seconds a prompt, scorer included", log=True), Scale("gain over a single sample, of the scale")
        level = line.points[SIZES.index(16)][1]
        drawings.append(curves(lines, across, up, f"{target}: gain against seconds", title=target, level=level))
    says = f"Gain over a single sample against seconds a prompt, for {', '.join(targets)}"
    (args.out / "search.svg").write_text(standalone(drawings, says), "utf8")


def sheet(args: argparse.Namespace, found: Results, targets: list[str], count: int = 16) -> None:
    """A single sample, best of 16 and each method side by side, for the first prompts of each target."""
    names = ["single", "best of 16", *(m for m in found.rows if not m.startswith("best of "))]
    prompts = list(dict.fromkeys(k[1] for k in found.base))[:count]
    for target in targets:
        groups = []
        for prompt in prompts:
            files = [(name, args.out / picture(name, target, prompt)) for name in names]
            groups.append((prompt, [Tile(Image.open(file), name) for name, file in files if file.exists()]))
        draw_sheet(groups, columns=len(names), size=96).save(args.out / f"sheet_{target.replace(' ', '_')}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/search"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these, beside best-of-N")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--prompts", type=int, help="only the first so many")
    parser.add_argument("--dev", action="store_true", help="on the prompts that settings were tried on")
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("--together", type=int, default=8, help="prompts a call")
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    parser.add_argument("--beside", default="best of 16", help="what the others are set beside in the table")
    parser.add_argument("--report", action="store_true", help="only write the table, the plot and the sheets")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    prompts = DEV if args.dev else (HERE / "search_prompts.txt").read_text("utf8").split("\n")[:-1]
    if not args.report:
        measure(args, prompts[: args.prompts])
    report(args)


if __name__ == "__main__":
    main()
