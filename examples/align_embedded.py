"""Teach the embedded base MLLM what people feel, and ask people's ratings of other things whether it learned.

    python examples/embedded/ratings.py --out out/ratings      # human ratings of emoji, in two halves
    python examples/align_embedded.py out/aligned --ratings out/ratings

Six to nine minutes on one core. What the ratings suggest for pictures that nobody rated (`first_suggested.csv`) is
learnt too. `--loss ours` is the paper's with a term on the expected score, `--loss paper` is without. One drawing of
each thing is judged, Noto's, since three drawings with one rating are not three witnesses.
Training without a line of Python:

    cogguided align --model embedded --data out/ratings/first.csv --output out/aligned --max-steps 300
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

from cogguided import load_scorer
from cogguided.scorers.alignment import align, recipe
from cogguided.scorers.benchmark import evaluate, judged, read_ratings
from cogguided.scorers.dimensions import dimension

DIMENSION = "emotional_valence"
LOSSES = {  # as in benchmarks/alignment_ablation.py, where these are
    # called paper+value, paper, answers+value and cross_entropy
    "ours": {},  # the recipe of the embedded model
    "paper": {"value_weight": 0.0},
    "answers": {"loss": "answers", "sample_prefix": True},
    "cross_entropy": {"loss": "cross_entropy", "digit_weight": 1.0, "value_weight": 0.0},
}
OTHER_DRAWINGS = ("_flat", "_twemoji")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--ratings", type=Path, default=Path("out/ratings"), help="of ratings.py")
    parser.add_argument("--loss", choices=LOSSES, default="ours")
    parser.add_argument("--readouts", nargs="+", default=["greedy", "expected"])
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()

    config = replace(recipe("embedded"), max_steps=args.steps, **LOSSES[args.loss])
    files = [args.ratings / name for name in ("first.csv", "first_suggested.csv") if (args.ratings / name).exists()]
    ratings = [rating for file in files for rating in read_ratings(file)]
    rows = [row for file in files for row in csv.DictReader(file.read_text("utf8").splitlines())]
    widths = [float(row.get("std") or 0) for row in rows]
    align("embedded", ratings, args.output, config, stds=widths if all(widths) else None, overwrite=True)

    ratings = read_ratings(args.ratings / "second.csv", dimensions=[DIMENSION])
    held_out = [rating for rating in ratings if not rating.image.stem.endswith(OTHER_DRAWINGS)]
    for readout in args.readouts:
        scorer = load_scorer("mllm", model=args.output, dimension=DIMENSION, readout=readout)
        scores = scorer([rating.image for rating in held_out])
        human = [rating.score for rating in held_out]
        items = judged(human, scores.values.tolist(), dimension(DIMENSION), scores.labels)
        for name, figure in evaluate(items, metrics=("spearman", "mae")).items():
            interval = f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
            print(f"{readout}: {name} {interval} on {len(held_out)} images")


if __name__ == "__main__":
    main()
