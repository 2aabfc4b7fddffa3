"""A pipeline's call with a graph through its denoiser at some steps alone.

Latents of the next step are a sum of those before and of the denoiser's output, so the image depends on each output
directly, and through what later steps make of it. Only the direct part is followed: at the steps that are trained
the denoiser's inputs are detached, at the others it keeps no graph. Memory then grows with the steps that are
trained, not with all, and gradients cannot explode along the way (DRTune, Wu et al. 2024, arXiv:2405.00760).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline


@contextmanager
def supervised(
    pipe: DiffusionPipeline,
    denoiser: torch.nn.Module,
    steps: Collection[int],
    reference: Callable[[], AbstractContextManager[None]] | None = None,
) -> Iterator[list[torch.Tensor]]:
    """Let the pipeline's next call have a graph through its denoiser at `steps`, counted from 0.

    Yields:
        with `reference`, a context in which the denoiser is the untrained one: for each call of the denoiser at
        these steps the mean squared distance of the two outputs, a scalar with a graph.
    """
    scheduler: Any = pipe.components["scheduler"]
    forward, step = denoiser.forward, scheduler.step
    distances: list[torch.Tensor] = []
    done = 0

    @functools.wraps(forward)
    def watched(*args: Any, **kwargs: Any) -> Any:
        if done not in steps:
            with torch.no_grad():
                return forward(*args, **kwargs)
        args, kwargs = _detached(args), _detached(kwargs)
        output = forward(*args, **kwargs)
        if reference is not None:
            with torch.no_grad(), reference():
                untrained = forward(*args, **kwargs)
            distances.append((_first(output).float() - _first(untrained).float()).pow(2).mean())
        return output

    @functools.wraps(step)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        out = step(*args, **kwargs)
        done += 1
        return out

    vars(denoiser)["forward"] = watched
    vars(scheduler)["step"] = counted
    try:
        yield distances
    finally:
        del vars(denoiser)["forward"]
        del vars(scheduler)["step"]


def _detached(value: Any) -> Any:
    """The same arguments with no graph behind them."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: _detached(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_detached(item) for item in value)
    return value


def _first(output: Any) -> torch.Tensor:
    """The prediction in a denoiser's output: a tensor, or the first of a tuple, a list or a diffusers output."""
    while not isinstance(output, torch.Tensor):
        output = output[0]
    return output
