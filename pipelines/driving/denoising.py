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

from .diffusion import Level, noise_levels, step_count, without_variance
from .stopping import entry_scale, preparer


@dataclass
class Question:
    """What is asked of the denoiser, and its answer.

    Args:
        step: of the schedule, from 0.
        latents: (B, ...) as the pipeline's loop holds them; None: those that it begins with.
        output: (B, ...) of the denoiser, as the scheduler gets it.
        levels: noise level of each step of the schedule.
        scale: what the call multiplies prepared latents by; found when it begins with its own.
    """

    step: int = 0
    latents: torch.Tensor | None = None
    output: torch.Tensor | None = None
    levels: list[Level] = field(default_factory=list)
    scale: float = 1.0


class _Answered(Exception):
    """Leaves the pipeline's call."""


@contextmanager
def asked(pipe: DiffusionPipeline, question: Question) -> Iterator[None]:
    """Let the pipeline's next call do nothing but answer a question."""
    scheduler: Any = pipe.components["scheduler"]
    before = dict(vars(scheduler))
    name: Any = preparer(pipe)
    prepare, set_timesteps = getattr(pipe, name), scheduler.set_timesteps
    schedule: list[Any] = []
    began: list[torch.Tensor] = []

    @functools.wraps(prepare)
    def prepare_latents(*args: Any, **kwargs: Any) -> Any:
        out = prepare(*args, **kwargs)
        drawn = out[0] if isinstance(out, tuple) else out
        if question.latents is None:
            began.append(drawn)
            return out
        latents = question.latents.to(drawn) / question.scale
        return (latents, *out[1:]) if isinstance(out, tuple) else latents

    @functools.wraps(set_timesteps)
    def set_one(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        schedule[:] = [scheduler.timesteps]
        scheduler.timesteps = scheduler.timesteps[question.step :]
        if "_step_index" in vars(scheduler):
            scheduler._step_index = question.step

    @functools.wraps(scheduler.step)
    def step(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        scheduler.timesteps = schedule[0]
        question.output = without_variance(scheduler, model_output, sample)
        if began:
            question.scale = entry_scale(began[0], sample)
        question.levels = [noise_levels(scheduler, schedule[0][k], k)[0] for k in range(step_count(scheduler))]
        raise _Answered

    pipe.__dict__[name] = prepare_latents
    vars(scheduler).update(set_timesteps=set_one, step=step)
    if hasattr(scheduler, "set_begin_index"):
        vars(scheduler)["set_begin_index"] = lambda begin_index=0: None
    try:
        yield
    except _Answered:
        pass
    finally:
        pipe.__dict__.pop(name, None)
        vars(scheduler).clear()
        vars(scheduler).update(before)
