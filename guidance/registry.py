"""Guidance by name: how it is written into a saved folder and read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from .._errors import InputError, RecordError, unknown_name
from .base import Guidance
from .best_of_n import BestOfN
from .joint import JointSearch
from .rewriting import RewritePrompt
from .search import Drafts, FKSteering, Halving, NoiseSearch, RewardGradient

GUIDANCE: dict[str, type[Any]] = {
    kind.name: kind
    for kind in (
        BestOfN,
        JointSearch,
        RewritePrompt,
        Drafts,
        Halving,
        FKSteering,
        NoiseSearch,
        RewardGradient,
    )
}
"""The guidance classes that a saved folder can name; each is a dataclass of plain values."""


def as_guidance(spec: Guidance | Sequence[Guidance] | None) -> list[Guidance]:
    """Return guidance as a list, checked.

    Raises:
        InputError: something in it is no guidance, or two have one name.

    >>> as_guidance(BestOfN(4))
    [BestOfN(n=4, batch_size=None, keep=1)]
    >>> as_guidance(None)
    []
    """
    if spec is None:
        return []
    steps = list(spec) if isinstance(spec, Sequence) else [spec]
    for step in steps:
        if isinstance(step, type) or not isinstance(step, Guidance):
            raise InputError(f"guidance: expected an object such as BestOfN(8), got {step!r}")
    names = [step.name for step in steps]
    if len(set(names)) != len(names):
        raise InputError(f"guidance: a name occurs twice in {names}")
    return steps


def guidance_to_dict(step: Guidance) -> dict[str, Any]:
    """Describe a guidance by its name and arguments.

    Raises:
        InputError: it is not one that can be made again by name.

    >>> guidance_to_dict(BestOfN(8))
    {'name': 'best_of_n', 'n': 8, 'batch_size': None, 'keep': 1}
    """
    if type(step) is not GUIDANCE.get(step.name):
        raise InputError(
            f"guidance {step.name!r} is none of {sorted(GUIDANCE)} and cannot be saved by name: "
            "save without it, and pass it in the call"
        )
    fields = dataclasses.fields(step)  # type: ignore[arg-type]
    facts = {"name": step.name, **{field.name: getattr(step, field.name) for field in fields}}
    try:
        json.dumps(facts)
    except TypeError as error:
        raise InputError(
            f"guidance {step.name!r} holds an object that has no name to load it by ({error}): save without it, and "
            "pass it in the call"
        ) from error
    return facts


def guidance_from_dict(facts: dict[str, Any]) -> Guidance:
    """Make a guidance from its description.

    Raises:
        UnknownNameError: no guidance has that name.
        RecordError: its arguments do not fit.

    >>> guidance_from_dict({"name": "best_of_n", "n": 8})
    BestOfN(n=8, batch_size=None, keep=1)
    """
    arguments = dict(facts)
    name = arguments.pop("name", None)
    if name not in GUIDANCE:
        raise unknown_name("guidance", name, GUIDANCE)
    try:
        step: Guidance = GUIDANCE[name](**arguments)
    except TypeError as error:
        raise RecordError(f"guidance {name!r}: {error}") from error
    return step
