"""What a judge computes in does not depend on settings that torch keeps for whoever calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_precision(device: torch.device, autocast: torch.dtype | None = None) -> Iterator[None]:
    """Switch the caller's autocast off, or to a judge's own, and let new tensors be float32, while inside.

    Under a caller's `torch.autocast(..., torch.bfloat16)` or `torch.set_default_dtype(torch.bfloat16)` a float32
    judge's scores would move by up to 2e-3 of their range.

    Args:
        device: where the judge's weights are.
        autocast: what to compute in where weights are of several types, as in training.

    >>> a = torch.eye(2)
    >>> with torch.autocast("cpu", torch.bfloat16), own_precision(a.device):
    ...     (a @ a).dtype
    torch.float32
    """
    default = torch.get_default_dtype()
    if default != torch.float32:
        torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            yield
    finally:
        if default != torch.float32:
            torch.set_default_dtype(default)
