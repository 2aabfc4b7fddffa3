"""Guidance by name: the ones that come with the package, and those that installed packages bring."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .._errors import InputError, RecordError, unknown_name
from .rewriting.rewrite_prompt import RewritePrompt
from .search import Drafts, FKSteering, Halving, NoiseSearch, RewardGradient, Variations
from .search.best_of_n import BestOfN
from .search.joint import JointSearch
from .search.tournament import Tournament
from .types import Guidance

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
        Variations,
        Tournament,
    )
}
"""Every guidance that the command line and a saved folder can name, each a dataclass of plain values; a new one is
one line here. Other packages add theirs by an entry point in `ENTRY_POINT_GROUP`."""

ENTRY_POINT_GROUP = "cogguided.guidance"


def known_guidance() -> dict[str, Any]:
    """Return every guidance by name: classes, and entry points of other packages that are not loaded yet.

    Raises:
        InputError: two packages bring one name, or one brings a name of ours.

    >>> sorted(known_guidance())[:3]
    ['best_of_n', 'drafts', 'fk']
    """
    found: dict[str, Any] = dict(GUIDANCE)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found and getattr(found[point.name], "value", None) != point.value:  # else seen twice
            package = point.dist.name if point.dist is not None else "unknown package"
            raise InputError(
                f"the plug-in {point.value!r} ({package}) brings a guidance {point.name!r}, but that name is taken"
            )
        found[point.name] = point
    return found


def find_guidance(name: Any) -> type[Any]:
    """Return the class of a guidance.

    Raises:
        UnknownNameError: no guidance has that name.
        InputError: a plug-in is no guidance of that name.

    >>> find_guidance("best_of_n")
    <class '...BestOfN'>
    """
    known = known_guidance()
    if name not in known:
        raise unknown_name("guidance", name, known)
    kind: type[Any] = known[name]
    if isinstance(known[name], EntryPoint):
        kind = known[name].load()
        if not (dataclasses.is_dataclass(kind) and isinstance(kind, type)) or getattr(kind, "name", None) != name:
            raise InputError(
                f"the plug-in {known[name].value!r} is no guidance {name!r}: expected a dataclass with "
                f"name = {name!r} that is called with a Run (see examples/own_search.py)"
            )
    return kind


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
    if type(step) is not GUIDANCE.get(step.name):  # our own: known without a look at all installed packages
        known = known_guidance()
        if step.name not in known or type(step) is not find_guidance(step.name):
            raise InputError(
                f"guidance {step.name!r} is none of {sorted(known)} and cannot be saved by name: "
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
    kind = find_guidance(name)
    try:
        step: Guidance = kind(**arguments)
    except TypeError as error:
        raise RecordError(f"guidance {name!r}: {error}") from error
    return step
