"""Best-of-N: make N images of a prompt, keep those the target likes best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..._errors import InputError
from ..run import Run


@dataclass(frozen=True)
class BestOfN:
    """Make `n` candidates of each prompt from the seeds seed, seed + 1, ..., seed + n - 1; keep the best.

    The plain baseline, and usually the one to beat at equal wall-clock (Ma et al. 2025, arXiv:2501.09732,
    "random search"). Every prompt gets the same seeds; the first seed of every prompt is drawn before the
    second of any, so that a budget cuts all prompts alike. Scores are continuous; candidates that tie are
    reported and the lowest seed is taken.

    Args:
        n: candidates per prompt.
        batch_size: images to sample at once; None: 8, and half as many each time memory runs out.
        keep: how many of the best to return per prompt, best first.

    >>> BestOfN(8).keep
    1
    """

    n: int
    batch_size: int | None = None
    keep: int = 1
    name: ClassVar[str] = "best_of_n"

    def __post_init__(self) -> None:
        for name, value in (("n", self.n), ("batch_size", self.batch_size), ("keep", self.keep)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"BestOfN: {name} must be a whole number from 1, got {value!r}")
        if self.keep > self.n:
            raise InputError(f"BestOfN: keep={self.keep} of n={self.n}: nothing to choose; keep at most n")

    def __call__(self, run: Run) -> None:
        """Make and score the candidates of every request of a run."""
        run.keep = self.keep
        run.make(run.jobs(self.n, self.name), self.batch_size)
