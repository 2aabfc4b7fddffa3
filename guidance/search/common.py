"""What the searches share: checking arguments, and making sure of one image before anything is risked."""

from __future__ import annotations

import math
from typing import Any

from ..._errors import InputError
from ..run import Run
from ..types import Job
from .pool import Pool


def check_whole(name: str, low: int = 1, **values: Any) -> None:
    """Check that arguments are whole numbers from `low`; None passes.

    Raises:
        InputError: one is not.

    >>> check_whole("Drafts", n=0)
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: Drafts: n must be a whole number from 1, got 0
    """
    for argument, value in values.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            raise InputError(f"{name}: {argument} must be a whole number from {low}, got {value!r}")


def check_part(name: str, low: float = 0.0, high: float = 1.0, **values: Any) -> None:
    """Check that arguments are numbers between `low` and `high`, which are allowed.

    Raises:
        InputError: one is not.

    >>> check_part("FKSteering", eta=2)
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: FKSteering: eta must be a number from 0 to 1, got 2
    """
    for argument, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low <= value <= high:
            raise InputError(f"{name}: {argument} must be a number from {low:g} to {high:g}, got {value!r}")


def check_scored(name: str, run: Run) -> None:
    """Check that there is a target to search by.

    Raises:
        InputError: there is none.
    """
    if run.target is None:
        raise InputError(f"{name}: nothing to search by: pass target=, e.g. target='emotional_valence'")


def first_images(run: Run, guidance: str, batch_size: int | None) -> int:
    """Under a budget, finish the first image of every request before any search; returns how many of each there are.

    So there is always something to return, and it is known from then on what steps and looks cost. Where an earlier
    guidance has seen to that, none is made.
    """
    served = {c.request for c in run.candidates if c.finished and c.held_back is None}
    if not run.limited or (run.rates.whole and served.issuperset(r.index for r in run.requests)):
        return 0
    pool = Pool(run, run.jobs(1, guidance), batch_size=batch_size)
    pool.advance(1.0)
    pool.look()
    run.rates.whole = pool.rows.steps
    return 1


def finish(run: Run, pool: Pool) -> None:
    """Take the rows of a pool to the end and score them, as many as the budget allows, best first."""
    rest = 1.0 - pool.progress
    each = max(1, -(-len(pool) // len(run.requests)))
    count = run.affordable(each, steps=rest, looks=1)
    if count < each:
        run.note(f"budget spent: {(each - count) * len(run.requests)} candidates stay drafts")
    if count == 0:
        return
    pool = pool.best(count)
    if rest > 0:
        pool.advance(1.0)
    pool.look()


def spread_evenly(jobs: list[Job], rows: int) -> list[Job]:
    """Return the first `rows` jobs of each request, in the order they came.

    >>> from ..types import Request
    >>> one, two = Request(0, "a cat", 0), Request(1, "a dog", 0)
    >>> jobs = [Job(request, request.prompt, seed) for seed in range(3) for request in (one, two)]
    >>> [(job.prompt, job.seed) for job in spread_evenly(jobs, 1)]
    [('a cat', 0), ('a dog', 0)]
    """
    taken: dict[int, int] = {}
    kept = []
    for job in jobs:
        index = job.request.index
        if taken.setdefault(index, 0) < rows:
            taken[index] += 1
            kept.append(job)
    return kept
