"""Memory that runs out, on any device."""

from __future__ import annotations

import gc
import re

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory")), is_out_of_memory(RuntimeError("shape"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(
        re.search(r"out of memory|can't allocate memory|not enough memory", str(error))
    )


def free_memory() -> None:
    """Give memory that is no longer used back to the device, where it has such a cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
