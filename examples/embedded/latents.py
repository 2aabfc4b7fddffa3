"""The latent space: principal components of 8 x 8 patches, which the generator learns before any VAE exists.

A linear transform needs no training, so the transformer can start at once; the VAE's decoder then learns
the way back from the same latents (sharper than the linear one), and its encoder learns to give them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

PIXELS, CHANNELS = 8, 48


def fit(pixels: Tensor, flatten: float = 0.5) -> dict[str, Tensor]:
    """Components of uint8 pictures (N, S, S, 3): {"mean" (192,), "into" (192, 48), "back" (48, 192)}.

    Each component is divided by its standard deviation to the power `flatten`: 1 would give every component
    the same weight in the generator's loss, 0 the weight that it has in the picture. All are then scaled to
    unit mean variance.
    """
    rows = _patches(pixels).flatten(0, 2)
    mean = rows.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((rows - mean).T))
    values, vectors = values.flip(0)[:CHANNELS], vectors.flip(1)[:, :CHANNELS]
    scale = values.sqrt() ** flatten
    spread = (values / scale**2).mean().sqrt()
    return {"mean": mean, "into": vectors / (scale * spread), "back": (vectors * (scale * spread)).T}


def encode(basis: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """uint8 pictures (N, S, S, 3) to latents (N, 48, S/8, S/8)."""
    return ((_patches(pixels) - basis["mean"]) @ basis["into"]).permute(0, 3, 1, 2).contiguous()


def decode(basis: dict[str, Tensor], latents: Tensor) -> Tensor:
    """Latents to pictures (N, 3, S, S) in [-1, 1], by the linear way back: a first look, before the VAE is
    trained.
    """
    n, _, height, width = latents.shape
    rows = latents.permute(0, 2, 3, 1) @ basis["back"] + basis["mean"]
    rows = rows.view(n, height, width, PIXELS, PIXELS, 3).permute(0, 5, 1, 3, 2, 4)
    return rows.reshape(n, 3, height * PIXELS, width * PIXELS)


def _patches(pixels: Tensor) -> Tensor:
    n, height, width, _ = pixels.shape
    rows = (pixels.float() / 127.5 - 1).view(n, height // PIXELS, PIXELS, width // PIXELS, PIXELS, 3)
    return rows.permute(0, 1, 3, 2, 4, 5).reshape(n, height // PIXELS, width // PIXELS, -1)


def load(path: Path, pixels: Tensor) -> dict[str, Tensor]:
    """The basis in `path`, fitted and written there the first time: every script must use the same one."""
    if not path.exists():
        torch.save(fit(pixels), path)
    return torch.load(path, weights_only=True)
