"""Which way of spending time on a prompt gives most of what is wanted?

On the embedded model: 64 prompts x 4 targets. Every method is called as a user would call it, one prompt a call; time is
the wall-clock of the call, scorer included. Best-of-N for N = 2 to 32 is one run of 32 candidates, whose first N are taken
and timed by the batches they came in; N = 1, 2, 4 are timed by calls of their own on every eighth prompt, as their batches
are smaller. All candidates have the same seeds in all methods.

For each method: the target's score of the image it returns, beside that of best-of-16 on the same prompts; the ratio of
their times; what a held-out judge (the MLLM aligned on the other half of the human ratings, valence only) says of the same
images beside a single sample; and how faithful they are to the prompt (CLIP), beside a single sample. Intervals are 95 %
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
from cogguided.pipelines.embedded import embedded_path

HERE = Path(__file__).resolve().parent
TARGETS = {
    "valence up": {"emotional_valence": 1.0},
    "valence down": {"emotional_valence": -1.0},
    "funniness": {"funniness": 1.0},
    "memorability": {"memorability": 1.0},
}
JUDGED = {"valence up": 1.0, "valence down": -1.0}
DEV = (
    "a happy face|a sad face|a funny cat|a cute smiley|a bug|a fish|a bear|a tulip|a bush|a candy|a pizza|a glossy insect|"
    "a flat monster|a cartoon bird|a sleepy face|an angry cat"
).split("|")
SIZES = (1, 2, 4, 8, 16, 32)
OWN_CALLS = (1, 2, 4)
METHODS: dict[str, Any] = {
    "drafts 8": Drafts(8, full=1),
    "drafts 16": Drafts(16),
    "drafts 24": Drafts(24, full=3),
    "halving 16": Halving(16),
    "halving 32": Halving(32, at=(0.2, 0.35, 0.5)),
    "fk 8": FKSteering(8),
    "noise 16": NoiseSearch(4, 4, rounds=3),
    "rewrite": RewritePrompt(4, images=3),
    "rewrite, drafts": RewritePrompt(4, images=2, steps=4),
    "joint 8": JointSearch(8, rewrites=4),
    "joint 8, 2 wordings": JointSearch(8, rewrites=2),
    "joint 8, margin 10 %": JointSearch(8, rewrites=4, margin=0.1),
    "joint 16": JointSearch(16, rewrites=4, rounds=2),
}


def read(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    lines = file.read_text("utf8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what was cut off by a kill has no end of line


class Bench:
    """The pipeline, the judges, and the files of results."""

    def __init__(self, out: Path) -> None:
        self.out = out
        (out / "images").mkdir(parents=True, exist_ok=True)
        self.pipe = CogGuidedPipeline.from_pretrained("embedded")
        self.pipe.set_progress_bar_config(disable=True)
        self.judge = load_scorer(embedded_path() / "judge", dimension="emotional_valence")
        self.clip = load_scorer("clip")
        self.pipe("a face", target="clip", guidance=BestOfN(2), seed=0)  # the first call of all is slow

    def call(self, prompt: str, target: dict[str, float], guidance: Any, seed: int) -> tuple[Any, float]:
        start = time.perf_counter()
        out = self.pipe(prompt, target=target, guidance=guidance, seed=seed)
        return out, time.perf_counter() - start

    def look(self, prompt: str, images: list[Image.Image]) -> dict[str, list[float]]:
        """What the held-out judges say."""
        return {
            "judge": self.judge(images).values.tolist(),
            "clip": self.clip(images, [prompt] * len(images)).values.tolist(),
        }

    def write(self, facts: dict[str, Any]) -> None:
        with (self.out / "results.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(facts) + "\n")

    def best_of_n(self, prompt: str, name: str, seed: int, number: int) -> None:
        """One run of all candidates, and the smaller ones timed by themselves."""
        target = TARGETS[name]
        out, _ = self.call(prompt, target, BestOfN(max(SIZES)), seed)
        made = out.candidates
        seconds = np.cumsum([c.seconds["sample"] + c.seconds["score"] for c in made])
        times = {n: float(seconds[n - 1]) for n in SIZES if n not in OWN_CALLS}
        if number % 8 == 0:
            times |= {n: self.call(prompt, target, BestOfN(n), seed)[1] for n in OWN_CALLS}
        best = {n: max(range(n), key=lambda i: made[i].score) for n in SIZES}
        looked = self.look(prompt, [c.image for c in made])
        image = self.keep(made[best[16]].image, "best of 16", name, number)
        self.write(
            {
                "method": "best of n", "target": name, "prompt": prompt, "times": times, "image": image,
                "scores": {n: made[i].score for n, i in best.items()},
                "single": float(np.mean([c.score for c in made])),
                "judge": {n: looked["judge"][i] for n, i in best.items()},
                "judge_single": float(np.mean(looked["judge"])),
                "clip": {n: looked["clip"][i] for n, i in best.items()},
                "clip_single": float(np.mean(looked["clip"])),
            }
        )  # fmt: skip
        self.keep(made[0].image, "single", name, number)

    def method(self, method: str, prompt: str, name: str, seed: int, number: int) -> None:
        out, seconds = self.call(prompt, TARGETS[name], METHODS[method], seed)
        (chosen,) = out.chosen
        looked = self.look(prompt, [chosen.image])
        self.write(
            {
                "method": method, "target": name, "prompt": prompt, "wording": chosen.prompt, "seconds": seconds,
                "nfe": out.nfe, "score": chosen.score, "judge": looked["judge"][0], "clip": looked["clip"][0],
                "image": self.keep(chosen.image, method, name, number),
            }
        )  # fmt: skip

    def keep(self, image: Image.Image, method: str, name: str, number: int) -> str:
        file = f"images/{method}_{name}_{number:02d}.png".replace(" ", "-").replace(",", "")
        image.save(self.out / file)
        return file


def measure(args: argparse.Namespace, prompts: list[str]) -> None:
    done = {(r["method"], r["target"], r["prompt"]) for r in read(args.out / "results.jsonl")}
    methods = ["best of n", *(args.methods or METHODS)]
    bench: Bench | None = None
    for number, prompt in enumerate(prompts):
        for name in args.targets:
            order = list(
                np.random.default_rng([number, len(name)]).permutation(methods)
            )  # so that no method is always first
            for method in order:
                if (method, name, prompt) in done:
                    continue
                bench = bench or Bench(args.out)
                if method == "best of n":
                    bench.best_of_n(prompt, name, args.seed, number)
                else:
                    bench.method(method, prompt, name, args.seed, number)
        print(f"{number + 1} of {len(prompts)}: {prompt}", flush=True)


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
    """What was measured, by target and prompt."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.base = {(r["target"], r["prompt"]): r for r in rows if r["method"] == "best of n"}
        self.rows: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        for row in rows:
            if row["method"] != "best of n" and (row["target"], row["prompt"]) in self.base:
                self.rows.setdefault(row["method"], {})[row["target"], row["prompt"]] = row
        own = [r["times"] for r in self.base.values() if "1" in r["times"]]
        self.small = {n: float(np.mean([times[str(n)] for times in own])) for n in OWN_CALLS} if own else {}

    def seconds(self, target: str, n: int) -> float:
        if n in OWN_CALLS:
            return self.small.get(n, float("nan"))
        return float(np.mean([r["times"][str(n)] for (t, _), r in self.base.items() if t == target]))

    def curve(self, target: str) -> list[tuple[float, float]]:
        """Seconds and mean gain over a single sample, of best-of-N."""
        mine = [r for (t, _), r in self.base.items() if t == target]
        return [
            (self.seconds(target, n), float(np.mean([r["scores"][str(n)] - r["single"] for r in mine])))
            for n in SIZES
        ]


def report(args: argparse.Namespace) -> None:
    found = Results(read(args.out / "results.jsonl"))
    targets = [t for t in TARGETS if any(key[0] == t for key in found.base)]
    lines = [
        "Beside best-of-16 on the same prompts; gains are over the mean of single samples, in parts of the scale.",
        "",
    ]
    lines += ["| method | target | prompts | gain | share of best-of-16's gain | seconds | time, of best-of-16's | "
              "reaches it | held-out judge, over single | the same of best-of-16 | CLIP, of single's |",
              "|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for method, rows in found.rows.items():
        for target in [*targets, "all"]:
            keys = [k for k in rows if target in (k[0], "all")]
            if not keys:
                continue
            prompts = [k[1] for k in keys]
            mine, base = [rows[k] for k in keys], [found.base[k] for k in keys]
            gains = np.array(
                [[r["score"] - b["single"], b["scores"]["16"] - b["single"]] for r, b in zip(mine, base, strict=True)]
            )
            times = np.array([[r["seconds"], b["times"]["16"]] for r, b in zip(mine, base, strict=True)])
            clips = np.array([[r["clip"], b["clip_single"]] for r, b in zip(mine, base, strict=True)])
            share = bootstrap(gains, prompts, ratio=True)
            cells = [method, target, str(len(keys)), cell(bootstrap(gains[:, 0], prompts), sign="+"), cell(share, 2),
                     f"{times[:, 0].mean():.2f}", cell(bootstrap(times, prompts, ratio=True), 2),
                     "yes" if share[0] >= 1 else "no"]  # fmt: skip
            if target in JUDGED:
                sign = JUDGED[target]
                judged = np.array([sign * (r["judge"] - b["judge_single"]) for r, b in zip(mine, base, strict=True)])
                theirs = np.array([sign * (b["judge"]["16"] - b["judge_single"]) for b in base])
                cells += [cell(bootstrap(judged, prompts), 2, "+"), cell(bootstrap(theirs, prompts), 2, "+")]
            else:
                cells += ["–", "–"]
            cells.append(cell(bootstrap(clips, prompts, ratio=True), 3))
            lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "| best of n | " + " | ".join(f"{t}: s, gain" for t in targets) + " |",
        "|---|" + "---|" * len(targets),
    ]
    for i, n in enumerate(SIZES):
        points = [found.curve(t)[i] for t in targets]
        lines.append(f"| {n} | " + " | ".join(f"{s:.2f}, {g:+.3f}" for s, g in points) + " |")
    text = "\n".join(lines) + "\n"
    print(text)
    (args.out / "report.md").write_text(text)
    plot(args, found, targets)
    sheet(args, found, targets)


def plot(args: argparse.Namespace, found: Results, targets: list[str]) -> None:
    """Mean gain against seconds, with intervals: best-of-N as a line, each method as a point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(targets), figsize=(4.2 * len(targets), 4), squeeze=False)
    for ax, target in zip(axes[0], targets, strict=True):
        seconds, gains = zip(*found.curve(target), strict=True)
        keys = [k for k in found.base if k[0] == target]
        prompts = [k[1] for k in keys]
        bands = [
            bootstrap(np.array([found.base[k]["scores"][str(n)] - found.base[k]["single"] for k in keys]), prompts)
            for n in SIZES
        ]
        ax.fill_between(seconds, [b[1] for b in bands], [b[2] for b in bands], color="0.85")
        ax.plot(seconds, gains, "o-", color="0.4", label="best of 1 to 32", markersize=3)
        ax.axhline(gains[SIZES.index(16)], color="0.6", linewidth=0.8, linestyle=":")
        for number, (method, rows) in enumerate(found.rows.items()):
            mine = [k for k in keys if k in rows]
            if not mine:
                continue
            own = [k[1] for k in mine]
            value, low, high = bootstrap(np.array([rows[k]["score"] - found.base[k]["single"] for k in mine]), own)
            x = float(np.mean([rows[k]["seconds"] for k in mine]))
            ax.errorbar([x], [value], [[value - low], [high - value]], fmt="s", markersize=5, capsize=2,
                        color=plt.cm.tab20(number % 20), label=method)  # fmt: skip
        ax.set_title(target)
        ax.set_xlabel("seconds a prompt, scorer included")
        ax.set_xscale("log")
        ax.grid(alpha=0.3)
    axes[0][0].set_ylabel("gain over a single sample, parts of the scale")
    axes[0][-1].legend(fontsize=6, loc="lower right")
    figure.tight_layout()
    figure.savefig(args.out / "search.png", dpi=110)


def sheet(args: argparse.Namespace, found: Results, targets: list[str], count: int = 16) -> None:
    """Single sample, best of 16 and each method side by side, for the first prompts of each target."""
    names = ["single", "best of 16", *found.rows]
    prompts = list(dict.fromkeys(k[1] for k in found.base))[:count]
    numbers = {prompt: i for i, prompt in enumerate(prompts)}
    for target in targets:
        whole = Image.new("RGB", (66 * len(names), 66 * len(prompts)), "white")
        for column, name in enumerate(names):
            for row in numbers.values():
                file = args.out / f"images/{name}_{target}_{row:02d}.png".replace(" ", "-").replace(",", "")
                if file.exists():
                    whole.paste(Image.open(file).resize((64, 64)), (66 * column, 66 * row))
        whole.save(args.out / f"sheet_{target.replace(' ', '_')}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/search"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these, beside best-of-N")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--prompts", type=int, help="only the first so many")
    parser.add_argument("--dev", action="store_true", help="on the prompts that settings were tried on")
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
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
