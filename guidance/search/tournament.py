"""Tournament: candidates compared two by two, ranked by Bradley-Terry from few comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..._errors import InputError
from ..comparing import check_comparing, play
from ..run import Run
from .common import check_whole


@dataclass(frozen=True)
class Tournament:
    """Make `n` candidates of each prompt, let a judge that is read by "pairwise" compare some pairs, keep the best.

    In each round neighbours in strength meet who have not met. A score is a win rate among the prompt's candidates.

    Args:
        n: candidates per prompt.
        comparisons: pairs per prompt, each asked in both orders; None: n/2 x (log2 n + 1), e.g. 16 of the 28 of 8.
        keep: how many of the best to return per prompt, best first.
        batch_size: images to sample at once; None: 8, and half as many each time memory runs out.

    >>> Tournament(8).total
    16
    """

    n: int
    comparisons: int | None = None
    keep: int = 1
    batch_size: int | None = None
    name: ClassVar[str] = "tournament"

    def __post_init__(self) -> None:
        check_whole("Tournament", n=self.n, comparisons=self.comparisons, keep=self.keep, batch_size=self.batch_size)
        if self.keep > self.n:
            raise InputError(f"Tournament: keep={self.keep} of n={self.n}: nothing to choose; keep at most n")

    @property
    def total(self) -> int:
        """Comparisons per prompt."""
        return min(self.n * (self.n - 1) // 2, self.comparisons or math.ceil(self.n / 2 * (math.log2(self.n) + 1)))

    def __call__(self, run: Run) -> None:
        """Make the candidates of every request, compare, rank."""
        target = check_comparing("Tournament", run.target)
        run.keep = self.keep
        run.make(run.jobs(self.n, self.name), self.batch_size, score=False)
        for request in run.requests:
            play(run, target, request, self.total)
