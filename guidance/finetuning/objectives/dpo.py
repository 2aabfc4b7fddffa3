"""Diffusion-DPO: of two images of a prompt, rather the better one. Wallace et al. 2023, arXiv 2311.12908."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .advantages import best_and_worst
from .losses import denoising_error, dpo_loss
from .parts import Part

if TYPE_CHECKING:
    from ..config import FinetuneConfig


class Preferences:
    """Learns from pairs."""

    name = "dpo"
    needs_old = False
    needs_reference = True

    def parts(self, gained: Tensor, config: FinetuneConfig) -> list[Part]:
        """Return pairs of the best and the worst images of each prompt, better and worse in turn."""
        by_group: dict[int, list[int]] = {}
        for group, better, worse in best_and_worst(gained, config.pairs):
            by_group.setdefault(group, []).extend((better, worse))
        size = max(2, config.per_denoiser_call - config.per_denoiser_call % 2)
        return [
            Part(group, tuple(rows[i : i + size]), (1.0,) * len(rows[i : i + size]))
            for group, rows in by_group.items()
            for i in range(0, len(rows), size)
        ]

    def loss(
        self, config: FinetuneConfig, value: Tensor, output: Tensor, target: Tensor,
        old: Tensor | None, reference: Tensor | None,
    ) -> Tensor:
        """Return the sum of the pairs' losses, each counted for both of its images."""
        assert reference is not None
        error = denoising_error(output, target)
        anchor = denoising_error(reference.to(output.device), target)
        return 2 * dpo_loss(error[::2], error[1::2], anchor[::2], anchor[1::2], config.mixture).sum()
