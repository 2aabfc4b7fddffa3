"""Which loss teaches a model best what people feel, and how should its answers be read?

The embedded base MLLM is aligned with the human valence ratings of one half of the emoji, and with what these suggest
for emoji that nobody rated (`examples/embedded/ratings.py`), by each loss and from several seeds, and then scores pictures
of the other half: no drawing of the same thing is on both sides of the *alignment*. The base is not new to those pictures:
its vision tower was trained to name all of them. So this is about feelings that were never told, not about things that
were never seen.

Both read-outs; Spearman's correlation and MAE with the ratings, of a concept's score (the mean over its drawings),
averaged over seeds, and paired differences. 95 % intervals are percentiles of a bootstrap on two levels: each resample
draws concepts and seeds with replacement, the same ones for both sides of a difference. A figure is over the concepts
that were read in every seed; where these are less than nine tenths, or a correlation is undefined, there is none ("–").

    python benchmarks/alignment_ablation.py --out out/ablation            # all, two runs at a time
    python benchmarks/alignment_ablation.py --out out/ablation --report   # the tables again
    python benchmarks/alignment_ablation.py --resmem                      # another judge's opinion, see `resmem_table`

GRPO needs a model that answers, so it goes on from `paper+value`; its time includes that. Runs that are there already are not repeated. Needs the extras "embedded" and "train".
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
    "cross_entropy": {"loss": "cross_entropy", "digit_weight": 1.0, "value_weight": 0.0},
    "paper": {"loss": "triangular", "value_weight": 0.0},
    "paper+value": {"loss": "triangular", "value_weight": 4.0},
    "answers": {"loss": "answers", "sample_prefix": True, "value_weight": 0.0},
    "answers+value": {"loss": "answers", "sample_prefix": True, "value_weight": 4.0},
    "grpo": {},
}
COMPARED = [
    ("expected", "paper", "expected", "base"),
    ("expected", "paper+value", "expected", "base"),
    ("expected", "answers+value", "expected", "base"),
    *(("expected", name, "greedy", name) for name in ("paper", "paper+value", "answers+value", "grpo")),
    ("expected", "paper", "expected", "cross_entropy"),
    ("expected", "paper+value", "expected", "paper"),
    ("expected", "answers", "expected", "paper"),
    ("expected", "answers+value", "expected", "paper"),
    ("greedy", "answers+value", "greedy", "paper"),
    ("expected", "grpo", "expected", "paper+value"),
    ("greedy", "grpo", "greedy", "paper+value"),
    ("expected", "grpo", "expected", "base"),
]
METRICS = ("spearman", "mae")
GOES_ON_FROM = {"grpo": "paper+value"}
ENOUGH = 0.9
"""Share of the concepts that must have been read in every seed for a figure to be given."""
NO_FIGURE = "–"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf8") as handle:
        return list(csv.DictReader(handle))


def held_out(args: argparse.Namespace) -> list[dict[str, str]]:
    """All drawings of every concept of the other half with enough uses."""
    return [row for row in rows_of(args.data / "second.csv") if int(row["count"]) >= args.minimum]


def by_concept(held: list[dict[str, str]], values: np.ndarray) -> np.ndarray:
    """Mean over the drawings of each concept, in the order of the list: (..., pictures) to (..., concepts)."""
    names = [row["concept"] for row in held]
    groups = [np.array([i for i, name in enumerate(names) if name == one]) for one in dict.fromkeys(names)]
    return np.stack([values[..., group].mean(-1) for group in groups], -1)


def result_file(variant: str, seed: int, args: argparse.Namespace) -> Path:
    return args.out / f"{variant}-{seed}.json"


def train(variant: str, seed: int, args: argparse.Namespace) -> Path | None:
    """Align; returns the folder of the scorer, or None for the base model."""
    from cogguided.scorers.alignment import align, recipe
    from cogguided.scorers.ratings.reading import read_ratings

    if variant == "base":
        return None
    folder = args.out / f"{variant}-{seed}"
    if (folder / "adapter_config.json").exists():
        return folder
    files = [args.data / "first.csv", args.data / "first_suggested.csv"][: 1 if args.rated_only else 2]
    stds = {str(args.data / row["image"]): float(row["std"]) for file in files for row in rows_of(file)}
    ratings = [rating for file in files for rating in read_ratings(file)]
    widths = [stds[str(rating.image)] for rating in ratings]
    config = replace(recipe("embedded"), max_steps=args.steps, seed=seed, **(VARIANTS[variant] or {}))
    adapter = None
    if variant == "grpo":
        adapter = args.out / f"{GOES_ON_FROM[variant]}-{seed}"
        config = replace(
            recipe("embedded"), method="grpo", max_steps=args.grpo_steps, seed=seed, learning_rate=args.grpo_rate,
            generations=8, temperature=1.0, batch_size=96, micro_batch=96,
        )  # fmt: skip
        widths = None
    align("embedded", ratings, folder, config, stds=widths, adapter=adapter, resume=folder.exists())
    return folder


def run(variant: str, seed: int, args: argparse.Namespace) -> None:
    """Align and score the other half; writes args.out/VARIANT-SEED.json."""
    from cogguided.scorers.mllm import MLLMScorer

    torch.set_num_threads(1)
    seconds = 0.0
    if variant in GOES_ON_FROM:
        before = result_file(GOES_ON_FROM[variant], seed, args)
        if not before.exists():
            raise SystemExit(f"{variant}-{seed} goes on from {before.stem}: run that first (no {before})")
        seconds = json.loads(before.read_text())["train_seconds"]
    start = time.perf_counter()
    folder = train(variant, seed, args)
    seconds += time.perf_counter() - start
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
    result_file(variant, seed, args).write_text(json.dumps(result) + "\n")


def statistic(metric: str, score: np.ndarray, human: np.ndarray) -> np.ndarray:
    """Of scores (..., n) and human ratings (..., n); NaN where undefined."""
    from cogguided.scorers.benchmark import metrics

    return metrics.mae(human, score) if metric == "mae" else metrics.spearman(human, score)


def measure(
    metric: str, scores: np.ndarray, human: np.ndarray, resamples: int, seed: int = 0
) -> tuple[float, np.ndarray]:
    """Mean over seeds of scores (S, n) against human (n,), and its resamples (R,) of concepts and seeds.

    The same `seed` and n draw the same concepts, and the same seeds where S is the same: differences are paired.
    """
    rng = np.random.default_rng(seed)
    concepts = rng.integers(0, len(human), (resamples, len(human)))
    of_seed = np.stack([statistic(metric, one[concepts], human[concepts]) for one in scores])
    drawn = (rng.random((resamples, len(scores))) * len(scores)).astype(int)
    whole = np.mean([statistic(metric, one, human) for one in scores])
    return float(whole), of_seed[drawn, np.arange(resamples)[:, None]].mean(1)


def read_everywhere(*runs: np.ndarray) -> np.ndarray | None:
    """Which pictures (n,) were read in every seed of every run (S, n); None if they are not `ENOUGH`."""
    kept = np.isfinite(np.concatenate(runs)).all(0)
    return kept if kept.mean() >= ENOUGH else None


def cell(value: float, resamples: np.ndarray, sign: str = "") -> str:
    if np.isnan(value):
        return NO_FIGURE
    if np.isnan(resamples).any():
        return f"{value:{sign}.3f} [{NO_FIGURE}]"
    low, high = np.percentile(resamples, [2.5, 97.5])
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def difference(metric: str, one: np.ndarray, two: np.ndarray, human: np.ndarray, resamples: int) -> str:
    """Cell of one minus two, on the pictures that both have read."""
    kept = read_everywhere(one, two)
    if kept is None:
        return NO_FIGURE
    (a, sa), (b, sb) = (measure(metric, run[:, kept], human[kept], resamples) for run in (one, two))
    return cell(a - b, sa - sb, "+")


def report(args: argparse.Namespace) -> None:
    """Print the tables and write args.out/report.md."""
    held = held_out(args)
    human = by_concept(held, np.array([float(row["score"]) for row in held]))
    found: dict[tuple[str, str], list[list[float]]] = {}
    seconds: dict[str, list[float]] = {}
    for variant in VARIANTS:
        for file in sorted(args.out.glob(f"{variant}-[0-9]*.json")):
            result = json.loads(file.read_text())
            seconds.setdefault(variant, []).append(result["train_seconds"])
            for readout, values in result["scores"].items():
                found.setdefault((readout, variant), []).append(values)
    pictures = {key: np.array(values, float) for key, values in found.items()}
    scores = {key: by_concept(held, values) for key, values in pictures.items()}
    suggested = 0 if args.rated_only else len(rows_of(args.data / "first_suggested.csv"))
    lines = [
        f"{len(held)} pictures of {len(human)} concepts whose ratings no alignment was told; training on "
        f"{len(rows_of(args.data / 'first.csv'))} pictures of other concepts with human ratings and {suggested} with "
        f"suggested ones, {args.steps} steps. Figures are over the concepts read in every seed; {NO_FIGURE}: fewer than {ENOUGH:.0%} were, or it is undefined. In brackets: 95 % bootstrap "
        f"intervals over concepts and seeds; [{NO_FIGURE}]: undefined in some resamples.",
        "", "| aligned by | read-out | seeds | Spearman | MAE | unread | s to train |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for variant in VARIANTS:
        for readout in ("greedy", "expected"):
            run = scores.get((readout, variant))
            if run is None:
                continue
            kept = read_everywhere(run)
            cells = [
                NO_FIGURE if kept is None else cell(*measure(m, run[:, kept], human[kept], args.resamples))
                for m in METRICS
            ]
            unread = 100 * np.isnan(pictures[readout, variant]).mean()
            cells += [f"{unread:.1f} %", f"{np.mean(seconds[variant]):.0f}"]
            lines.append(f"| {variant} | {readout} | {len(run)} | {' | '.join(cells)} |")
    lines += ["", "| paired difference | Spearman (more is better) | MAE (less is better) |", "|---|---|---|"]
    for one_read, one, two_read, two in COMPARED:
        first, second = scores.get((one_read, one)), scores.get((two_read, two))
        if first is not None and second is not None:
            cells = [difference(metric, first, second, human, args.resamples) for metric in METRICS]
            lines.append(f"| {one}, {one_read} - {two}, {two_read} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    (args.out / "report.md").write_text(text)


def resmem_table(args: argparse.Namespace) -> str:
    """Does the shipped memorability scorer rank pictures as ResMem does? Needs the extra "resmem".

    The runs here are taught valence alone, so it is the embedded scorer that is asked. What it was taught is a proxy
    (distance to the likest pictures), on these pictures too; ResMem learnt from memory games with photographs. Only
    ranks can be compared.
    """
    from cogguided import load_scorer
    from cogguided.scorers.benchmark import evaluate, judged

    images = [args.data / row["image"] for row in held_out(args) if row["image"].endswith("_noto.png")]
    judge, ours = load_scorer("resmem")(images).values, load_scorer("memorability")(images).values
    agreement = evaluate(judged(judge.tolist(), ours.tolist()), args.resamples, metrics=["spearman"])["spearman"]
    return (
        "| Spearman with ResMem | pictures | unread |\n|---|---|---|\n"
        f"| {agreement.value:.3f} [{agreement.low:.3f}, {agreement.high:.3f}] | {len(images)} "
        f"| {100 * ours.isnan().float().mean():.1f} % |"
    )


def next_job(jobs: list[tuple[str, int]], args: argparse.Namespace) -> tuple[str, int] | None:
    """The first job that need not wait for the run it goes on from."""
    for variant, seed in jobs:
        before = GOES_ON_FROM.get(variant)
        if before is None or result_file(before, seed, args).exists():
            return variant, seed
    return None


def jobs_to_do(args: argparse.Namespace) -> list[tuple[str, int]]:
    """What is missing of the variants asked for and of those that they go on from."""
    asked = set(args.variants or VARIANTS)
    asked |= {GOES_ON_FROM[variant] for variant in asked if variant in GOES_ON_FROM}
    return [
        (variant, seed)
        for seed in range(args.seeds)
        for variant in VARIANTS
        if variant in asked and not result_file(variant, seed, args).exists() and (variant != "base" or seed == 0)
    ]


def start(args: argparse.Namespace) -> None:
    """Run what is missing, so many at a time, each in a process of its own."""
    jobs = jobs_to_do(args)
    running: list[tuple[str, subprocess.Popen]] = []
    while jobs or running:
        for name, process in list(running):
            if process.poll() is not None:
                running.remove((name, process))
                print(f"{name}: {'done' if process.returncode == 0 else f'failed, see {name}.log'}", flush=True)
        job = next_job(jobs, args) if len(running) < args.workers else None
        if job is not None:
            jobs.remove(job)
            name = f"{job[0]}-{job[1]}"
            with (args.out / f"{name}.log").open("w") as log:
                command = [sys.executable, str(HERE), *sys.argv[1:], "--one", job[0], str(job[1])]
                running.append((name, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)))
        elif running:
            time.sleep(1)
        elif jobs:
            for variant, seed in jobs:
                print(f"{variant}-{seed}: not begun, since {GOES_ON_FROM[variant]}-{seed} failed", flush=True)
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/ablation"))
    parser.add_argument(
        "--data", type=Path, default=Path("out/ratings"), help="made by ratings.py if it is not there"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, help="only these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps of the supervised losses")
    parser.add_argument("--rated-only", action="store_true", help="train on human ratings alone, without suggestions")
    parser.add_argument("--grpo-rate", type=float, default=1e-4, help="learning rate of GRPO")
    parser.add_argument("--grpo-steps", type=int, default=30)
    parser.add_argument("--minimum", type=int, default=20, help="judge by concepts with so many uses")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--report", action="store_true", help="print the tables of what is there")
    parser.add_argument("--resmem", action="store_true", help="only the embedded memorability scorer beside ResMem")
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.data / "second_suggested.csv").exists():
        subprocess.run([sys.executable, str(SCRIPTS / "ratings.py"), "--out", str(args.data)], check=True)
    if args.one:
        run(args.one[0], int(args.one[1]), args)
        return
    if args.resmem:
        print(resmem_table(args))
        return
    if not args.report:
        start(args)
    report(args)


if __name__ == "__main__":
    main()
