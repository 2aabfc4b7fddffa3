"""Reward-weighted regression: the plain denoising loss, each image weighted by how good it is.

Peters and Schaal 2007; for diffusion models Lee et al. 2023, arXiv 2302.12192.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .advantages import exponential_weights, top_weights
from .losses import weighted_loss
from .parts import Part, in_parts

if TYPE_CHECKING:
    from ..config import FinetuneConfig


class RewardWeighted:
    """Learns from good images alone."""

    name = "rwr"
    needs_old = False
    needs_reference = False

    def parts(self, gained: Tensor, config: FinetuneConfig) -> list[Part]:
        """Return the images with a weight: all by exp(advantage / temperature), or the best share alike."""
        weighed = config.top is None
        values = exponential_weights(gained, config.temperature) if weighed else top_weights(gained, config.top or 1)
        return in_parts(values, values > 0, config.per_denoiser_call)

    def loss(
        self, config: FinetuneConfig, value: Tensor, output: Tensor, target: Tensor,
        old: Tensor | None, reference: Tensor | None,
    ) -> Tensor:
        """Return the sum of the weighted denoising errors."""
        return weighted_loss(output, target, value).sum()
