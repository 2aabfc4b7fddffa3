"""From pictures to what a vision network is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode

from .judge import Pictures

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Normalisation of OpenAI's CLIP, which BLIP and HPS took over."""


def as_tensor(picture: object) -> torch.Tensor:
    """Return a picture as a float tensor (3, H, W) in [0, 1]; a tensor is itself.

    >>> from PIL import Image
    >>> as_tensor(Image.new("RGB", (5, 4), "white")).shape
    torch.Size([3, 4, 5])
    """
    tensor: torch.Tensor = picture if isinstance(picture, torch.Tensor) else F.to_tensor(picture)
    return tensor


def short_side_crop(picture: object, side: int) -> torch.Tensor:
    """OpenAI CLIP's way: the shorter side is scaled to `side` (bicubic), the middle cropped; (3, side, side).

    >>> short_side_crop(torch.rand(3, 8, 16), 4).shape
    torch.Size([3, 4, 4])
    """
    scaled = F.resize(picture, [side], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return as_tensor(F.center_crop(scaled, [side, side]))


def long_side_pad(picture: object, side: int) -> torch.Tensor:
    """HPS v2's way: the longer side is scaled to `side` (bicubic), the rest filled with black; (3, side, side).

    >>> long_side_pad(torch.ones(3, 8, 16), 4)[0].round().tolist()
    [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    tensor = as_tensor(picture)
    height, width = tensor.shape[-2:]
    scale = side / max(height, width)
    if scale != 1:
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        tensor = F.resize(tensor, size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    down, right = side - tensor.shape[-2], side - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (right // 2, right - right // 2, down // 2, down - down // 2))


def clip_batch(pictures: Pictures, side: int, fit: Callable[[object, int], torch.Tensor]) -> torch.Tensor:
    """Fit pictures into a square and normalise them as CLIP does: (B, 3, side, side).

    >>> clip_batch([torch.rand(3, 8, 16), torch.rand(3, 9, 4)], 4, short_side_crop).shape
    torch.Size([2, 3, 4, 4])
    """
    return normalised(torch.stack([fit(picture, side) for picture in pictures]))


def normalised(
    pixels: torch.Tensor, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> torch.Tensor:
    """Bring pixels (B, 3, H, W) from [0, 1] to about zero mean and unit spread, a colour at a time.

    >>> normalised(torch.ones(1, 3, 1, 1), [0.5] * 3, [0.25] * 3).flatten()
    tensor([2., 2., 2.])
    """
    shape = (1, 3, 1, 1)
    return (pixels - torch.tensor(mean, device=pixels.device).view(shape)) / torch.tensor(
        std, device=pixels.device
    ).view(shape)
