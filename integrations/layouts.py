"""Images as other tools hold them, brought to the ways in which scorers take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._errors import InputError
from ..scorers import ImageInput


def as_images(images: Any) -> ImageInput:
    """Return images as scorers take them: a list of PIL images or paths, or a float tensor (B, 3, H, W) in [0, 1].

    Args:
        images: such a list; a tensor or array (B, 3, H, W) or (B, H, W, 3), floats in [0, 1] or uint8 in [0, 255];
            or a list of tensors or arrays of one size without B. Gradients are kept.

    Raises:
        InputError: another shape or type, or both axes could be the colours.

    >>> as_images(np.full((2, 4, 5, 3), 255, np.uint8)).shape
    torch.Size([2, 3, 4, 5])
    """
    if not isinstance(images, torch.Tensor | np.ndarray):
        listed = list(images)
        if not listed or not all(isinstance(image, torch.Tensor | np.ndarray) for image in listed):
            return listed
        if len({tuple(image.shape) for image in listed}) > 1:
            raise InputError("images: tensors of several sizes are not one batch; give them as PIL images")
        images = torch.stack([torch.as_tensor(image) for image in listed])
    pixels = torch.as_tensor(images)
    if pixels.ndim != 4 or 3 not in (pixels.shape[1], pixels.shape[3]):
        raise InputError(f"images: expected (B, 3, H, W) or (B, H, W, 3), got {tuple(pixels.shape)}")
    if pixels.shape[1] == pixels.shape[3]:
        raise InputError(f"images: {tuple(pixels.shape)} has two axes of 3, so it does not say which the colours are")
    if pixels.shape[3] == 3:
        pixels = pixels.permute(0, 3, 1, 2)
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    if not pixels.is_floating_point():
        raise InputError(f"images: expected floats in [0, 1] or uint8, got {pixels.dtype}")
    return pixels
