"""A step of the reverse process on any scheduler: noise levels, the predicted clean latents, a step with fresh noise.

At a step the latents are x = alpha * clean + sigma * noise. Flow matching has alpha = 1 - sigma; DDPM's kin have
alpha^2 + sigma^2 = 1; Euler's scale x so that alpha = 1 (Karras et al. 2022, arXiv:2206.00364).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..._errors import ModelError

Level = tuple[float, float]
"""alpha and sigma."""


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler's model predicts the velocity noise - clean, along straight lines.

    >>> from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
    >>> is_flow(FlowMatchEulerDiscreteScheduler()), is_flow(DDIMScheduler())
    (True, False)
    """
    config = scheduler.config
    return (
        "flow" in type(scheduler).__name__.lower()
        or config.get("prediction_type") == "flow_prediction"
        or bool(config.get("use_flow_sigmas"))
    )


def is_trigonometric(scheduler: Any) -> bool:
    """Whether a scheduler's timesteps are angles: x = cos(t) * clean + sin(t) * sigma_data * noise.

    TrigFlow (Lu & Song 2024, arXiv:2410.11081, eq. 4), which Sana Sprint is distilled in.
    """
    return bool(scheduler.config.get("prediction_type") == "trigflow")


def step_count(scheduler: Any) -> int:
    """Return how many steps a scheduler's timesteps stand for; those that are angles end with the picture's own, 0.

    >>> from diffusers import DDIMScheduler, SCMScheduler
    >>> schedulers = DDIMScheduler(), SCMScheduler()
    >>> for scheduler in schedulers:
    ...     scheduler.set_timesteps(2)
    >>> [(len(scheduler.timesteps), step_count(scheduler)) for scheduler in schedulers]
    [(2, 2), (3, 2)]
    """
    return len(scheduler.timesteps) - is_trigonometric(scheduler)


def noise_levels(scheduler: Any, timestep: Any, index: int) -> tuple[Level, Level]:
    """Return the noise levels at a step and after it.

    Args:
        scheduler: after `set_timesteps`.
        timestep: as the pipeline hands it to `step`.
        index: of the step, from 0.

    Raises:
        ModelError: the scheduler says neither sigmas nor alphas.

    >>> from diffusers import FlowMatchEulerDiscreteScheduler
    >>> scheduler = FlowMatchEulerDiscreteScheduler()
    >>> scheduler.set_timesteps(sigmas=[1.0, 0.25])
    >>> noise_levels(scheduler, scheduler.timesteps[1], 1)
    ((0.75, 0.25), (1.0, 0.0))
    """
    if is_trigonometric(scheduler):
        angles = [float(t) for t in scheduler.timesteps[index : index + 2]]
        now, after = ((math.cos(t), math.sin(t) * scheduler.config.sigma_data) for t in angles)
        return now, after
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) > len(scheduler.timesteps):
        return _level(scheduler, sigmas[index]), _level(scheduler, sigmas[index + 1])
    if getattr(scheduler, "alphas_cumprod", None) is None:
        raise ModelError(f"{type(scheduler).__name__} has neither sigmas nor alphas: its steps cannot be read")
    later = scheduler.timesteps[index + 1] if index + 1 < len(scheduler.timesteps) else None
    return _variance_preserving(scheduler, timestep), _variance_preserving(scheduler, later)


def _level(scheduler: Any, sigma: Any) -> Level:
    value = float(sigma)
    if is_flow(scheduler):
        return 1 - value, value
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):  # the DPM solvers
        alpha, noise = scheduler._sigma_to_alpha_sigma_t(torch.tensor(value, dtype=torch.float64))
        return float(alpha), float(noise)
    return 1.0, value


def _variance_preserving(scheduler: Any, timestep: Any) -> Level:
    if timestep is None or int(timestep) < 0:
        kept = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    else:
        kept = float(scheduler.alphas_cumprod[int(timestep)])
    return kept**0.5, (1 - kept) ** 0.5


def without_variance(scheduler: Any, output: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """Return a model's prediction alone, where its output (B, 2 C, ...) has a learned variance beside it."""
    if scheduler.config.get("variance_type") in ("learned", "learned_range") and output.shape != sample.shape:
        return output[:, : sample.shape[1]]
    return output


def clean_latents(scheduler: Any, output: torch.Tensor, sample: torch.Tensor, level: Level) -> torch.Tensor:
    """Return the clean latents (B, ...) that a model's output predicts, in float32, before any clipping.

    Args:
        scheduler: says what the model predicts.
        output: (B, ...) of the denoiser, guidance applied.
        sample: (B, ...) latents it was asked about.
        level: their noise level.

    Raises:
        ModelError: a kind of prediction that is not known.

    >>> from diffusers import DDIMScheduler
    >>> clean, noise = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    >>> clean_latents(DDIMScheduler(), noise, 0.8 * clean + 0.6 * noise, (0.8, 0.6)).mean()
    tensor(1.)
    """
    alpha, sigma = level
    output = without_variance(scheduler, output, sample).float()
    sample = sample.float()
    found: torch.Tensor
    if hasattr(scheduler, "precondition_outputs"):
        kept, scale = _preconditioning(scheduler, sigma)
        found = kept * sample + scale * output
        return found
    if is_flow(scheduler):
        found = sample - sigma * output
        return found
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind == "trigflow":
        found = alpha * sample - sigma / scheduler.config.sigma_data * output
        return found
    if kind == "epsilon":
        found = (sample - sigma * output) / alpha
        return found
    if kind == "sample":
        return output
    if kind == "v_prediction":
        length = (alpha**2 + sigma**2) ** 0.5  # 1, but for schedulers that scale the latents
        found = (alpha * sample / length - sigma * output) / length
        return found
    raise ModelError(f"{type(scheduler).__name__}: prediction_type {kind!r} is not known here")


def _preconditioning(scheduler: Any, sigma: float) -> Level:
    """How EDM's schedulers make clean latents of a sample and an output: their scales (Karras et al. 2022, eq. 7)."""
    one, none = torch.ones(1), torch.zeros(1)
    noise = torch.tensor([sigma])
    kept = scheduler.precondition_outputs(one, none, noise)
    scale = scheduler.precondition_outputs(none, one, noise)
    return float(kept), float(scale)


def stochastic_step(
    sample: torch.Tensor,
    clean: torch.Tensor,
    now: Level,
    after: Level,
    eta: float,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Step to the next noise level with fresh noise: DDIM's eta (Song et al. 2021, arXiv:2010.02502, eq. 12 and 16).

    Written for any alpha and sigma, so that flow matching is covered: with eta = 1 this is the ancestral step, the
    posterior of the forward process given the predicted clean latents; with 0, DDIM's, which for flow matching is
    Euler's. The marginals are the same for every eta.

    Args:
        sample: (B, ...) latents.
        clean: (B, ...) predicted clean latents.
        now: level of `sample`.
        after: level to step to.
        eta: 0 to 1.
        generators: one per row, on the CPU.

    >>> x = torch.ones(1, 1, 2, 2)
    >>> stochastic_step(x, x, (0.6, 0.4), (1.0, 0.0), 1.0, [torch.Generator()]).mean()
    tensor(1.)
    """
    alpha, sigma = now
    next_alpha, next_sigma = after
    sample, clean = sample.float(), clean.float()
    kept = alpha * next_sigma / max(next_alpha * sigma, 1e-12)
    fresh = eta * next_sigma * max(1 - kept**2, 0.0) ** 0.5
    noise = (sample - alpha * clean) / max(sigma, 1e-12)
    stepped: torch.Tensor = next_alpha * clean + max(next_sigma**2 - fresh**2, 0.0) ** 0.5 * noise
    if fresh == 0:
        return stepped
    drawn = torch.stack([torch.randn(sample.shape[1:], generator=g) for g in generators])
    stepped = stepped + fresh * drawn.to(stepped.device)
    return stepped


def noised(clean: torch.Tensor, noise: torch.Tensor, level: Level) -> torch.Tensor:
    """Return latents (B, ...) at a noise level: alpha * clean + sigma * noise.

    >>> noised(torch.ones(1), torch.ones(1), (0.75, 0.25))
    tensor([1.])
    """
    alpha, sigma = level
    return alpha * clean + sigma * noise


def training_target(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, level: Level) -> torch.Tensor:
    """Return what a model should predict (B, ...) for latents made of `clean` and `noise` at a level.

    Flow matching: noise - clean (Lipman et al. 2022, arXiv:2210.02747); "epsilon": the noise (Ho et al. 2020,
    arXiv:2006.11239, eq. 14); "v_prediction": alpha * noise - sigma * clean (Salimans & Ho 2022, arXiv:2202.00512).

    Raises:
        ModelError: a kind of prediction that is not known.

    >>> from diffusers import DDIMScheduler
    >>> training_target(DDIMScheduler(), torch.ones(1), torch.zeros(1), (0.8, 0.6))
    tensor([0.])
    """
    if hasattr(scheduler, "precondition_outputs"):
        kept, scale = _preconditioning(scheduler, level[1])
        scaled: torch.Tensor = (clean - kept * noised(clean, noise, level)) / scale
        return scaled
    if is_flow(scheduler):
        return noise - clean
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return clean
    if kind == "trigflow":
        data = float(scheduler.config.sigma_data)
        return level[0] * data * noise - level[1] / data * clean
    if kind == "v_prediction":
        alpha, sigma = level
        length = (alpha**2 + sigma**2) ** 0.5
        found: torch.Tensor = (alpha * noise - sigma * clean) / length
        return found
    raise ModelError(f"{type(scheduler).__name__}: prediction_type {kind!r} is not known here")
