"""Guidance from a name and a number of candidates, as the command line has it."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..._defaults import AUTO, DEFAULT_N, FEW_STEPS, FEW_STEPS_N, FEW_STEPS_REWRITES, OTHERWISE_N
from ..._errors import InputError, unknown_name
from ..registry import find_guidance, known_guidance
from ..rewriting.rewrite_prompt import RewritePrompt
from ..types import Guidance
from .best_of_n import BestOfN
from .drafts import Drafts
from .joint import JointSearch
from .noise import NoiseSearch


def make_search(name: str, n: int, keep: int, batch_size: int | None) -> Guidance:
    """Return a search by name, from candidates per prompt, how many to keep, and images at once.

    A search of another package gets those of the three that it has fields for.

    Raises:
        UnknownNameError: no guidance has that name.

    >>> make_search("noise", 16, 1, None)
    NoiseSearch(start=4, neighbours=4, rounds=3, ...)
    """
    if name == NoiseSearch.name:
        start = max(1, n // 4)
        return NoiseSearch(start, start, rounds=max(0, n // start - 1), keep=keep, batch_size=batch_size)
    kind = find_guidance(name)
    given = {"n": n, "keep": keep, "batch_size": batch_size}
    fields = {field.name for field in dataclasses.fields(kind)}
    search: Guidance = kind(**{field: value for field, value in given.items() if field in fields})
    return search


def searches() -> list[str]:
    """Return the names that `named_guidance` takes, those of installed plug-ins last.

    >>> searches()[:3]
    ['auto', 'best_of_n', 'joint']
    """
    return [AUTO, *(name for name in known_guidance() if name != RewritePrompt.name)]


def named_guidance(
    search: str = AUTO,
    n: int | None = None,
    keep: int = 1,
    rewrite: int | None = None,
    proposer: str = "phrases",
    scored: bool = True,
    batch_size: int | None = None,
    draft_steps: int | None = None,
    full: int | None = None,
    few_steps: bool = False,
) -> list[Guidance]:
    """Return the guidance of a few plain settings.

    Args:
        search: a name of `searches()`; "auto": `JointSearch`, which in `benchmarks/search.py` gave most for its
            time; best-of-N where nothing is scored.
        n: candidates per prompt; None: 12 for "auto" and "joint", 16 for the others, 1 where nothing is scored.
        keep: how many of the best to return per prompt.
        rewrite: other wordings of the prompt to try; None: half of the drafts of a joint search, none before others.
        proposer: of wordings (see `RewritePrompt`).
        scored: whether there is a target.
        batch_size: images at once.
        draft_steps: denoising steps of the drafts of "joint" and "drafts"; None: 4.
        full: how many of those drafts to make in full, 0: they are what is returned; None: `keep` and one more.
        few_steps: the model is known to draw as well in five steps, as the embedded one: "auto" is then
            a joint search of 19 images of five steps, none of which is made again.

    Raises:
        UnknownNameError: no such search.
        InputError: settings that contradict each other.

    >>> named_guidance("halving", 8)
    [Halving(n=8, at=(0.2, 0.4), keep=1, ratio=2.0, batch_size=None)]
    >>> [step.name for step in named_guidance("drafts", rewrite=4)], [step.name for step in named_guidance()]
    (['rewrite', 'drafts'], ['joint'])
    >>> joint, = named_guidance(few_steps=True)
    >>> joint.n, joint.steps, joint.full
    (19, 5, 0)
    >>> named_guidance(scored=False)
    []
    """
    if search not in searches():
        raise unknown_name("search", search, searches())
    name = JointSearch.name if search == AUTO and n != 1 else BestOfN.name if search == AUTO else search
    asked = draft_steps is not None or full is not None
    if asked and name not in (JointSearch.name, Drafts.name):
        raise InputError(f"draft_steps={draft_steps}, full={full}: search {name!r} has no drafts")
    if not scored:
        if rewrite or asked or search not in (AUTO, BestOfN.name):
            raise InputError(f"search {search!r}, rewrite={rewrite}: nothing to search by; give a target")
        count = keep if n is None else n
        return [BestOfN(count, batch_size, keep)] if count > 1 or batch_size else []
    few = few_steps and search == AUTO and not asked
    if few:
        draft_steps, full = FEW_STEPS, 0
    drafts: dict[str, Any] = {"full": full, "keep": keep, "batch_size": batch_size}
    if draft_steps is not None:
        drafts["steps"] = draft_steps
    usual = FEW_STEPS_N if few else DEFAULT_N.get(name, OTHERWISE_N)
    count = max(keep, usual) if n is None else n
    if name == JointSearch.name:
        if few and rewrite is None and n is None:
            rewrite = FEW_STEPS_REWRITES
        return [JointSearch(count, rewrites=rewrite, proposer=proposer, **drafts)]
    if count == 1 and not rewrite and search == AUTO and batch_size is None:
        return []
    steps: list[Guidance] = [
        Drafts(count, **drafts) if name == Drafts.name else make_search(name, count, keep, batch_size)
    ]
    if rewrite:
        steps.insert(0, RewritePrompt(rewrite, proposer=proposer, batch_size=batch_size))
    return steps
