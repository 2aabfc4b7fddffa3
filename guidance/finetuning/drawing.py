"""Small parts of the loop: what is drawn when, and what to try where memory runs out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..._errors import TrainingError
from ..memory import free_memory, is_out_of_memory
from .config import FinetuneConfig


def seed_of(*parts: object) -> int:
    """Return a seed from 0 to 2^31 - 1 for what it is for, the same everywhere.

    >>> seed_of(0, "noise", 3) == seed_of(0, "noise", 3), seed_of(0, "noise", 3) == seed_of(0, "noise", 4)
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big") % 2**31


def generator(seed: int) -> torch.Generator:
    """Return a generator on the CPU.

    >>> torch.randn(1, generator=generator(0)) == torch.randn(1, generator=generator(0))
    tensor([True])
    """
    return torch.Generator().manual_seed(seed)


def round_prompts(prompts: Sequence[str], count: int, number: int, seed: int) -> list[str]:
    """Return the prompts of a round: shuffled passes over all of them, cut into rounds.

    >>> sorted(round_prompts(["a", "b", "c", "d"], 2, 0, seed=0) + round_prompts(["a", "b", "c", "d"], 2, 1, seed=0))
    ['a', 'b', 'c', 'd']
    """
    found = []
    for place in range(number * count, (number + 1) * count):
        turn, index = divmod(place, len(prompts))
        order = torch.randperm(len(prompts), generator=generator(seed_of(seed, "prompts", turn))).tolist()
        found.append(prompts[order[index]])
    return found


@contextmanager
def memory_watched(config: FinetuneConfig) -> Iterator[None]:
    """Say what to try where memory runs out.

    Raises:
        TrainingError: it did.

    >>> with memory_watched(FinetuneConfig(low_memory=True)):
    ...     raise MemoryError
    Traceback (most recent call last):
    ...
    cogguided._errors.TrainingError: out of memory; finished rounds are kept, --resume goes on. Try: batch_size=4; ...
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        free_memory()
        tries = {
            f"batch_size={config.batch_size // 2}": config.batch_size > 1,
            f"micro_batch={config.micro_batch // 2}": config.per_denoiser_call > 1,
            "low_memory=true": not config.low_memory,
            "smaller images (height=, width=)": True,
        }
        told = "; ".join(name for name, helps in tries.items() if helps)
        raise TrainingError(f"out of memory; finished rounds are kept, --resume goes on. Try: {told}") from error
