"""All of arXiv 2511.22805 in miniature, offline: benchmark, aligned text encoder, study, and what helps instead.

    python examples/embedded/ratings.py --out out/ratings     # human ratings of emoji, once (extra "embedded")
    python examples/paper_in_miniature.py --ratings out/ratings

Less than 15 minutes on two cores. Four parts:
1. the benchmark, on things of the other half of the human ratings: the base MLLM, the aligned one that comes with the
   package, and one aligned here gently, by the paper's loss at a small learning rate;
2. how far each alignment moves the features of a prompt that the generator listens to, and what that does to images,
   at strengths from 0 to 2;
3. the study: original against aligned text encoder, each alone and with best-of-N, by judges and for people's eyes;
4. a sheet of images, since numbers may rise while pictures rot.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from cogguided import CogGuidedPipeline, load_scorer, run_study, swap_text_encoder
from cogguided.pipelines import embedded_path
from cogguided.scorers.alignment import align, recipe
from cogguided.scorers.benchmark import evaluate, judged, read_ratings
from cogguided.scorers.dimensions import dimension
from cogguided.scorers.mllm import MLLMScorer
from cogguided.scorers.mllm.checkpoints import ScorerFacts
from cogguided.scorers.mllm.options import ReadOptions

VALENCE = "emotional_valence"
PROMPTS = (
    "a face|a cat|a heart|a smiley|a monster|a flower|a dessert|a bird|a glossy face|a flat face|a cartoon cat|"
    "a flat cat|a glossy smiley|a flat monster|an animal|a drink"
).split("|")
STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, default=Path("out/ratings"), help="of examples/embedded/ratings.py")
    parser.add_argument("--out", type=Path, default=Path("out/miniature"))
    parser.add_argument("--steps", type=int, default=60, help="of the gentle alignment")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of the gentle alignment")
    parser.add_argument("--n", type=int, default=4, help="candidates of best-of-N")
    parser.add_argument("--items", type=int, default=200, help="pictures of the benchmark")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="only the first so many")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    args = parser.parse_args()
    prompts = PROMPTS[: args.prompts]
    shown = prompts[:8]
    if not (args.ratings / "second.csv").is_file():
        parser.error(f"no {args.ratings}/second.csv: python examples/embedded/ratings.py --out {args.ratings}")
    args.out.mkdir(parents=True, exist_ok=True)

    gentle = args.out / "gentle"
    if not (gentle / "adapter_model.safetensors").is_file():
        config = replace(recipe("embedded"), max_steps=args.steps, learning_rate=args.learning_rate, value_weight=0.0)
        align("embedded", args.ratings / "first.csv", gentle, config, overwrite=True)
    aligned = {"shipped": embedded_path() / "aligned", "gentle": gentle}

    print("\n1. Benchmark: agreement with people on things never trained on (Spearman, MAE; 95 % intervals)")
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    pipe.set_progress_bar_config(disable=True)
    # the base was never taught to answer: whatever it says of valid answers is read, of all alike
    scorers = {
        name: load_scorer("mllm", model=model, dimension=VALENCE, min_mass=0.0) for name, model in aligned.items()
    }
    base = MLLMScorer.from_loaded(
        pipe.text_encoder, scorers["shipped"].processor, ScorerFacts(name="base"), VALENCE, ReadOptions(min_mass=0.0)
    )
    benchmark({"base": base, **scorers}, args.ratings, args.items)

    print("\n2. Strengths: features moved (share of their length), then means over images")
    judges = {
        "target": load_scorer(VALENCE),
        "held-out judge": load_scorer(embedded_path() / "judge", dimension=VALENCE),
        "faithfulness": load_scorer("clip"),
    }
    sheets: dict[str, list[Image.Image]] = {}
    mood = moved(features(pipe, "a happy face"), features(pipe, "a sad face"))
    print(f"   for comparison: from 'a sad face' to 'a happy face' the features move by {mood:.2f}")
    for name, model in aligned.items():
        before = {prompt: features(pipe, prompt) for prompt in prompts}
        with swap_text_encoder(pipe, model) as swap:
            for strength in args.strengths:
                swap.strength = strength
                far = sum(moved(features(pipe, p), before[p]) for p in prompts) / len(prompts)
                images = list(pipe(prompts, seed=55, guidance=[]).images)
                told = {n: float(judge(images, prompts).values.mean()) for n, judge in judges.items()}
                told_text = ", ".join(f"{n} {v:+.2f}" for n, v in told.items())
                print(f"   {name:8} strength {strength:<5g} moved {far:.2f}: {told_text}", flush=True)
                sheets[f"{name} {strength:g}"] = images[: len(shown)]

    print("\n3. Study: differences from the original encoder, paired over prompts (shares of the scale)")
    for name in ("gentle", "shipped"):
        out = args.out / f"study_{name}"
        pipe = CogGuidedPipeline.from_pretrained("embedded")
        seeds = [55]
        result = run_study(
            pipe, aligned[name], prompts, VALENCE, out, seeds=seeds, n=args.n, overwrite=True, progress=False
        )
        for arm, measures in result.differences.items():
            cells = (f"{n} {e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for n, e in measures.items())
            print(f"   {name:8} {arm:22} " + "; ".join(cells), flush=True)

    sheet(sheets, shown).save(args.out / "strengths.png")
    (args.out / "strengths.json").write_text(json.dumps({"prompts": shown, "columns": list(sheets)}))
    print(f"\n4. Look: {args.out}/strengths.png; for people to choose: {args.out}/study_gentle/vote.html")


def benchmark(scorers: dict[str, MLLMScorer], ratings: Path, count: int) -> None:
    """Score pictures of the other half of the ratings, one drawing of each thing."""
    rated = [r for r in read_ratings(ratings / "second.csv", dimensions=[VALENCE]) if r.image.stem.endswith("_noto")]
    rated = rated[:: max(1, len(rated) // count)]
    for name, scorer in scorers.items():
        scores = scorer([rating.image for rating in rated])
        items = judged([r.score for r in rated], scores.values.tolist(), dimension(VALENCE), scores.labels)
        cells = []
        for metric, found in evaluate(items, metrics=("spearman", "mae")).items():
            cells.append(f"{metric} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")
        print(f"   {name:8} {', '.join(cells)} on {len(rated)} things", flush=True)


@torch.no_grad()
def features(pipe: CogGuidedPipeline, prompt: str) -> torch.Tensor:
    """What the generator listens to: (tokens, width)."""
    encoded: torch.Tensor = pipe.encode_prompt(prompt=prompt, device=pipe.device)[0][0]
    return encoded


def moved(after: torch.Tensor, before: torch.Tensor) -> float:
    return float((after - before).norm() / before.norm())


def sheet(columns: dict[str, list[Image.Image]], shown: list[str]) -> Image.Image:
    """A column for each strength, a row for each prompt."""
    size, top, left = 64, 30, 90
    page = Image.new("RGB", (left + len(columns) * (size + 6), top + len(shown) * (size + 4)), "white")
    draw = ImageDraw.Draw(page)
    for x, (name, images) in enumerate(columns.items()):
        word, _, number = name.rpartition(" ")
        draw.text((left + x * (size + 6), 2), f"{word}\n{number}", fill="black")
        for y, image in enumerate(images):
            page.paste(image, (left + x * (size + 6), top + y * (size + 4)))
    for y, prompt in enumerate(shown):
        draw.text((4, top + y * (size + 4) + 26), prompt, fill="black")
    return page


if __name__ == "__main__":
    main()
