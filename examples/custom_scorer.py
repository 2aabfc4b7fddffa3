"""A scorer of your own: any object with these facts and a call; no base class, nothing to inherit.

    python examples/custom_scorer.py [FOLDER]

To give it a name in every program that has your package, declare it in pyproject.toml:

    [project.entry-points."cogguided.scorers"]
    warmth = "my_package:Warmth"
"""

import sys
from pathlib import Path

import numpy as np
import torch

from cogguided import BestOfN, CogGuidedPipeline, Scores, register_scorer


class Warmth:
    """How much redder than blue an image is: -1 (all blue) to 1 (all red)."""

    name = "warmth"
    low, high = -1.0, 1.0
    differentiable = False
    needs_prompt = False

    def __call__(self, images, prompts=None):
        """Score a list of PIL images or a tensor (B, 3, H, W) in [0, 1]."""
        if not isinstance(images, torch.Tensor):
            arrays = [np.asarray(image.convert("RGB"), dtype=np.float32) / 255 for image in images]
            return Scores(torch.tensor([float((a[..., 0] - a[..., 2]).mean()) for a in arrays]))
        return Scores((images[:, 0] - images[:, 2]).mean(dim=(1, 2)))

    def to(self, device):
        """There are no weights to move."""
        return self


register_scorer("warmth", Warmth)

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/custom_scorer")
pipe = CogGuidedPipeline.from_pretrained("embedded")
out = pipe("a heart", target="warmth=1,emotional_valence=0.5", guidance=BestOfN(6), seed=0)
for candidate in sorted(out.candidates, key=lambda c: c.rank):
    terms = ", ".join(f"{name} {value:+.2f}" for name, value in candidate.scores.items())
    print(f"seed {candidate.seed}: total {candidate.score:.3f} ({terms})")
out.save(folder, overwrite=True)
print(f"see {folder / 'contact_sheet.png'}")
