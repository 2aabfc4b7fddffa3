"""Teach the embedded base MLLM what people feel, and ask people's ratings of other things whether it learned.

    python examples/embedded/ratings.py --out out/ratings      # human ratings of emoji, in two halves
    python examples/align_embedded.py out/aligned --ratings out/ratings

A few minutes on two cores; `--loss triangular` is the paper's. The same without a line of Python:

    cogguided align --model embedded --data out/ratings/first.csv --output out/aligned
    cogguided bench --scorer out/aligned --data out/ratings/second.csv --out out/bench
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from cogguided import load_scorer
from cogguided.scorers.alignment import align, recipe
from cogguided.scorers.benchmark import evaluate, judged, read_ratings
from cogguided.scorers.dimensions import dimension

DIMENSION = "emotional_valence"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--ratings", type=Path, default=Path("out/ratings"), help="of ratings.py")
    parser.add_argument("--loss", choices=("answers", "triangular", "cross_entropy"), default="answers")
    parser.add_argument("--readouts", nargs="+", default=["greedy", "expected"])
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()

    config = replace(recipe("embedded"), loss=args.loss, max_steps=args.steps)
    align("embedded", args.ratings / "first.csv", args.output, config, overwrite=True)

    held_out = read_ratings(args.ratings / "second.csv", dimensions=[DIMENSION])
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
