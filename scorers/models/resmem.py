"""ResMem: how well people will remember an image, by a network trained on memory games with photographs.

Needell and Bainbridge 2022, "Embracing New Techniques in Deep Learning for Estimating Image Memorability",
Computational Brain & Behavior 5, arXiv 2105.11598; trained on LaMem and MemCat.

Code and weights come with the package ``resmem`` (extra "resmem", 0.5 GB) under the **ResMem Non-commercial
License**, (c) 2021 The University of Chicago: research use only. So it is a judge beside ours: nothing that
ships with cogguided was taught by it.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..._errors import InputError, ModelError, missing_extra
from ..base import ImageInput, Scores
from ..images import check_images, load_images
from ..precision import own_precision


class ResMemScorer:
    """Predicted memorability, the share of people who will know an image again, 0 to 1; higher is more.

    It saw photographs only. Without gradients, since it judges and does not teach.

    Make one with `from_pretrained`.
    """

    name = "resmem"
    low = 0.0
    high = 1.0
    differentiable = False
    needs_prompt = False

    def __init__(self, model: Any, preprocess: Any, batch_size: int = 32) -> None:
        """Take a ``resmem.ResMem`` and its transform from a PIL image to (3, 227, 227)."""
        if batch_size < 1:
            raise InputError(f"expected batch_size >= 1, got {batch_size}")
        self.model = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(cls, batch_size: int = 32, device: torch.device | str | None = None) -> ResMemScorer:
        """Load the network and the weights that the package ``resmem`` brings; tells its licence once.

        The weights are a pickle, which torch (from 2.6 on) reads as tensors only: no code in it can run.
        Nothing is downloaded.

        Raises:
            MissingExtraError: the package is not installed.
            ModelError: its file of weights is absent, or no plain weights.

        Executed examples are in ``tests/scorers/test_resmem.py``.
        """
        try:
            import resmem
        except ImportError:
            raise missing_extra("resmem", "resmem") from None
        _tell_licence()
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        file = Path(resmem.path).resolve()
        again = "pip install --force-reinstall --no-deps resmem"
        if not file.is_file():
            raise ModelError(f"resmem: its weights are not there (no file {file}); type: {again}")
        try:
            with warnings.catch_warnings():
                # resmem 1.1.6 asks torchvision in an old way; nothing that a user could change
                warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
                model = resmem.ResMem(pretrained=True)
        except (OSError, EOFError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
            raise ModelError(
                f"{file}: cannot be read as ResMem's weights ({type(error).__name__}); type: {again}"
            ) from error
        return cls(model.to(place), resmem.transformer, batch_size)

    def to(self, device: torch.device | str) -> ResMemScorer:
        """Move the weights and return the scorer itself."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images; `prompts` are not looked at.

        Raises:
            InputError: not a batch of images.
        """
        check_images(images)
        values = torch.full((len(images),), torch.nan, dtype=torch.float32)
        errors: list[str | None] = []
        for start in range(0, len(images), self.batch_size):
            pictures, broken = load_images(images[start : start + self.batch_size], on_error="nan")
            errors += broken
            good = [start + row for row, picture in enumerate(pictures) if picture is not None]
            if good:
                values[good] = self._score([picture for picture in pictures if picture is not None])
        return Scores(values, errors=errors)

    def _score(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        place = next(self.model.parameters()).device
        with own_precision(place):
            pixels = torch.stack([self.preprocess(picture) for picture in pictures])
            scores: torch.Tensor = self.model(pixels.to(place))
            return scores[:, 0].float().cpu()


@cache
def _tell_licence() -> None:
    warnings.warn("ResMem is licensed for non-commercial use only (The University of Chicago)", stacklevel=4)
