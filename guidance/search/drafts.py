"""Drafts: many candidates at few steps, the best of them again at full steps from the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..._defaults import DRAFT_STEPS
from ..._errors import InputError
from ..run import Run
from .common import check_scored, check_whole, finish, first_images, spread_evenly
from .pool import Pool


@dataclass(frozen=True)
class Drafts:
    """Make `n` drafts of `steps` steps, then the `full` best again as the call asks, from the same noise.

    A few steps settle what an image shows; most of the rest is finish. Drafts are kept and recorded as candidates
    that cannot win.

    Args:
        n: drafts per prompt.
        keep: how many of the best to return per prompt, best first.
        steps: denoising steps of a draft.
        full: how many drafts to make in full; None: `keep` and one more, for what a draft got wrong. 0: none, the
            drafts are what is returned, so `steps` must be enough for a picture.
        arguments: other arguments of the pipeline's call for drafts alone, e.g. {"true_cfg_scale": 1.0}.
        batch_size: images at once; None: 8, and half as many each time memory runs out.

    >>> Drafts(16).steps
    4
    """

    n: int
    keep: int = 1
    steps: int = DRAFT_STEPS
    full: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    name: ClassVar[str] = "drafts"

    def __post_init__(self) -> None:
        check_whole("Drafts", n=self.n, keep=self.keep, steps=self.steps, batch_size=self.batch_size)
        check_whole("Drafts", 0, full=self.full)
        if not self.keep <= (self.full or self.n) <= self.n:
            raise InputError(
                f"Drafts: expected keep <= full <= n, got keep={self.keep}, full={self.full}, n={self.n}"
            )

    @property
    def finalists(self) -> int:
        """How many drafts are made in full."""
        return min(self.n, self.keep + 1 if self.full is None else self.full)

    def __call__(self, run: Run) -> None:
        """Draft, choose, finish."""
        check_scored("Drafts", run)
        run.keep = self.keep
        made = first_images(run, self.name, self.batch_size)
        jobs = run.jobs(self.n - made, self.name, first=made)
        if not jobs:
            return
        overrides = {**self.arguments, "num_inference_steps": self.steps}
        drafts: list[Pool] = []
        size = (self.batch_size or 8) * len(run.requests) if run.limited else len(jobs)
        reserve = {"steps": float(self.finalists), "looks": float(self.finalists)}
        while jobs:  # one batch at a time under a budget, and a part of it is put by for the finish
            each = -(-min(size, len(jobs)) // len(run.requests))
            if run.limited and run.affordable(each, reserve, drafts=run.rates.drafts(self.steps), looks=1.0) < each:
                run.note(f"budget: {len(jobs)} of the drafts were not made")
                break
            pool = Pool(run, jobs[:size], overrides=overrides, batch_size=self.batch_size, draft=True)
            jobs = jobs[size:]
            pool.draw()
            drafts.append(pool)
        seen = [(job, c) for pool in drafts for job, c in zip(pool.jobs, pool.candidates, strict=True)]
        found = [(job, c) for job, c in seen if c is not None and c.valid]
        if self.finalists == 0:
            for _, candidate in found:
                candidate.finished = True
            return
        found.sort(key=lambda pair: pair[1].rank)
        best = spread_evenly([job for job, _ in found], self.finalists)
        if best:
            finish(run, Pool(run, best, batch_size=self.batch_size))
