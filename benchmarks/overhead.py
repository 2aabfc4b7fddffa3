"""What does CogGuidedPipeline cost at N = 1, without guidance, over the bare pipeline? At most 2 %.

Both draw the same image from the same seed, side by side, in alternating order, so that whatever else the
machine does falls on both. The figures are medians of paired ratios with bootstrap intervals: of wall-clock,
and on a CPU also of processor time, which other programs do not disturb. Exit code 1 if the interval of the
latter (on a GPU, of wall-clock) lies above the limit.

    python benchmarks/overhead.py                     # the embedded model, 40 pairs
    python benchmarks/overhead.py --model FOLDER --pairs 20 --steps 30
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cogguided import CogGuidedPipeline

LIMIT = 1.02


def measure(pipe: CogGuidedPipeline, pairs: int, arguments: dict[str, int]) -> np.ndarray:
    """Seconds of the bare and of the guided call, (pairs, 2, 2): wall-clock and processor time.

    One call of each goes unmeasured before.
    """
    bare = pipe.base_class.__call__
    defaults = {**pipe._settings.call_defaults, **arguments}

    def run_bare(seed: int) -> None:
        bare(pipe, prompt="a face", generator=torch.Generator("cpu").manual_seed(seed), **defaults)

    def run_guided(seed: int) -> None:
        pipe("a face", seed=seed, **arguments)

    calls = [run_bare, run_guided]
    for call in calls:
        call(0)
    seconds = np.empty((pairs, 2, 2))
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            started = time.perf_counter(), time.process_time()
            calls[which](pair)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[pair, which] = time.perf_counter() - started[0], time.process_time() - started[1]
    return seconds


def summary(seconds: np.ndarray, resamples: int = 10_000) -> dict[str, float]:
    """Median paired ratio, its 95 % bootstrap interval and the quartiles of the ratios."""
    ratios = seconds[:, 1] / seconds[:, 0]
    drawn = np.random.default_rng(0).choice(ratios, (resamples, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {
        "ratio": float(np.median(ratios)),
        "low": float(low),
        "high": float(high),
        "first_quartile": float(np.quantile(ratios, 0.25)),
        "third_quartile": float(np.quantile(ratios, 0.75)),
        "bare_seconds": float(np.median(seconds[:, 0])),
        "guided_seconds": float(np.median(seconds[:, 1])),
        "pairs": len(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    pipe = CogGuidedPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    if torch.cuda.is_available():
        pipe.to("cuda")
    arguments = {} if options.steps is None else {"num_inference_steps": options.steps}
    seconds = measure(pipe, options.pairs, arguments)
    facts = {"wall-clock": summary(seconds[..., 0])}
    if not torch.cuda.is_available():
        facts["processor time"] = summary(seconds[..., 1])
    for what, figures in facts.items():
        print(
            f"{what:>14}, ratio {figures['ratio']:.4f} (95 % interval {figures['low']:.4f} to "
            f"{figures['high']:.4f}, quartiles {figures['first_quartile']:.4f}, "
            f"{figures['third_quartile']:.4f}, {figures['pairs']} pairs; {figures['bare_seconds']:.3f} s)"
        )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(facts, indent=1) + "\n")
    sys.exit(list(facts.values())[-1]["low"] > LIMIT)


if __name__ == "__main__":
    main()
