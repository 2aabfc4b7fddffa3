"""DiffusionNFT: good images pull the prediction, bad ones push it. Zheng et al. 2025, arXiv 2509.16117."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .advantages import optimality
from .losses import nft_loss
from .parts import Part, in_parts

if TYPE_CHECKING:
    from ..config import FinetuneConfig


class NegativeAware:
    """Learns from good and bad images."""

    name = "nft"
    needs_old = True
    needs_reference = False

    def parts(self, gained: Tensor, config: FinetuneConfig) -> list[Part]:
        """Return the images that are not just average, with how good each is, 0 to 1."""
        values = optimality(gained)
        return in_parts(values, values.isfinite() & (gained != 0), config.per_denoiser_call)

    def loss(
        self, config: FinetuneConfig, value: Tensor, output: Tensor, target: Tensor,
        old: Tensor | None, reference: Tensor | None,
    ) -> Tensor:
        """Return the sum of the losses of the implicit positive and negative predictions."""
        assert old is not None
        return nft_loss(output, old.to(output.device), target, value, config.mixture).sum()
