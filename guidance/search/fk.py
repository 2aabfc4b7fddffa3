"""Feynman-Kac steering: particles that are drawn again by how well they promise (Singhal et al. 2025, 2501.06848)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..._errors import InputError
from ..run import Run
from ..types import Candidate, Request
from .common import check_part, check_scored, check_whole, finish, first_images
from .pool import Pool

RESAMPLING = ("adaptive", "always")


def systematic(log_weights: torch.Tensor, uniform: float) -> list[int]:
    """Resample N particles with one random number: particle i is taken floor or ceil of N x its share times.

    Carpenter et al. 1999; of the unbiased schemes that keep N it has the least variance in practice (Douc et al.
    2005, arXiv:cs/0507025).

    Args:
        log_weights: (N,) unnormalised.
        uniform: from [0, 1).

    >>> systematic(torch.tensor([0.0, 0.0, 0.0]), 0.5)
    [0, 1, 2]
    >>> systematic(torch.tensor([0.0, -100.0]), 0.5)
    [0, 0]
    """
    count = len(log_weights)
    shares = torch.softmax(log_weights.double(), 0).cumsum(0)
    points = (torch.arange(count, dtype=torch.float64) + uniform) / count
    return torch.searchsorted(shares, points, right=True).clamp_max(count - 1).tolist()


def effective_size(log_weights: torch.Tensor) -> float:
    """Effective sample size 1 / sum of squared shares, 1 to N (Kong et al. 1994).

    >>> effective_size(torch.zeros(4))
    4.0
    """
    shares = torch.softmax(log_weights.double(), 0)
    return float(1 / shares.square().sum())


@dataclass(frozen=True)
class FKSteering:
    """Steer `particles` of each prompt towards exp(strength x score) by sequential Monte Carlo.

    At each part `at` of the trajectory the predicted clean images are scored, each particle is weighted by
    exp(strength x (its score - its score at the look before)), in log space, and particles are resampled where the
    weights have grown unequal. Copies part by fresh noise: DDIM's eta, or for flow matching the like step. With a
    flat score nothing is resampled and the samples are those of the pipeline at that eta.

    Args:
        particles: per prompt.
        at: parts of the trajectory at which to look, rising, between 0 and 1.
        strength: of the score, a sum of terms in [0, 1] times their weights.
        eta: fresh noise at each step, above 0 to 1; 1 is the ancestral sampler.
        resample: "adaptive": when the effective number of particles falls below half; "always".
        keep: how many of the best to return per prompt, best first.
        batch_size: images at once; None: 8, and half as many each time memory runs out.

    >>> FKSteering(4).at
    (0.2, 0.4, 0.6, 0.8)
    """

    particles: int = 4
    at: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    strength: float = 20.0
    eta: float = 1.0
    resample: str = "adaptive"
    keep: int = 1
    batch_size: int | None = None
    name: ClassVar[str] = "fk"

    def __post_init__(self) -> None:
        check_whole("FKSteering", particles=self.particles, keep=self.keep, batch_size=self.batch_size)
        check_part("FKSteering", eta=self.eta)
        check_part("FKSteering", 0.0, 1e9, strength=self.strength)
        object.__setattr__(self, "at", tuple(self.at))
        if list(self.at) != sorted(set(self.at)) or not all(0 < part < 1 for part in self.at):
            raise InputError(f"FKSteering: at must rise from above 0 to below 1, got {self.at}")
        if self.eta == 0:
            raise InputError("FKSteering: eta must be above 0, or copies of a particle would stay copies")
        if self.resample not in RESAMPLING:
            raise InputError(f"FKSteering: resample must be one of {RESAMPLING}, got {self.resample!r}")
        if self.keep > self.particles:
            raise InputError(f"FKSteering: keep={self.keep} of {self.particles} particles; keep at most all")

    def __call__(self, run: Run) -> None:
        """Steer the particles of every prompt."""
        check_scored("FKSteering", run)
        run.keep = self.keep
        made = first_images(run, self.name, self.batch_size)
        with run.bar(len(run.requests) * (len(self.at) + 1), "steering") as bar:
            for request in run.requests:
                jobs = [j for j in run.jobs(self.particles, self.name, made) if j.request is request]
                count = run.affordable(len(jobs), steps=1.0, looks=len(self.at) + 1.0)
                if count < 2 <= self.particles:
                    run.note(f"budget: no particles of '{request.prompt}' were steered")
                    continue
                self._steer(run, request, Pool(run, jobs[:count], batch_size=self.batch_size), bar)

    def _steer(self, run: Run, request: Request, pool: Pool, bar: object) -> None:
        count = len(pool)
        log_weights, before = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        draw = torch.Generator().manual_seed(request.seed)
        told: list[dict[str, object]] = run.facts.setdefault(self.name, [])
        fresh: Sequence[int] | None = None
        for part in self.at:
            pool.advance(part, self.eta, fresh)
            fresh = None
            if pool.progress == 1.0:
                break
            now = self.strength * torch.tensor([_score(c) for c in pool.look()], dtype=torch.float64)
            log_weights = log_weights + now - before
            before = now
            uniform = float(torch.rand((), generator=draw))
            size = effective_size(log_weights)
            told.append({"request": request.index, "at": part, "effective": round(size, 3)})
            if size < count / 2 or (self.resample == "always" and size < count):
                parents = systematic(log_weights, uniform)
                pool, before = pool.select(parents), now[parents]
                log_weights = torch.zeros(count, dtype=torch.float64)
                # every row goes on with noise of its own, told by its seed, so that the record can repeat it
                fresh = torch.randint(2**31, (count,), generator=draw).tolist()
                told[-1]["parents"] = parents
            if hasattr(bar, "update"):
                bar.update(1)
        if pool.progress < 1.0:
            pool.advance(1.0, self.eta, fresh)
        finish(run, pool)
        if hasattr(bar, "update"):
            bar.update(1)


def _score(candidate: Candidate) -> float:
    return candidate.score if candidate.valid else -math.inf
