"""Whether a pipeline's call can be left half-way and entered again, and if not, why: a sentence, and what works."""

from __future__ import annotations

import inspect

import torch
from diffusers import DiffusionPipeline

from ..._errors import ModelError

PREPARERS = ("prepare_latents", "prepare_intermediate_images")
"""Methods that make the initial noise, by diffusers' conventions: of latents, or of pixels."""
WHOLE = "use guidance that makes whole images, such as BestOfN"


def check_stoppable(pipe: DiffusionPipeline) -> None:
    """Check that a pipeline draws in one loop over its scheduler's steps, from latents that it prepares.

    Raises:
        ModelError: it does not; the sentence says why, and what works.
    """
    name = type(pipe).__name__
    several = stages(pipe)
    if len(several) > 1:
        raise ModelError(
            f"{name} cannot be stopped half-way: it draws in several stages, with {', '.join(several)}; {WHOLE}"
        )
    if "strength" in inspect.signature(getattr(pipe, "base_class", type(pipe)).__call__).parameters:
        why = "it begins from a picture, at a step of its own"
        raise ModelError(f"{name} cannot be stopped half-way: {why}; {WHOLE}")
    scheduler = pipe.components.get("scheduler")
    if preparer(pipe) is None:
        raise ModelError(f"{name} cannot be stopped half-way: it has no {' and no '.join(PREPARERS)}; {WHOLE}")
    missing = [method for method in ("set_timesteps", "step") if not callable(getattr(scheduler, method, None))]
    if missing:
        what = f"{type(scheduler).__name__} has no {' and no '.join(missing)}"
        raise ModelError(f"{name} cannot be stopped half-way: {what}; {WHOLE}")


def preparer(pipe: DiffusionPipeline) -> str | None:
    """Return the name of the method by which a pipeline makes its initial noise, or None.

    >>> from diffusers import IFPipeline, StableDiffusionPipeline
    >>> [preparer(pipe) for pipe in (StableDiffusionPipeline, IFPipeline)]
    ['prepare_latents', 'prepare_intermediate_images']
    """
    return next((name for name in PREPARERS if callable(getattr(pipe, name, None))), None)


def entry_scale(prepared: torch.Tensor, sample: torch.Tensor) -> float:
    """Return what a call multiplies prepared latents (B, ...) by before its first step; 1 where the shapes differ.

    Raises:
        ModelError: they are changed in another way, which cannot be undone to enter the call again.

    >>> entry_scale(torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0]))
    0.5
    """
    if prepared.shape != sample.shape:
        return 1.0
    before, after = prepared.detach().double().flatten(), sample.detach().double().flatten()
    if not before.isfinite().all():
        return 1.0
    scale = float(before @ after / (before @ before).clamp(min=1e-12))
    if not torch.allclose(after, scale * before, rtol=1e-2, atol=1e-2 * float(before.std(correction=0))):
        raise ModelError(f"latents are changed between their preparation and the first step; {WHOLE}")
    return 1.0 if abs(scale - 1) < 1e-3 else scale


def stages(pipe: DiffusionPipeline) -> list[str]:
    """Return the names of the schedulers that a pipeline steps through: one for each stage.

    >>> from types import SimpleNamespace
    >>> from diffusers import DDIMScheduler
    >>> stages(SimpleNamespace(components={"scheduler": DDIMScheduler(), "prior_scheduler": DDIMScheduler()}))
    ['prior_scheduler', 'scheduler']
    """
    parts = pipe.components.items()
    return sorted(name for name, part in parts if name.endswith("scheduler") and hasattr(part, "set_timesteps"))


def global_state(like: torch.Tensor) -> torch.Tensor:
    """Return the state of torch's own generator on a tensor's device."""
    return torch.cuda.get_rng_state(like.device) if like.is_cuda else torch.get_rng_state()
