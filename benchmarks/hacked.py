"""Which judges see through pictures that were made to please one?

DRTune follows the embedded scorer's own gradient, upward in emotional valence, with the alarm off, until its pictures are
no longer drawings of anything; then 32 held-out prompts are drawn, one seed each, by the untrained generator and by the
trained one. The pictures are kept in ``tests/scorers/hacked`` as a test set of the judge of another kind (its pictures of nothing were
settled while looking at this set: it flatters that judge). Told of each
judge: the mean of the trained model's pictures less that of the plain ones, in parts of the scale, with a 95 % bootstrap
interval over prompts.

    python benchmarks/hacked.py --out out/hacked      # trains, draws and asks; goes on where it was killed
    python benchmarks/hacked.py --report              # only asks about the stored pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cogguided import CogGuidedPipeline, FinetuneConfig, finetune, load_scorer
from cogguided.pipelines.embedded import embedded_path

HERE = Path(__file__).resolve().parent
STORED = HERE.parent / "tests" / "scorers" / "hacked"
ROUNDS = 6
CONFIG = FinetuneConfig(
    method="drtune", learning_rate=3e-3, timesteps=3, num_inference_steps=10, updates=8, warmup=2, images_per_evaluation=2,
    evaluate_every=2, rounds=ROUNDS, patience=0, save="last",
)  # fmt: skip
SEED, SIZE, COLUMNS = 90001, 64, 8
STATES = ("plain", "hacked")


def lines(name: str) -> list[str]:
    return (HERE / name).read_text("utf8").split("\n")[:-1]


def prompts() -> list[str]:
    """32 of the 40 held-out prompts."""
    return [text for i, text in enumerate(lines("finetuning_held_out.txt")) if i % 5 != 4]


def train_and_draw(out: Path) -> None:
    """Train until the pictures rot, and store what both models draw."""
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    pipe.set_progress_bar_config(disable=True)
    store("plain", pipe)
    started = (out / "finetuning.json").exists()
    finetune(pipe, {"emotional_valence": 1.0}, lines("finetuning_train.txt"), out, CONFIG, resume=started)
    store("hacked", pipe)


def store(name: str, pipe: CogGuidedPipeline) -> None:
    """Draw the prompts and keep them as one sheet, row by row."""
    made = pipe(prompts(), seed=[SEED] * len(prompts())).images
    sheet = Image.new("RGB", (COLUMNS * SIZE, len(made) // COLUMNS * SIZE))
    for i, image in enumerate(made):
        sheet.paste(image, (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    STORED.mkdir(exist_ok=True)
    sheet.save(STORED / f"{name}.webp", quality=92, method=6)


def stored(name: str) -> list[Image.Image]:
    """The pictures of a state, in the order of the prompts."""
    sheet = Image.open(STORED / f"{name}.webp").convert("RGB")
    places = [(x, y) for y in range(0, sheet.height, SIZE) for x in range(0, sheet.width, SIZE)]
    return [sheet.crop((x, y, x + SIZE, y + SIZE)) for x, y in places]


def interval(differences: np.ndarray, resamples: int = 10_000) -> tuple[float, float, float]:
    """Mean of (P,) and its 95 % bootstrap interval."""
    draws = np.random.default_rng(0).integers(0, len(differences), (resamples, len(differences)))
    low, high = np.percentile(differences[draws].mean(1), [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def report() -> dict[str, tuple[float, float, float]]:
    """Ask every judge, print what it says, and return the change of each in parts of its scale."""
    valence = "emotional_valence"
    scorers = {
        "target": load_scorer(valence),
        "held-out judge": load_scorer(embedded_path() / "judge", dimension=valence),
        "independent": load_scorer("independent"),
        "faithfulness": load_scorer("clip"),
    }
    pictures, found = {name: stored(name) for name in STATES}, {}
    for name, scorer in scorers.items():
        plain, hacked = (scorer(pictures[state], prompts()).values.numpy() for state in STATES)
        found[name] = interval((hacked - plain) / (scorer.high - scorer.low))
        told = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found[name])
        print(f"{name:14s} {plain.mean():6.2f} -> {hacked.mean():6.2f}, in parts of the scale {told}")
    independent = scorers["independent"]
    with torch.no_grad():
        pixels = [independent.prepare(pictures[state], []) for state in STATES]
        members = (independent.standardised(pixels[1]) - independent.standardised(pixels[0])).numpy()
    for name, of in zip(("nets", "probe", "trees"), members.T, strict=True):
        print(f"  {name:12s} in standard deviations {{:+.2f}} [{{:+.2f}}, {{:+.2f}}]".format(*interval(of)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/hacked"))
    parser.add_argument("--report", action="store_true", help="only ask the judges about the stored pictures")
    args = parser.parse_args()
    if not args.report:
        train_and_draw(args.out)
    report()


if __name__ == "__main__":
    main()
