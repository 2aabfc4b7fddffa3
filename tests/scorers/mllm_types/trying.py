"""What a model type can do as a judge, tried on its tiny model: yes, or the sentence of the refusal."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cogguided._errors import CogGuidedError
from cogguided.scorers.mllm.options import ReadOptions
from cogguided.scorers.mllm.scorer import MLLMScorer

YES = "yes"
DIMENSION = "memorability"


def noise(width: int, height: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ramp(width: int, height: int) -> Image.Image:
    pixels = np.broadcast_to(np.linspace(0, 255, width, dtype=np.uint8)[None, :, None], (height, width, 3)).copy()
    pixels[..., 0] //= 8
    return Image.fromarray(pixels)


PICTURES = [noise(40, 60, 0), ramp(90, 30)]


def measure(folder: Path) -> dict[str, str]:
    """Take the model in a folder through everything; an ability that is refused has the sentence which says why.

    Raises:
        AssertionError: a number that is wrong.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scorer = MLLMScorer.from_pretrained(folder, DIMENSION, min_mass=0.0)
    except CogGuidedError as error:
        return {"loads": str(error)}
    core: Any = scorer.core
    read = "packed" if core.batched else "one at a time" if core.packed else "copies" if core.copied else "re-runs"
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning) and "tiny" in str(w.message)]
    assert bool(notes) == (read != "packed"), caught
    found = {"loads": YES, "read": read}
    for name, trial in (("expected", _expected), ("greedy", _greedy), ("gradient", _gradient)):
        try:
            trial(scorer)
            found[name] = YES
        except CogGuidedError as error:
            found[name] = str(error)
    return found


def _expected(scorer: MLLMScorer) -> None:
    """A batch gives what singles give, and the image matters; fast ways were compared with plain runs at loading."""
    together = scorer(PICTURES)
    alone = torch.cat([scorer([picture]).values for picture in PICTURES])
    assert together.valid.all(), together.errors
    torch.testing.assert_close(together.values, alone, atol=1e-4, rtol=0)
    assert (alone[0] - alone[1]).abs() > 1e-6, "the image makes no difference"


def _greedy(scorer: MLLMScorer) -> None:
    """Each says in a batch what it says alone."""
    greedy = MLLMScorer(scorer.core, DIMENSION, ReadOptions("greedy", max_new_tokens=6))
    together = greedy(PICTURES)
    for row, picture in enumerate(PICTURES):
        alone = greedy([picture])
        assert together.errors[row] == alone.errors[0]
        torch.testing.assert_close(together.values[row], alone.values[0], equal_nan=True)


def _gradient(scorer: MLLMScorer) -> None:
    """It is finite, not zero, and that of each image alone, where they are asked together."""
    core: Any = scorer.core
    count = 2 if core.batched else 1
    start = torch.from_numpy(np.random.default_rng(2).integers(20, 235, (count, 3, 40, 60))).float() / 255
    pixels = start.clone().requires_grad_()
    (together,) = torch.autograd.grad(scorer(pixels).values.sum(), pixels)
    assert torch.isfinite(together).all()
    assert together.abs().max() > 0, "the gradient is zero"
    for row in range(count if count > 1 else 0):
        one = start[row : row + 1].clone().requires_grad_()
        (alone,) = torch.autograd.grad(scorer(one).values.sum(), one)
        assert alone.abs().max() > 0, "the gradient is zero"
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-2, atol=1e-3 * float(alone.abs().max()))
