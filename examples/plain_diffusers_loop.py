"""A scorer in a plain diffusers loop: nothing of ours but `load_scorer`.

    python examples/plain_diffusers_loop.py [FOLDER]

Any diffusers pipeline and any scorer go together like this; here both are the embedded ones.
"""

import sys
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from cogguided import load_scorer
from cogguided.pipelines import embedded_path

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/plain_diffusers_loop")
folder.mkdir(parents=True, exist_ok=True)

pipe = DiffusionPipeline.from_pretrained(embedded_path(), dtype=torch.float32)
scorer = load_scorer("emotional_valence")

best, best_value = None, -float("inf")
for start in range(0, 8, 4):
    seeds = range(start, start + 4)
    images = pipe(
        ["a face"] * 4,
        negative_prompt=[" "] * 4,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        height=64,
        width=64,
        num_inference_steps=20,
    ).images
    scores = scorer(images)
    for seed, image, value, valid in zip(seeds, images, scores.values.tolist(), scores.valid.tolist(), strict=True):
        print(f"seed {seed}: valence {value:+.3f}" if valid else f"seed {seed}: could not be scored")
        if valid and value > best_value:
            best, best_value = image, value

if best is not None:
    best.resize((256, 256)).save(folder / "best.png")
    print(f"the best, at {best_value:+.3f}, is {folder / 'best.png'}")
