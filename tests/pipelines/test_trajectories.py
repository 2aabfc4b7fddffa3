"""Stopped, looked at, sorted, joined and gone on with: an image is the one that its seed gives."""

import numpy as np
import pytest
import torch
from comparing import pixels
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from families import FAMILIES as CLASSES
from families import build
from tiny_diffusion import CALL, FAMILIES, tiny_pipeline

from cogguided import CogGuidedPipeline, Drafts, FakeScorer
from cogguided._errors import InputError, ModelError
from cogguided.guidance import Noise
from cogguided.pipelines.driving.diffusion import stochastic_step
from cogguided.pipelines.driving.sampler import PipelineSampler

PROMPTS, SEEDS = ["a cat", "a long dog", "a cat"], [0, 1, 5]


def sampler_of(pipe, family, steps=6):
    return PipelineSampler(pipe, type(pipe), {**CALL[family], "num_inference_steps": steps})


def check(pipe, family):
    check_sampler(sampler_of(pipe, family))
    assert "step" not in vars(pipe.scheduler)
    assert "prepare_latents" not in vars(pipe)


def check_sampler(sampler):
    plain = [sampler.sample([p], [s])[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
    rows = sampler.advance(sampler.begin(PROMPTS, [Noise.of(seed) for seed in SEEDS]), 0.34)
    previews, _ = sampler.decode(rows, clean=True)
    assert len(previews) == 3
    parts = [sampler.advance(rows.select([2, 0]), 0.67), sampler.advance(rows.select([1]), 0.67)]
    rows = sampler.advance(sampler.join(parts), 1.0)
    assert rows.finished
    for image, place in zip(sampler.decode(rows)[0], (2, 0, 1), strict=True):
        assert np.abs(pixels(image) - pixels(plain[place])).max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family):
    check(tiny_pipeline(family), family)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        EulerAncestralDiscreteScheduler,
        UniPCMultistepScheduler,
    ],
)
def test_schedulers_with_a_memory_or_noise_of_their_own(scheduler, kind):
    pipe = tiny_pipeline("sd15")
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    check(pipe, "sd15")


def test_latents_that_a_call_scales_by_itself_are_scaled_once():
    """Sana Sprint multiplies what it has prepared by its data's deviation, whenever it is entered."""
    name = "SanaSprintPipeline"
    pipe = build(name)
    sampler = PipelineSampler(pipe, type(pipe), {**CLASSES[name].call, "num_inference_steps": 3})
    check_sampler(sampler)
    assert sampler.advance(sampler.begin(["a cat"], [Noise.of(0)]), 0.34).scale == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["flow", "karras", "ddim"])
def test_clean_latents_and_noise_of_a_step_make_up_its_latents_before_and_after(kind):
    pipe = tiny_pipeline("flux" if kind == "flow" else "sd15")
    if kind == "karras":
        pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    sampler = sampler_of(pipe, "flux" if kind == "flow" else "sd15", steps=4)
    before = sampler.advance(sampler.begin(["a cat"], [Noise.of(0)]), 0.5)
    after = sampler.advance(before, 0.75)
    if kind == "ddim":
        kept = [float(pipe.scheduler.alphas_cumprod[int(t)]) for t in after.state["timesteps"][2:4]]
        now, then = ((k**0.5, (1 - k) ** 0.5) for k in kept)
    else:
        now, then = ((1 - s if kind == "flow" else 1.0, s) for s in map(float, after.state["sigmas"][2:4]))
    noise = (before.latents - now[0] * after.clean) / now[1]
    torch.testing.assert_close(then[0] * after.clean + then[1] * noise, after.latents, atol=1e-4, rtol=1e-4)


def test_copies_part_by_fresh_noise_alone():
    sampler = sampler_of(tiny_pipeline("qwen_image"), "qwen_image")
    rows = sampler.advance(sampler.begin(["a cat"], [Noise.of(0)]), 0.5).select([0, 0, 0])
    images, _ = sampler.decode(sampler.advance(rows, 1.0, eta=1.0, seeds=[1, 1, 2]))
    assert np.array_equal(pixels(images[0]), pixels(images[1]))
    assert np.abs(pixels(images[0]) - pixels(images[2])).max() > 5


def test_a_stochastic_step_keeps_the_marginal():
    """Data N(0, 1) and the exact denoiser: whatever eta, the latents stay at variance alpha^2 + sigma^2."""
    generator = torch.Generator().manual_seed(0)
    now, after = (0.4, 0.6), (0.7, 0.3)
    clean = torch.randn(1, 200_000, generator=generator)
    sample = now[0] * clean + now[1] * torch.randn(1, 200_000, generator=generator)
    stepped = stochastic_step(sample, clean, now, after, 1.0, [generator])
    assert stepped.var().item() == pytest.approx(after[0] ** 2 + after[1] ** 2, rel=0.02)
    # the posterior keeps of the noise (Ho et al. 2020, eq. 7): 0.3 x (0.4 x 0.3) / (0.7 x 0.6)
    noise = (sample - now[0] * clean) / now[1]
    assert (stepped * noise).mean().item() == pytest.approx(0.3 * 0.12 / 0.42, abs=0.005)
    assert torch.corrcoef(torch.cat([stepped, clean]))[0, 1].item() == pytest.approx(0.7 / 0.58**0.5, abs=0.01)


def test_a_mix_of_noises_is_the_weighted_sum_of_what_its_seeds_give():
    sampler = sampler_of(tiny_pipeline("sd15"), "sd15")
    noise = [Noise.of(0), Noise.of(1), Noise(((0, 0.6), (1, 0.8)))]
    first, second, mixed = sampler.latents(sampler.begin(["a cat"] * 3, noise))
    assert torch.allclose(mixed, 0.6 * first + 0.8 * second, atol=1e-5)


def test_what_does_not_fit_is_refused():
    pipe = tiny_pipeline("sd15")
    sampler = sampler_of(pipe, "sd15")
    start = sampler.begin(["a cat"], [Noise.of(0)])
    half = sampler.advance(start, 0.5)
    with pytest.raises(InputError, match="cannot be joined"):
        sampler.join([half, sampler.advance(start, 0.9)])
    with pytest.raises(InputError, match="already at step"):
        sampler.advance(half, 0.2)
    pipe.register_modules(scheduler=None)
    with pytest.raises(ModelError, match="cannot be stopped half-way"):
        sampler.advance(start, 0.5)


@pytest.mark.parametrize("name", ["timesteps", "sigmas"])
def test_drafts_thin_a_schedule_of_the_users_own(name):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("flux" if name == "sigmas" else "sd15"), scorer=FakeScorer())
    call = {**CALL["flux" if name == "sigmas" else "sd15"]}
    given = [1.0 - k / 8 for k in range(8)]
    if name == "timesteps":
        pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        given = [float(999 - 125 * k) for k in range(8)]
    out = pipe("a cat", guidance=Drafts(4, steps=2, full=1), seed=0, **{**call, name: given})
    passes = 1 if name == "sigmas" else 2
    assert out.nfe == passes * (4 * 2 + 8) + 5, "four drafts of two steps, one image of eight, five looks"
