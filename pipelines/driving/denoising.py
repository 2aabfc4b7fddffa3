"""What a pipeline's denoiser says of noised latents, asked through the pipeline's own call.

The call is entered with latents of our making at a step of its schedule, and left from within `scheduler.step`, where
the denoiser's output is handed over. So whatever the pipeline does to its denoiser's input and output (scales of the
timestep, packed latents, learned variances, signs) is done as in sampling, without a line on any family.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline

from .diffusion import Level, noise_levels


@dataclass
class Question:
    """What is asked of the denoiser, and its answer.

    Args:
        step: of the schedule, from 0.
        latents: (B, ...) as the pipeline's loop holds them; None: those that it begins with.
        output: (B, ...) of the denoiser, as the scheduler gets it.
        levels: noise level of each step of the schedule.
    """

    step: int = 0
    latents: torch.Tensor | None = None
    output: torch.Tensor | None = None
    levels: list[Level] = field(default_factory=list)


class _Answered(Exception):
    """Leaves the pipeline's call."""


@contextmanager
def asked(pipe: DiffusionPipeline, question: Question) -> Iterator[None]:
    """Let the pipeline's next call do nothing but answer a question."""
    scheduler: Any = pipe.components["scheduler"]
    before = dict(vars(scheduler))
    prepare, set_timesteps = pipe.prepare_latents, scheduler.set_timesteps
    schedule: list[Any] = []

    @functools.wraps(prepare)
    def prepare_latents(*args: Any, **kwargs: Any) -> Any:
        out = prepare(*args, **kwargs)
        if question.latents is None:
            return out
        drawn = out[0] if isinstance(out, tuple) else out
        latents = question.latents.to(drawn)
        return (latents, *out[1:]) if isinstance(out, tuple) else latents

    @functools.wraps(set_timesteps)
    def set_one(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        schedule[:] = [scheduler.timesteps]
        scheduler.timesteps = scheduler.timesteps[question.step :]
        if "_step_index" in vars(scheduler):
            scheduler._step_index = question.step

    @functools.wraps(scheduler.step)
    def step(model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        scheduler.timesteps = schedule[0]
        question.output = model_output
        question.levels = [noise_levels(scheduler, t, k)[0] for k, t in enumerate(schedule[0])]
        raise _Answered

    pipe.__dict__["prepare_latents"] = prepare_latents
    vars(scheduler).update(set_timesteps=set_one, step=step)
    if hasattr(scheduler, "set_begin_index"):
        vars(scheduler)["set_begin_index"] = lambda begin_index=0: None
    try:
        yield
    except _Answered:
        pass
    finally:
        pipe.__dict__.pop("prepare_latents", None)
        vars(scheduler).clear()
        vars(scheduler).update(before)
