"""Where a pipeline runs."""

from __future__ import annotations

import torch

from .._errors import InputError


def best_device(name: str | None = None) -> torch.device:
    """Return a device by name, or the first there is of cuda, mps and cpu.

    Raises:
        InputError: no such device here.

    >>> best_device("cpu")
    device(type='cpu')
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device
