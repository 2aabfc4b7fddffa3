"""How fast does an MLLM scorer score? Images a second one by one, in batches, and in all dimensions at once.

    python benchmarks/scoring.py                              the embedded scorer
    python benchmarks/scoring.py Qwen/Qwen2.5-VL-3B-Instruct --images photos/ --batch-size 8

Each way of scoring is timed `--repeats` times, the ways taking turns so that a busy machine hits all of them
alike. Printed are the median and the quartiles, and the same for the ratios, taken within each turn.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from cogguided.scorers import load_scorer
from cogguided.scorers.mllm import MLLMScorer


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder or hub name; default: the embedded scorer")
    parser.add_argument("--images", type=Path, help="folder of pictures; default: noise of 64x64")
    parser.add_argument("--num-images", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default=None)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def load_pictures(folder: Path | None, count: int) -> list[Image.Image]:
    if folder is None:
        return [Image.effect_noise((64, 64), 20 + index).convert("RGB") for index in range(count)]
    suffixes = {".png", ".jpg", ".jpeg", ".webp"}
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)[:count]
    if not files:
        raise SystemExit(f"{folder}: holds no pictures")
    return [Image.open(path).convert("RGB") for path in files]


def ways_of_scoring(scorer: MLLMScorer, pictures: list[Image.Image]) -> dict[str, Callable[[], object]]:
    """What is timed, each over all pictures."""
    dimensions = [scorer.with_dimension(name) for name in scorer.dimensions]
    return {
        "single": lambda: [scorer([picture]) for picture in pictures],
        "batch": lambda: scorer(pictures),
        "separate": lambda: [one(pictures) for one in dimensions],
        "score_all": lambda: scorer.score_all(pictures),
    }


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q1": low, "q3": high}


def main() -> None:
    arguments = read_arguments()
    options = {"batch_size": arguments.batch_size, "device": arguments.device, "min_mass": 0.0}
    name = arguments.model or "emotional_valence"
    scorer = load_scorer(name, **options)
    if not isinstance(scorer, MLLMScorer):
        raise SystemExit(f"{name} is not an MLLM scorer")
    pictures = load_pictures(arguments.images, arguments.num_images)
    ways = ways_of_scoring(scorer, pictures)
    for run in ways.values():
        run()  # warm up: answer trees, kernels
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.repeats):
        for way, run in ways.items():
            times[way].append(seconds(run))

    report = {f"{way} (images/s)": spread([len(pictures) / t for t in taken]) for way, taken in times.items()}
    for fast, slow in (("batch", "single"), ("score_all", "separate")):
        ratios = [s / f for f, s in zip(times[fast], times[slow], strict=True)]
        report[f"{fast} over {slow} (x faster)"] = spread(ratios)
    if arguments.json:
        print(json.dumps({"model": scorer.model_name, "num_images": len(pictures), **report}, indent=2))
        return
    print(f"{scorer.model_name}, {len(pictures)} images, batches of {scorer.batch_size}, {scorer.model.device}")
    for line, figures in report.items():
        print(f"{line:36} {figures['median']:9.2f}   [{figures['q1']:.2f}, {figures['q3']:.2f}]")


if __name__ == "__main__":
    main()
