"""Successive halving along the trajectory: all start together, the worse stop early."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from ..._errors import InputError
from ..run import Run
from .common import check_part, check_scored, check_whole, finish, first_images
from .pool import Pool


@dataclass(frozen=True)
class Halving:
    """Start `n` images; at each part `at` of the trajectory go on with the better half alone.

    They are judged on the predicted clean image. Successive halving as of Karnin et al. 2013 ("Almost Optimal
    Exploration in Multi-Armed Bandits"), with steps for pulls. A survivor's image is the one that its seed gives
    without pruning.

    Args:
        n: images started per prompt.
        at: parts of the trajectory at which to prune, rising, between 0 and 1.
        keep: how many of the best to return per prompt, best first; never fewer go on.
        ratio: 2: half of them go on; 4: a quarter.
        batch_size: images at once; None: 8, and half as many each time memory runs out.

    >>> Halving(16).survivors()
    [8, 4]
    """

    n: int
    at: tuple[float, ...] = (0.2, 0.4)
    keep: int = 1
    ratio: float = 2.0
    batch_size: int | None = None
    name: ClassVar[str] = "halving"

    def __post_init__(self) -> None:
        check_whole("Halving", n=self.n, keep=self.keep, batch_size=self.batch_size)
        check_part("Halving", 1.0, 1e6, ratio=self.ratio)
        object.__setattr__(self, "at", tuple(self.at))
        for part in self.at:
            check_part("Halving", **{"each part in at": part})
        if list(self.at) != sorted(set(self.at)) or any(part in (0, 1) for part in self.at):
            raise InputError(f"Halving: at must rise from above 0 to below 1, got {self.at}")
        if self.keep > self.n:
            raise InputError(f"Halving: keep={self.keep} of n={self.n}: nothing to choose; keep at most n")

    def survivors(self) -> list[int]:
        """How many of each prompt go on after each pruning."""
        counts, count = [], self.n
        for _ in self.at:
            count = max(self.keep, int(count / self.ratio))
            counts.append(count)
        return counts

    def __call__(self, run: Run) -> None:
        """Start, look, prune, finish."""
        check_scored("Halving", run)
        run.keep = self.keep
        made = first_images(run, self.name, self.batch_size)
        count = self._fitting(run, self.n - made)
        if count == 0:
            return
        pool = Pool(run, run.jobs(count, self.name, first=made), batch_size=self.batch_size)
        with run.bar(len(self.at) + 1, "halving") as bar:
            for part, survivors in zip(self.at, self.survivors(), strict=True):
                pool.advance(part)
                if pool.progress < 1.0:
                    pool.look()
                    pool = pool.best(survivors)
                if bar is not None:
                    bar.update(1)
            finish(run, pool)
            if bar is not None:
                bar.update(1)

    def _fitting(self, run: Run, count: int) -> int:
        """How many to start within the budget: their steps and looks, pruned as planned."""
        if not run.limited:
            return count
        parts = [0.0, *self.at, 1.0]
        alive = [self.n, *self.survivors()]
        lengths = [end - start for start, end in pairwise(parts)]
        steps = sum(rows * length for rows, length in zip(alive, lengths, strict=True)) / self.n
        fitting = run.affordable(count, steps=steps, looks=sum(alive) / self.n)
        if fitting < count:
            run.note(f"budget: {fitting} of {count} images are started")
        return fitting
