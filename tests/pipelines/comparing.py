"""What tests of pipelines compare: pixels as integers."""

from typing import Any

import numpy as np
import torch


def generator(seed: int) -> torch.Generator:
    """Return one that has not been used."""
    return torch.Generator().manual_seed(seed)


def pixels(image: Any) -> np.ndarray:
    """Return an image's values in 0..255, that differences may be negative."""
    return np.asarray(image).astype(int)


def same(a: Any, b: Any) -> bool:
    """Return whether two images are equal to the pixel."""
    return np.array_equal(pixels(a), pixels(b))
