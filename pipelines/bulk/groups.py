"""Cutting many prompts into groups, each prompt with the seed it would have in one call of all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..._errors import InputError
from ..calls import BLOCK, read_seeds


@dataclass(frozen=True)
class Group:
    """Prompts that are made in one call.

    Attributes:
        number: from 0.
        first: number of its first prompt.
        prompts: at most as many as the size of groups.
        seeds: of the first candidate of each.
    """

    number: int
    first: int
    prompts: list[str]
    seeds: list[int]


def grouped(
    prompts: Iterable[str], size: int, seed: int | Sequence[int] | None, drawn: int, guided: bool
) -> Iterator[Group]:
    """Cut prompts into groups of a size.

    Args:
        prompts: read as they are needed.
        size: prompts a group.
        seed: as in a call of all the prompts: one for all, one for each, or None.
        drawn: where seeds come from if `seed` is None.
        guided: whether equal prompts are `BLOCK` seeds apart, or one.

    >>> [(g.first, g.prompts, g.seeds) for g in grouped(["a", "b", "a"], 2, 7, 0, guided=False)]
    [(0, ['a', 'b'], [7, 7]), (2, ['a'], [8])]
    """
    before: Counter[bytes] = Counter()
    waiting = iter(prompts)
    first = number = 0
    while texts := list(islice(waiting, size)):
        seeds = []
        for place, text in enumerate(texts, first):
            if not isinstance(text, str):
                raise InputError(f"prompts: expected texts, number {place} is {type(text).__name__}")
            if seed is None:
                seeds.append(drawn_seed(drawn, place))
            elif isinstance(seed, int):
                key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
                seeds.append((seed + (BLOCK if guided else 1) * before[key]) % 2**63)
                before[key] += 1
            elif place >= len(seed):
                raise InputError(f"seed: expected one for all prompts or one for each, got {len(seed)}")
            else:
                seeds.append(seed[place])
        yield Group(number, first, texts, seeds)
        number, first = number + 1, first + len(texts)


def drawn_seed(drawn: int, place: int) -> int:
    """Return the seed of a prompt by its number, where none was given: the same whenever it is asked for.

    >>> drawn_seed(7, 0) == drawn_seed(7, 0), drawn_seed(7, 0) == drawn_seed(7, 1)
    (True, False)
    """
    digest = hashlib.blake2b(f"{drawn}/{place}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31


def told_prompts(prompts: Iterable[str]) -> dict[str, Any] | None:
    """Return what stands for a list of prompts in a run's settings; None for one whose end is not known.

    >>> told_prompts(["a cat"])["count"], told_prompts(iter(["a cat"]))
    (1, None)
    """
    if not isinstance(prompts, Sequence):
        return None
    digest = hashlib.sha256()
    for text in prompts:
        digest.update(f"{text!r}\n".encode("utf-8", "backslashreplace"))
    return {"count": len(prompts), "sha256": digest.hexdigest()}


def told_seed(seed: int | Sequence[int] | None) -> Any:
    """Check seeds, and return what stands for them in a run's settings.

    >>> told_seed(7)
    7
    """
    if seed is None or isinstance(seed, int):
        return None if seed is None else read_seeds(seed, 1)[0]
    seeds = read_seeds(list(seed), len(seed))
    return {"count": len(seeds), "sha256": hashlib.sha256(repr(seeds).encode()).hexdigest()}
