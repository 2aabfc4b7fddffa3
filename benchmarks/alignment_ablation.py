"""Which loss teaches a model best what people feel, and how should its answers be read?

The embedded base MLLM is aligned with the human valence ratings of one half of the emoji (`examples/embedded/
ratings.py`), by each loss and from several seeds, and then scores pictures of the other half: no drawing of the same
thing is on both sides, and the pictures of the other half are never seen in training. Both read-outs; Spearman's
correlation and MAE of the scores with the ratings, averaged over seeds, with 95 % bootstrap intervals over
concepts, and paired differences on the same concepts.

    python benchmarks/alignment_ablation.py --out out/ablation            # all, two runs at a time
    python benchmarks/alignment_ablation.py --out out/ablation --report   # the tables again

GRPO needs a model that answers, so it goes on from `warm`, a short supervised start, which is a row of its own.
Runs that are there already are not repeated. Needs the extras "embedded" and "train".
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve()
SCRIPTS = HERE.parent.parent / "examples" / "embedded"
VARIANTS = {
    "base": None,
    "cross_entropy": {"loss": "cross_entropy", "digit_weight": 1.0},
    "paper": {"loss": "triangular"},
    "paper+value": {"loss": "triangular", "value_weight": 4.0},
    "answers": {"loss": "answers", "sample_prefix": True},
    "answers+value": {"loss": "answers", "sample_prefix": True, "value_weight": 4.0},
    "warm": {"loss": "triangular"},
    "grpo": {},
}
COMPARED = [
    ("expected", "paper", "expected", "base"),
    ("expected", "answers+value", "expected", "base"),
    *(("expected", name, "greedy", name) for name in ("paper", "answers", "answers+value", "grpo")),
    ("expected", "paper", "expected", "cross_entropy"),
    ("expected", "paper+value", "expected", "paper"),
    ("expected", "answers", "expected", "paper"),
    ("expected", "answers+value", "expected", "paper"),
    ("greedy", "answers+value", "greedy", "paper"),
    ("expected", "grpo", "expected", "warm"),
    ("greedy", "grpo", "greedy", "warm"),
]
METRICS = ("spearman", "mae")


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf8") as handle:
        return list(csv.DictReader(handle))


def held_out(args: argparse.Namespace) -> list[dict[str, str]]:
    """One picture, Noto's, of every concept of the other half with enough uses."""
    rows = rows_of(args.data / "second.csv")
    return [row for row in rows if int(row["count"]) >= args.minimum and row["image"].endswith("_noto.png")]


def train(variant: str, seed: int, args: argparse.Namespace) -> Path | None:
    """Align; returns the folder of the scorer, or None for the base model."""
    from cogguided.scorers.alignment import align, recipe
    from cogguided.scorers.benchmark.data import read_ratings

    if variant == "base":
        return None
    folder = args.out / f"{variant}-{seed}"
    if (folder / "adapter_config.json").exists():
        return folder
    stds = {str(args.data / row["image"]): float(row["std"]) for row in rows_of(args.data / "first.csv")}
    ratings = read_ratings(args.data / "first.csv")
    widths = [stds[str(rating.image)] for rating in ratings]
    config = replace(recipe("embedded"), max_steps=args.steps, seed=seed, **(VARIANTS[variant] or {}))
    adapter = None
    if variant == "warm":
        config = replace(config, max_steps=args.warm_steps)
    if variant == "grpo":
        adapter = train("warm", seed, args)
        config = replace(
            recipe("embedded"), method="grpo", max_steps=args.grpo_steps, seed=seed, learning_rate=3e-4,
            generations=8, temperature=1.0, batch_size=96, micro_batch=96,
        )  # fmt: skip
        widths = None
    align("embedded", ratings, folder, config, stds=widths, adapter=adapter, resume=folder.exists())
    return folder


def run(variant: str, seed: int, args: argparse.Namespace) -> None:
    """Align and score the other half; writes args.out/VARIANT-SEED.json."""
    from cogguided.scorers.mllm import MLLMScorer

    torch.set_num_threads(1)
    start = time.perf_counter()
    folder = train(variant, seed, args)
    seconds = time.perf_counter() - start
    held = held_out(args)
    images = [args.data / row["image"] for row in held]
    scores = {}
    if folder is None:
        from cogguided.scorers.alignment import recipe
        from cogguided.scorers.alignment.loading import load_for_training

        # An aligner's model before its first step is the base; whatever it says of valid answers is read (mass 0).
        scorer = load_for_training("embedded", recipe("embedded"), ["emotional_valence"], "base").scorer(32)
        scorer.model.eval()
        scorer.min_mass = 0.0
    else:
        scorer = MLLMScorer.from_pretrained(folder, dimension="emotional_valence", batch_size=32)
    for readout in ("greedy", "expected"):
        scorer.readout = readout
        found = scorer(images)
        scores[readout] = [round(value, 5) for value in found.values.tolist()]
    result = {"variant": variant, "seed": seed, "train_seconds": round(seconds, 1), "scores": scores}
    (args.out / f"{variant}-{seed}.json").write_text(json.dumps(result) + "\n")


def ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    return rankdata(values, axis=-1)


def statistic(name: str, score: np.ndarray, human: np.ndarray) -> np.ndarray:
    """Of concepts' scores (..., n) with human ratings (..., n); what could not be read counts as the mean."""
    if name == "mae":
        return np.abs(score - human).mean(-1)
    one, two = ranks(score), ranks(human)
    one, two = one - one.mean(-1, keepdims=True), two - two.mean(-1, keepdims=True)
    power = np.sqrt((one**2).sum(-1) * (two**2).sum(-1))
    return np.divide((one * two).sum(-1), power, out=np.zeros_like(power), where=power > 0)


def report(args: argparse.Namespace) -> None:
    """Print the tables and write args.out/report.md."""
    held = held_out(args)
    human = np.array([float(row["score"]) for row in held])
    draws = np.random.default_rng(0).integers(0, len(held), (args.resamples, len(held)))
    scored, unread, seconds = {}, {}, {}
    for file in sorted(args.out.glob("*.json")):
        found = json.loads(file.read_text())
        for readout, values in found["scores"].items():
            scores = np.array(values, float)
            bad = np.isnan(scores)
            # What cannot be read tells nothing: it stands at the middle of what can (or at 0).
            scores[bad] = scores[~bad].mean() if (~bad).any() else 0.0
            key = (readout, found["variant"])
            scored.setdefault(key, []).append(scores)
            unread.setdefault(key, []).append(bad.mean())
            seconds.setdefault(found["variant"], []).append(found["train_seconds"])

    def spread(metric: str, key: tuple[str, str]) -> tuple[float, np.ndarray]:
        """Value and its resamples (R,), averaged over seeds."""
        seeds = scored[key]
        whole = np.mean([statistic(metric, one, human) for one in seeds])
        return float(whole), np.mean([statistic(metric, one[draws], human[draws]) for one in seeds], axis=0)

    found = {(metric, key): spread(metric, key) for metric in METRICS for key in scored}
    lines = [
        f"{len(held)} pictures of held-out concepts; training on {len(rows_of(args.data / 'first.csv'))} pictures of "
        "other concepts.",
        "", "| aligned by | read-out | seeds | Spearman | MAE | unread | s to train |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip

    def cell(value: float, resamples: np.ndarray, sign: str = "") -> str:
        low, high = np.percentile(resamples, [2.5, 97.5])
        return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

    for variant in VARIANTS:
        for readout in ("greedy", "expected"):
            key = (readout, variant)
            if key in scored:
                cells = [cell(*found[metric, key]) for metric in METRICS]
                share = f"{100 * np.mean(unread[key]):.1f} %"
                cells += [share, f"{np.mean(seconds[variant]):.0f}"]
                lines.append(f"| {variant} | {readout} | {len(scored[key])} | {' | '.join(cells)} |")
    lines += ["", "| paired difference | Spearman (more is better) | MAE (less is better) |", "|---|---|---|"]
    for one_read, one, two_read, two in COMPARED:
        first, second = (one_read, one), (two_read, two)
        if first in scored and second in scored:
            cells = []
            for metric in METRICS:
                (a, sa), (b, sb) = found[metric, first], found[metric, second]
                cells.append(cell(a - b, sa - sb, "+"))
            lines.append(f"| {one}, {one_read} - {two}, {two_read} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (args.out / "report.md").write_text(text)


def start(args: argparse.Namespace) -> None:
    """Run what is missing, so many at a time, each in a process of its own."""
    jobs = [
        (variant, seed)
        for seed in range(args.seeds)
        for variant in args.variants or VARIANTS
        if not (args.out / f"{variant}-{seed}.json").exists() and (variant != "base" or seed == 0)
    ]
    running: list[tuple[str, subprocess.Popen]] = []
    while jobs or running:
        for name, process in list(running):
            if process.poll() is not None:
                running.remove((name, process))
                print(f"{name}: {'done' if process.returncode == 0 else f'failed, see {name}.log'}", flush=True)
        if not jobs or len(running) >= args.workers:
            time.sleep(1)
        else:
            variant, seed = jobs.pop(0)
            name = f"{variant}-{seed}"
            with (args.out / f"{name}.log").open("w") as log:
                command = [sys.executable, str(HERE), *sys.argv[1:], "--one", variant, str(seed)]
                running.append((name, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/ablation"))
    parser.add_argument("--data", type=Path, default=Path("out/ratings"), help="made by ratings.py if it is not there")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="only these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="optimiser steps of the supervised losses")
    parser.add_argument("--warm-steps", type=int, default=50)
    parser.add_argument("--grpo-steps", type=int, default=30)
    parser.add_argument("--minimum", type=int, default=20, help="judge by concepts with so many uses")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--report", action="store_true", help="print the tables of what is there")
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.data / "second.csv").exists():
        subprocess.run([sys.executable, str(SCRIPTS / "ratings.py"), "--out", str(args.data)], check=True)
    if args.one:
        run(args.one[0], int(args.one[1]), args)
        return
    if not args.report:
        start(args)
    report(args)


if __name__ == "__main__":
    main()
