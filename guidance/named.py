"""Guidance from a name and a number of candidates, as the command line has it."""

from __future__ import annotations

from collections.abc import Callable

from .._errors import InputError, unknown_name
from .base import Guidance
from .best_of_n import BestOfN
from .joint import JointSearch
from .rewriting import RewritePrompt
from .search import Drafts, FKSteering, Halving, NoiseSearch, RewardGradient

AUTO = "auto"
DEFAULT_N = {JointSearch.name: 12}
OTHERWISE_N = 16


def _noise(n: int, keep: int, batch_size: int | None) -> NoiseSearch:
    start = max(1, n // 4)
    return NoiseSearch(start, start, rounds=max(0, n // start - 1), keep=keep, batch_size=batch_size)


def _halving(n: int, keep: int, batch_size: int | None) -> Halving:
    return Halving(n, keep=keep, batch_size=batch_size)


def _joint(n: int, keep: int, batch_size: int | None) -> JointSearch:
    return JointSearch(n, keep=keep, batch_size=batch_size)


SEARCHES: dict[str, Callable[[int, int, int | None], Guidance]] = {
    BestOfN.name: lambda n, keep, batch_size: BestOfN(n, batch_size, keep),
    JointSearch.name: _joint,
    Drafts.name: lambda n, keep, batch_size: Drafts(n, keep, batch_size=batch_size),
    Halving.name: _halving,
    FKSteering.name: lambda n, keep, batch_size: FKSteering(n, keep=keep, batch_size=batch_size),
    NoiseSearch.name: _noise,
    RewardGradient.name: lambda n, keep, batch_size: RewardGradient(n, keep=keep, batch_size=batch_size),
}
"""Searches by name, from candidates per prompt, how many to keep, and images at once."""


def named_guidance(
    search: str = AUTO,
    n: int | None = None,
    keep: int = 1,
    rewrite: int | None = None,
    proposer: str = "phrases",
    scored: bool = True,
    batch_size: int | None = None,
) -> list[Guidance]:
    """Return the guidance of a few plain settings.

    Args:
        search: a name of `SEARCHES`, or "auto": `JointSearch`, which in `benchmarks/search.py` gave most for its
            time; best-of-N where nothing is scored.
        n: candidates per prompt; None: 12 for "auto" and "joint", 16 for the others, 1 where nothing is scored.
        keep: how many of the best to return per prompt.
        rewrite: other wordings of the prompt to try; None: half of the drafts of a joint search, none before others.
        proposer: of wordings (see `RewritePrompt`).
        scored: whether there is a target.
        batch_size: images at once.

    Raises:
        UnknownNameError: no such search.
        InputError: settings that contradict each other.

    >>> named_guidance("halving", 8)
    [Halving(n=8, at=(0.2, 0.4), keep=1, ratio=2.0, batch_size=None)]
    >>> [step.name for step in named_guidance("drafts", rewrite=4)], [step.name for step in named_guidance()]
    (['rewrite', 'drafts'], ['joint'])
    >>> named_guidance(scored=False)
    []
    """
    if search != AUTO and search not in SEARCHES:
        raise unknown_name("search", search, [AUTO, *SEARCHES])
    if not scored:
        if rewrite or search not in (AUTO, BestOfN.name):
            raise InputError(f"search {search!r}, rewrite={rewrite}: nothing to search by; give a target")
        count = keep if n is None else n
        return [BestOfN(count, batch_size, keep)] if count > 1 or batch_size else []
    name = JointSearch.name if search == AUTO and n != 1 else BestOfN.name if search == AUTO else search
    count = max(keep, DEFAULT_N.get(name, OTHERWISE_N)) if n is None else n
    if name == JointSearch.name:
        return [JointSearch(count, rewrites=rewrite, keep=keep, proposer=proposer, batch_size=batch_size)]
    if count == 1 and not rewrite and search == AUTO and batch_size is None:
        return []
    steps: list[Guidance] = [SEARCHES[name](count, keep, batch_size)]
    if rewrite:
        steps.insert(0, RewritePrompt(rewrite, proposer=proposer, batch_size=batch_size))
    return steps
