"""Images round one that is liked already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..._errors import InputError
from ..run import DEFAULT_BATCH_SIZE, Run
from ..types import Noise
from .common import check_part, check_whole, first_images
from .noise import neighbour
from .pool import Pool


@dataclass(frozen=True)
class Variations:
    """Make the image of each prompt's seed again, and `n` - 1 from noise a step away from its own.

    The k-th has sqrt(1 - radius^2) x the first one's noise + radius x that of seed + k: standard normal again. One
    round of `NoiseSearch` from a seed that is chosen already, with or without a target.

    Args:
        n: images per prompt, the first one included.
        radius: how far variations lie, 0 (the same) to 1 (nothing left of the first).
        keep: how many of the best to return per prompt, best first.
        batch_size: images at once; None: 8, and half as many each time memory runs out.

    >>> Variations(9).radius
    0.5
    """

    n: int = 9
    radius: float = 0.5
    keep: int = 1
    batch_size: int | None = None
    name: ClassVar[str] = "variations"

    def __post_init__(self) -> None:
        check_whole("Variations", n=self.n, keep=self.keep, batch_size=self.batch_size)
        check_part("Variations", radius=self.radius)
        if self.keep > self.n:
            raise InputError(f"Variations: keep={self.keep} of n={self.n}: keep at most n")

    def __call__(self, run: Run) -> None:
        """Make and score the images of every request of a run, batch by batch."""
        run.keep = self.keep
        made = first_images(run, self.name, self.batch_size)
        jobs = run.jobs(self.n - made, self.name, made)
        centres: dict[int, Noise] = {}
        for job in run.jobs(1, self.name):
            centres.setdefault(job.request.index, Noise.of(job.seed))
        size = self.batch_size or DEFAULT_BATCH_SIZE
        for start in range(0, len(jobs), size):
            batch = jobs[start : start + size]
            each = -(-len(batch) // len(run.requests))
            fits = run.affordable(each, steps=1.0, looks=1.0) if run.limited else each
            if fits < each:
                run.note(f"budget spent: {len(jobs) - start} candidates were not made")
                break
            noise = [self._noise(centres[job.request.index], job.seed) for job in batch]
            pool = Pool(run, batch, noise, batch_size=self.batch_size)
            pool.advance(1.0)
            pool.look()

    def _noise(self, centre: Noise, seed: int) -> Noise:
        return centre if seed == centre.seed else neighbour(centre, seed, self.radius)
