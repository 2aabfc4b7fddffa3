"""Teach the embedded generator to draw happier pictures, in four minutes on two cores, and show it.

    python examples/finetune_embedded.py                 # writes out/finetune: a LoRA, report.html, before_after.png
    python examples/finetune_embedded.py --minutes 1     # a glimpse
"""

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image

from cogguided import CogGuidedPipeline, finetune
from cogguided.guidance.finetuning import recipe

PROMPTS = (
    "a face|a smiley|an emoji|a glossy face|a flat face|a cartoon face|a glossy smiley|a flat smiley|a calm face|"
    "a tired face|a shy face|a surprised face|a heart|a flower|a bird|a fruit"
).split("|")
HELD_OUT = ["a cat", "a flat cat", "a glossy cat", "a monster", "a monkey", "a nervous smiley", "an animal", "a dog"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.5)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--out", type=Path, default=Path("out/finetune"))
    args = parser.parse_args()

    pipe = CogGuidedPipeline.from_pretrained("embedded", target="emotional_valence")
    pipe.set_progress_bar_config(disable=True)
    before = draw(pipe)
    config = replace(recipe(embedded=True), minutes=args.minutes, rounds=args.rounds)
    result = finetune(pipe, prompts=PROMPTS, evaluation=HELD_OUT, output=args.out, config=config, overwrite=True)
    for name in result.before.values:
        print(f"{name:16} {result.before.mean(name):.3f} -> {result.saved.mean(name):.3f}")
    side_by_side(before, draw(pipe)).save(args.out / "before_after.png")
    print(f"the LoRA, report.html and before_after.png are in {args.out}")


def draw(pipe: CogGuidedPipeline) -> list[Image.Image]:
    prompts = [prompt for prompt in HELD_OUT for _ in range(2)]
    return list(pipe(prompts, seed=[7, 8] * len(HELD_OUT), guidance=[]).images)


def side_by_side(before: list[Image.Image], after: list[Image.Image]) -> Image.Image:
    """Two columns before, two after; a row for each prompt."""
    size = before[0].width
    page = Image.new("RGB", (4 * size + 24, size * (len(before) // 2)), "white")
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        x, y = i % 2 * size, i // 2 * size
        page.paste(old, (x, y))
        page.paste(new, (x + 2 * size + 24, y))
    return page


if __name__ == "__main__":
    main()
