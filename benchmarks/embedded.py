"""What the embedded model draws: a sheet of 30 everyday prompts, and how open its open prompts stay.

Prompts and seeds were fixed before training (`examples/embedded/prompts.txt`, seeds 0 to 3); nothing is
picked. The sheet is for a person to look at. The figures beside it: how often the CLIP judge and the base
MLLM, neither of which takes part in drawing, name the thing that was asked for; over 32 seeds of "a face",
how many different faces CLIP tells apart and the spread of the valence score; seconds an image, alone and
in a batch.

    python benchmarks/embedded.py --out out/embedded
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np

from cogguided import BestOfN, CogGuidedPipeline, load_scorer
from cogguided.pipelines.records.sheet import Tile, draw_sheet

PROMPTS = Path(__file__).resolve().parent.parent / "examples" / "embedded" / "prompts.txt"
SEEDS = range(4)
FACES = (
    "grinning face|beaming face with smiling eyes|face with tears of joy|winking face|smiling face with halo|"
    "smiling face with heart-eyes|kissing face|face with tongue|thinking face|neutral face|face with rolling eyes|"
    "sleeping face|face with medical mask|nauseated face|hot face|cold face|exploding head|partying face|"
    "smiling face with sunglasses|nerd face|worried face|astonished face|pleading face|crying face|"
    "loudly crying face|face screaming in fear|angry face|enraged face|smiling face with horns|money-mouth face|"
    "zipper-mouth face|cowboy hat face"
).split("|")


def recognised(pipe: CogGuidedPipeline, prompts: list[str], out: Path) -> dict[str, float]:
    """Draw every prompt with seeds 0 to 3, save the sheet; share of images whose prompt CLIP ranks first of
    all.
    """
    clip = load_scorer("clip")
    groups, hits = [], []
    texts = clip.encode_texts(prompts)
    for index, prompt in enumerate(prompts):
        candidates = pipe(prompt, guidance=BestOfN(len(SEEDS), keep=len(SEEDS)), seed=SEEDS[0]).candidates
        images = [c.image for c in candidates]
        groups.append((prompt, [Tile(image, f"seed {seed}") for image, seed in zip(images, SEEDS, strict=True)]))
        nearest = (clip.encode_images(images) @ texts.T).argmax(1).tolist()
        hits.append(sum(place == index for place in nearest))
        print(f"{prompt:30s} CLIP's first choice in {hits[-1]} of {len(SEEDS)}", flush=True)
    side_by_side(groups).save(out / "prompts.png")
    return {"images": sum(hits) / (len(hits) * len(SEEDS)), "prompts_3_of_4": sum(h >= 3 for h in hits)}


def side_by_side(groups: list, columns: int = 3) -> object:
    """Lay the prompts out in columns, in the order they come."""
    from PIL import Image

    each = -(-len(groups) // columns)
    parts = [draw_sheet(groups[i : i + each], columns=4, size=64) for i in range(0, len(groups), each)]
    sheet = Image.new("RGB", (sum(p.width for p in parts), max(p.height for p in parts)), parts[0].getpixel((0, 0)))
    for i, part in enumerate(parts):
        sheet.paste(part, (sum(p.width for p in parts[:i]), 0))
    return sheet


def openness(pipe: CogGuidedPipeline, prompt: str, out: Path, count: int = 32) -> dict[str, float]:
    """Different faces by CLIP, and spread of the valence score, over `count` seeds of an open prompt."""
    clip = load_scorer("clip")
    made = pipe(prompt, target="emotional_valence", guidance=BestOfN(count), seed=0)
    made.save(out / prompt.replace(" ", "-"), overwrite=True)
    images = [c.image for c in made.candidates]
    names = (clip.encode_images(images) @ clip.encode_texts(FACES).T).argmax(1).tolist()
    values = np.array([c.scores["emotional_valence"] for c in made.candidates])
    shown = Counter(FACES[n] for n in names)
    return {
        "different": len(shown),
        "std": float(values.std(ddof=1)),
        "low": values.min(),
        "high": values.max(),
    }


def speed(pipe: CogGuidedPipeline, repeats: int = 5) -> dict[str, list[float]]:
    """Seconds an image of 20 steps: alone, and in a batch of 8; the middle one of `repeats`, lowest and
    highest.
    """
    found = {}
    for name, guidance, count in (("alone", None, 1), ("batch of 8", BestOfN(8), 8)):
        took = []
        for k in range(repeats):
            start = time.perf_counter()
            pipe("a cat", guidance=guidance, seed=k)
            took.append((time.perf_counter() - start) / count)
        found[name] = [float(np.median(took)), min(took), max(took)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/embedded"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    pipe.set_progress_bar_config(disable=True)
    result = {
        "recognised": recognised(pipe, PROMPTS.read_text().split("\n")[:-1], args.out),
        "a face": openness(pipe, "a face", args.out),
        "seconds an image": speed(pipe),
    }
    print(json.dumps(result, indent=1, default=float))
    (args.out / "result.json").write_text(json.dumps(result, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
