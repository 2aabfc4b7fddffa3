"""Gradient ascent on the noise or the latents, for scorers that have a gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..._errors import InputError, unknown_name
from ..run import Run
from ..types import Noise
from .common import check_part, check_scored, check_whole, finish, first_images
from .pool import Pool

WHERE = ("noise", "latents")


@dataclass(frozen=True)
class RewardGradient:
    """Climb the target's gradient, from `n` seeds of each prompt.

    On the "noise" (ReNO, Eyring et al. 2024, arXiv:2406.04312): `iterations` times the image of `steps` denoising
    steps is scored, and its noise moved uphill; then the image of the best noise is drawn in full. On the "latents"
    (universal guidance, Bansal et al. 2023, arXiv:2302.07121): at each part `at` of the trajectory the latents are
    moved uphill of the score of the clean image that they predict.

    A move is `rate` times the latents' norm, along the gradient with momentum. In the noise, the log-density of the
    norm of standard normal noise of D numbers, (D - 1) log |x| - |x|^2 / 2, is climbed too with the weight `norm`, so
    that it stays noise. The target's terms must all have gradients, which is checked first.

    Args:
        n: seeds per prompt.
        where: "noise" or "latents".
        iterations: moves of the noise.
        steps: denoising steps that the gradient of the noise goes through; memory grows with them.
        at: parts of the trajectory, rising, at which latents are moved.
        rate: length of a move, as a share of the norm of the latents.
        norm: weight of the noise's log-density, per number, against the score's gradient of length 1.
        keep: how many of the best to return per prompt, best first.
        batch_size: images at once; None: 8, and half as many each time memory runs out.

    >>> RewardGradient().where
    'noise'
    """

    n: int = 2
    where: str = "noise"
    iterations: int = 8
    steps: int = 2
    at: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8)
    rate: float = 0.1
    norm: float = 1.0
    keep: int = 1
    batch_size: int | None = None
    name: ClassVar[str] = "gradient"

    def __post_init__(self) -> None:
        numbers = {"n": self.n, "iterations": self.iterations, "steps": self.steps, "keep": self.keep}
        check_whole("RewardGradient", **numbers, batch_size=self.batch_size)
        check_part("RewardGradient", rate=self.rate)
        check_part("RewardGradient", 0.0, 1e6, norm=self.norm)
        object.__setattr__(self, "at", tuple(self.at))
        if self.where not in WHERE:
            raise unknown_name("RewardGradient: where", self.where, WHERE)
        if list(self.at) != sorted(set(self.at)) or not all(0 < part < 1 for part in self.at):
            raise InputError(f"RewardGradient: at must rise from above 0 to below 1, got {self.at}")
        if self.keep > self.n:
            raise InputError(f"RewardGradient: keep={self.keep} of n={self.n}: nothing to choose; keep at most n")

    def __call__(self, run: Run) -> None:
        """Climb from the first seeds of every prompt."""
        check_scored("RewardGradient", run)
        assert run.target is not None
        if run.target.blind:
            raise InputError(
                f"RewardGradient: {', '.join(run.target.blind)} has no gradient with respect to the image; use a "
                "search that needs none, such as Drafts or NoiseSearch"
            )
        if torch.is_inference_mode_enabled():
            raise InputError("RewardGradient: no gradient inside torch.inference_mode(); use torch.no_grad() there")
        run.keep = self.keep
        made = first_images(run, self.name, self.batch_size)
        jobs = run.jobs(self.n, self.name, first=0)
        moves = self.iterations if self.where == "noise" else len(self.at)
        with run.bar(moves + 1, "gradient") as bar:
            pool = Pool(run, jobs, batch_size=self.batch_size)
            if self.where == "noise":
                pool = self._climb_noise(run, pool, bar)
            else:
                self._climb_latents(run, pool, bar)
            if not made or run.affordable(1, steps=1.0 - pool.progress, looks=1.0):
                finish(run, pool)
            if hasattr(bar, "update"):
                bar.update(1)

    def _climb_noise(self, run: Run, pool: Pool, bar: object) -> Pool:
        """Move the noise; returns the pool of the best noise of each row, not begun."""
        jobs, count = pool.jobs, len(pool)
        noise = self._latents(run, pool).float()  # moves are smaller than what half precision tells apart
        scale = noise.flatten(1).std(1).mean().clamp_min(1e-12)  # what a pipeline multiplies its noise by
        start = noise / scale
        best, height = start.clone(), torch.full((count,), -math.inf)
        speed = torch.zeros_like(start)
        mixes = [Noise.of(job.seed).mix for job in jobs]
        climbed = []
        for _ in range(self.iterations):
            if run.limited and not run.affordable(1, {"steps": self.n, "looks": self.n}, gradients=float(self.n)):
                run.note("budget: the gradient was followed for fewer iterations")
                break
            given = [Noise(mix, row * scale) for mix, row in zip(mixes, start, strict=True)]
            drafts = Pool(
                run, jobs, given, {"num_inference_steps": self.steps}, batch_size=self.batch_size, draft=True
            )
            values, gradient = self._gradient(run, drafts)
            climbed.append([round(float(v), 5) for v in values])
            better = values > height
            best[better], height[better] = start[better], values[better]
            size = start[0].numel()
            length = start.flatten(1).norm(dim=1).view(-1, *[1] * (start.ndim - 1))
            inward = self.norm * start * ((size - 1) / length**2 - 1) / math.sqrt(size)
            speed = 0.5 * speed + _unit(gradient) + inward
            start = start + self.rate * length * _unit(speed)
            if hasattr(bar, "update"):
                bar.update(1)
        run.facts.setdefault(self.name, {})["values"] = climbed
        given = [Noise(mix, row * scale) for mix, row in zip(mixes, best, strict=True)]
        return Pool(run, jobs, given, batch_size=self.batch_size)

    def _climb_latents(self, run: Run, pool: Pool, bar: object) -> None:
        """Move the latents at some steps on the way, in place."""
        climbed = []
        for part in self.at:
            pool.advance(part)
            if pool.progress == 1.0:
                break
            if run.limited and not run.affordable(1, {"steps": self.n, "looks": self.n}, gradients=float(self.n)):
                run.note("budget: the gradient was followed at fewer steps")
                break
            values, gradient = self._gradient(run, pool)
            latents = self._latents(run, pool)
            length = latents.float().flatten(1).norm(dim=1).view(-1, *[1] * (latents.ndim - 1))
            moved = latents.float() + self.rate * length * _unit(gradient)
            pool.rows = run.sampler.put(pool.rows, moved.to(latents.dtype))
            climbed.append([round(float(v), 5) for v in values])
            if hasattr(bar, "update"):
                bar.update(1)
        run.facts.setdefault(self.name, {})["values"] = climbed

    def _latents(self, run: Run, pool: Pool) -> torch.Tensor:
        rows = range(len(pool))
        parts = run.in_batches(len(rows), self.batch_size, lambda i: run.sampler.latents(pool.rows.select(i)))
        return torch.cat(parts)

    def _gradient(self, run: Run, pool: Pool) -> tuple[torch.Tensor, torch.Tensor]:
        """Score and gradient of every row; a row without a score stays where it is."""
        assert run.target is not None
        target, seconds, nfe = run.target, run.seconds, run.nfe

        def work(index: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
            prompts = [pool.jobs[i].request.prompt for i in index]
            values, gradient = run.sampler.gradient(
                pool.rows.select(index), lambda images: target(images, prompts).total
            )
            return torch.nan_to_num(values.cpu(), nan=-math.inf), torch.nan_to_num(gradient.float(), nan=0.0)

        parts = run.in_batches(len(pool), self.batch_size, work)
        run.rates.learn("gradients", len(pool), run.seconds - seconds, run.nfe - nfe)
        return torch.cat([v for v, _ in parts]), torch.cat([g for _, g in parts])


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows (B, ...) of length 1, or 0."""
    length = rows.flatten(1).norm(dim=1).clamp_min(1e-12)
    scaled: torch.Tensor = rows / length.view(-1, *[1] * (rows.ndim - 1))
    return scaled
