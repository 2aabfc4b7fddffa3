"""The generator as fine-tuning sees it: no model family, no text encoder, no loss of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image


class Learner(Protocol):
    """A generator with an adapter in training; `cogguided.pipelines.driving.learner` makes one of any pipeline."""

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """What is trained, by name, in float32."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes."""
        ...

    @property
    def nfe(self) -> int:
        """Denoiser evaluations so far."""
        ...

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int | None = None
    ) -> tuple[list[Image.Image], torch.Tensor]:
        """Make one image per prompt and seed, and return the latents (B, ...) that they were decoded from."""
        ...

    def levels(self, prompt: str, steps: int | None = None) -> Sequence[Any]:
        """Return the noise levels that the sampler visits."""
        ...

    def predict(
        self, prompts: Sequence[str], clean: torch.Tensor, noise: torch.Tensor, step: int, steps: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the denoiser's output for noised latents (B, ...), and what it should be."""
        ...

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], trained: Collection[int], steps: int | None = None,
        compare: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Make images (B, 3, H, W) in [0, 1] with a graph through the denoiser at the steps `trained`.

        With `compare` the mean squared distance of its outputs to the untrained denoiser's comes with them.
        """
        ...

    def reference(self) -> AbstractContextManager[None]:
        """The untrained generator, inside."""
        ...

    def save(self, folder: Path) -> None:
        """Write the adapter for plain diffusers."""
        ...
