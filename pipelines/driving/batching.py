"""Calls that fail, or draw otherwise, by what they are given: several prompts, another model's embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..._errors import BatchError, InputError
from ...guidance.memory import is_out_of_memory


@contextmanager
def failures_told(
    name: str,
    prompt: str | list[str] | None,
    generator: torch.Generator | list[torch.Generator],
    arguments: Mapping[str, Any],
) -> Iterator[None]:
    """Make sentences of what a pipeline's call, inside, cannot do with what it is given.

    Args:
        name: of the pipeline's class.
        prompt: of the call.
        generator: of the call.
        arguments: the others.

    Raises:
        InputError: embeddings of another width than the pipeline's models take.
        BatchError: it fails on several prompts, or seeds torch from one of them; it may work on one.
    """
    state, seed = torch.get_rng_state(), torch.initial_seed()
    try:
        yield
    except RuntimeError as error:
        explain_width(error, arguments)
        if not isinstance(prompt, list) or len(prompt) < 2 or is_out_of_memory(error):
            raise
        raise BatchError(
            f"{name}: its call fails on {len(prompt)} prompts at once ({error}); one image is made at a time "
            "(batch_size=1)"
        ) from error
    if isinstance(generator, list) and len(generator) > 1 and seeds_torch(generator, state, seed):
        raise BatchError(
            f"{name}: its call seeds torch from one of several generators, so that an image depends on its batch; "
            "one is made at a time (batch_size=1)"
        )


def seeds_torch(generators: Sequence[torch.Generator], state: torch.Tensor, seed: int) -> bool:
    """Whether torch's own generator was seeded since it had a state and a seed, by that of one of `generators`."""
    now = torch.initial_seed()
    moved = not torch.equal(torch.get_rng_state(), state)
    return now != seed or (moved and now in [generator.initial_seed() for generator in generators])


WIDTHS = (
    r"cannot be multiplied \(\d+x(?P<got>\d+) and (?P<wanted>\d+)x",
    r"with shape \[\*, (?P<wanted>\d+)\], but got input of size\s*\[.*?(?P<got>\d+)\]",
    r"Expected size (?P<wanted>\d+) but got size (?P<got>\d+)",
    r"tensor a \((?P<wanted>\d+)\) must match the size of tensor b \((?P<got>\d+)\)",
)


def explain_width(error: RuntimeError, arguments: Mapping[str, Any]) -> None:
    """Check that torch did not fail on a caller's own embeddings, of another width than the pipeline's models take.

    Raises:
        InputError: it did; the sentence names the argument.

    >>> error = RuntimeError("mat1 and mat2 shapes cannot be multiplied (48x20 and 16x16)")
    >>> explain_width(error, {"prompt_embeds": torch.zeros(1, 24, 20)})
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: prompt_embeds: expected 16 features a token, as this pipeline's own text encoder ...
    """
    found = next((match for pattern in WIDTHS if (match := re.search(pattern, str(error)))), None)
    if found is None:
        return
    wanted, got = int(found["wanted"]), int(found["got"])
    for name, value in arguments.items():
        if "embeds" in name and isinstance(value, torch.Tensor) and value.ndim and value.shape[-1] == got != wanted:
            what = "features" if "pooled" in name else "features a token"
            raise InputError(
                f"{name}: expected {wanted} {what}, as this pipeline's own text encoder gives, got {got} (shape "
                f"{tuple(value.shape)}): they were made by another model's"
            ) from error
