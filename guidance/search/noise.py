"""Zero-order search around the best noise so far (Ma et al. 2025, arXiv:2501.09732)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..._errors import InputError
from ..run import Run
from ..types import Candidate, Job, Noise
from .common import check_part, check_scored, check_whole, first_images
from .pool import Pool


def neighbour(noise: Noise, seed: int, radius: float) -> Noise:
    """Return sqrt(1 - radius^2) x noise + radius x a fresh draw: standard normal again, a step away.

    Args:
        noise: a mix of seeded draws.
        seed: of the fresh draw.
        radius: 0 (the same) to 1 (nothing left of it).

    >>> neighbour(Noise.of(1), 2, 0.6).mix
    ((1, 0.8), (2, 0.6))
    """
    stay = math.sqrt(1 - radius**2)
    mix = dict.fromkeys([*(part for part, _ in noise.mix), seed], 0.0)
    for part, weight in noise.mix:
        mix[part] += stay * weight
    mix[seed] += radius
    return Noise(tuple(mix.items()))


@dataclass(frozen=True)
class NoiseSearch:
    """Start `start` images, then `rounds` times try `neighbours` of the best noise, and move to a better one.

    A round without gain makes the next reach `shrink` times as far; after `patience` such rounds in a row the search
    is stuck, and goes on from fresh noise if any rounds are left.

    Args:
        start: images of the first round, from seeds counting up.
        neighbours: images of each further round.
        rounds: further rounds.
        radius: how far neighbours lie, 0 to 1: the share of a fresh draw.
        shrink: factor on the radius after a round without gain.
        patience: rounds without gain before starting anew.
        keep: how many of the best to return per prompt, best first.
        batch_size: images at once; None: 8, and half as many each time memory runs out.

    >>> NoiseSearch(4, 4, rounds=3).total
    16
    """

    start: int = 4
    neighbours: int = 4
    rounds: int = 3
    radius: float = 0.5
    shrink: float = 0.7
    patience: int = 2
    keep: int = 1
    batch_size: int | None = None
    name: ClassVar[str] = "noise"

    def __post_init__(self) -> None:
        numbers = {"start": self.start, "neighbours": self.neighbours, "patience": self.patience}
        check_whole("NoiseSearch", **numbers, keep=self.keep, batch_size=self.batch_size)
        check_whole("NoiseSearch", 0, rounds=self.rounds)
        check_part("NoiseSearch", radius=self.radius, shrink=self.shrink)
        if self.keep > self.total:
            raise InputError(f"NoiseSearch: keep={self.keep} of {self.total} images; keep at most all")

    @property
    def total(self) -> int:
        """Images per prompt without a budget."""
        return self.start + self.neighbours * self.rounds

    def __call__(self, run: Run) -> None:
        """Search around the best noise of every prompt."""
        check_scored("NoiseSearch", run)
        run.keep = self.keep
        made = first_images(run, self.name, self.batch_size)
        told = run.facts.setdefault(self.name, [])
        with run.bar(len(run.requests) * (self.rounds + 1), "noise search") as bar:
            for request in run.requests:
                jobs = [j for j in run.jobs(self.start, self.name) if j.request is request]
                noise = [Noise.of(job.seed) for job in jobs]
                pivot, score = self._try(run, jobs[made:], noise[made:])
                if made:
                    first = next(c for c in run.candidates if c.request == request.index)
                    if first.valid and not first.score < score:
                        pivot, score = (jobs[0], noise[0]), first.score
                _tick(bar)
                radius, stuck, fresh = self.radius, 0, max(job.seed for job in jobs) + 1
                for number in range(self.rounds):
                    if pivot is None:
                        break
                    seeds = range(fresh, fresh + self.neighbours)
                    fresh += self.neighbours
                    anew = stuck >= self.patience
                    if anew:
                        radius, stuck = self.radius, 0
                        told.append({"request": request.index, "round": number, "stuck": True})
                    centre = pivot
                    around = [Noise.of(s) if anew else neighbour(centre[1], s, radius) for s in seeds]
                    origin = {**centre[0].origin, "round": number + 1}
                    tried = [Job(request, centre[0].prompt, seed, {**origin, "radius": 1.0 if anew else radius})
                             for seed in seeds]  # fmt: skip
                    found, best = self._try(run, tried, around)
                    if found is not None and best > score:
                        pivot, score, stuck = found, best, 0
                    else:
                        radius, stuck = radius * self.shrink, stuck + 1
                    _tick(bar)

    def _try(self, run: Run, jobs: list[Job], noise: list[Noise]) -> tuple[tuple[Job, Noise] | None, float]:
        """Make images; returns the best one's job and noise, and its score."""
        count = run.affordable(len(jobs), steps=1.0, looks=1.0) if run.limited else len(jobs)
        if count < len(jobs):
            run.note(f"budget spent: {len(jobs) - count} candidates were not made")
        if count == 0:
            return None, -math.inf
        pool = Pool(run, jobs[:count], noise[:count], batch_size=self.batch_size)
        pool.advance(1.0)
        made: list[Candidate] = pool.look()
        place = max(range(count), key=lambda i: made[i].score if made[i].valid else -math.inf)
        if not made[place].valid:
            return None, -math.inf
        return (jobs[place], noise[place]), made[place].score


def _tick(bar: object) -> None:
    if hasattr(bar, "update"):
        bar.update(1)
