"""Does best-of-N move what people feel, or only the number it climbs?

On the embedded model: for 20 open prompts, choose the best (and, separately, the worst) of N images by the
aligned scorer's emotional valence, and let a judge say how far that moves it. The judge is an MLLM aligned
on the other half of the concepts' human ratings, which the scorer never saw; `independent`, a judge of another kind, learned
the same half. Prints the mean gain over a
random image of the same N, its bootstrap 95 % interval over families of prompts, and what it costs in faithfulness
(CLIP).

    python benchmarks/best_of_n.py --n 8 --rounds 4 --out out/best_of_n
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from cogguided import BestOfN, CogGuidedPipeline, load_scorer
from cogguided.pipelines.embedded import embedded_path

LISTS = Path(__file__).resolve().parent.parent / "examples" / "embedded"
TARGET = "emotional_valence"


def interval(gains: np.ndarray, prompts: list[str], resamples: int = 10_000) -> tuple[float, float, float]:
    """Mean of per-prompt gains (P,) with its percentile bootstrap 95 % interval over families of prompts.

    Prompts with the same last word ("a face", "a flat face") are one family and are drawn together: their pictures are
    much alike, and taking them as independent would make the interval too narrow.
    """
    words = np.array([prompt.rsplit(" ", 1)[-1] for prompt in prompts])
    families = [gains[words == word] for word in dict.fromkeys(words)]
    draws = np.random.default_rng(0).integers(0, len(families), (resamples, len(families)))
    means = [np.concatenate([families[i] for i in draw]).mean() for draw in draws]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(gains.mean()), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--prompts",
        choices=("open", "feeling"),
        default="open",
        help="open: all kinds of things, fixed before training; feeling: faces, cats and hearts, whose pictures "
        "differ in what they make people feel",
    )
    parser.add_argument("--n", type=int, default=8, help="candidates per prompt")
    parser.add_argument("--rounds", type=int, default=4, help="independent sets of N seeds for each prompt")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("out/best_of_n"))
    args = parser.parse_args()
    prompts = (LISTS / f"{args.prompts}_prompts.txt").read_text().split("\n")[:-1]
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    pipe.set_progress_bar_config(disable=True)
    judge = load_scorer(embedded_path() / "judge", dimension=TARGET)
    independent = load_scorer("independent")
    clip = load_scorer("clip")
    gains: dict[str, list[list[float]]] = {name: [] for name in ROWS}
    start = time.perf_counter()
    for number, prompt in enumerate(prompts):
        rows: dict[str, list[float]] = {name: [] for name in ROWS}
        for k in range(args.rounds):
            seed = args.seed + 100 * k
            out = pipe(prompt, target=TARGET, guidance=BestOfN(args.n), seed=seed)
            images = [c.image for c in out.candidates]
            chosen = np.array([c.scores[TARGET] for c in out.candidates])
            judged = judge(images).values.numpy()
            independently = independent(images).values.numpy()
            faithful = clip(images, [prompt] * len(images)).values.numpy()
            if k == 0:
                out.save(args.out / f"{number:02d}-{prompt.replace(' ', '-')}", overwrite=True)
            for direction, pick in (("upward", int(chosen.argmax())), ("downward", int(chosen.argmin()))):
                rows[f"{direction}: scorer"].append(float(chosen[pick] - chosen.mean()))
                rows[f"{direction}: judge"].append(float(judged[pick] - judged.mean()))
                rows[f"{direction}: independent"].append(float(independently[pick] - independently.mean()))
                rows[f"{direction}: clip"].append(float(faithful[pick] - faithful.mean()))
        for name, values in rows.items():
            gains[name].append(values)
        print(f"{prompt:14s} judge up {np.mean(rows['upward: judge']):+.2f}", end="  ")
        print(f"down {np.mean(rows['downward: judge']):+.2f}", flush=True)
    seconds = time.perf_counter() - start
    result = {name: interval(np.array(values).mean(1), prompts) for name, values in gains.items()}
    count = len(prompts) * args.rounds * args.n
    print(f"\nbest of {args.n}, {len(prompts)} prompts x {args.rounds} rounds, {count} images, {seconds:.0f} s")
    print("gain over the mean of the same candidates, and 95 % interval over families of prompts:")
    for name, (mean, low, high) in result.items():
        print(f"  {name:18s} {mean:+.3f}  [{low:+.3f}, {high:+.3f}]")
    facts = {
        "prompts": args.prompts,
        "n": args.n,
        "rounds": args.rounds,
        "seed": args.seed,
        "seconds": seconds,
        "gains": result,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "result.json").write_text(json.dumps(facts, indent=1) + "\n")


SAYS = ("scorer", "judge", "independent", "clip")
ROWS = [f"{direction}: {judge}" for direction in ("upward", "downward") for judge in SAYS]


if __name__ == "__main__":
    main()
