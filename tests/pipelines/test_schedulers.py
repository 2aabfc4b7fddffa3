"""Schedulers that people swap in: an image is the same in any batch, and after any search."""

import numpy as np
import pytest
import torch
from comparing import pixels
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SASolverScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, Drafts, FakeScorer, Halving

STEPS = {**CALL["sd15"], "num_inference_steps": 4}


def apart(a, b):
    return int(np.abs(pixels(a) - pixels(b)).max())


# diffusers' KDPM2 takes torch tensors through numpy in the old way
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize(
    "scheduler",
    [
        EulerAncestralDiscreteScheduler,
        KDPM2AncestralDiscreteScheduler,
        DPMSolverMultistepScheduler,
        DDPMScheduler,
        LCMScheduler,
        SASolverScheduler,
    ],
)
def test_a_batch_of_four_gives_what_singles_give(scheduler):
    base = tiny_pipeline("sd15")
    settings = {"algorithm_type": "sde-dpmsolver++"} if scheduler is DPMSolverMultistepScheduler else {}
    base.scheduler = scheduler.from_config(base.scheduler.config, **settings)
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    single, batch = (pipe("a cat", guidance=BestOfN(4, batch_size=n), seed=0, **STEPS).candidates for n in (1, 4))
    assert [c.seed for c in single] == [c.seed for c in batch] == [0, 1, 2, 3]
    for one, other in zip(single, batch, strict=True):
        plain = base("a cat", generator=torch.Generator().manual_seed(one.seed), **STEPS).images[0]
        assert apart(one.image, plain) == 0
        assert apart(other.image, plain) <= 1

    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = [
        base("a cat", latents=start.clone(), generator=torch.Generator().manual_seed(n), **STEPS).images[0]
        for n in (0, 1)
    ]
    assert apart(*drawn) > 4, "its steps draw no noise: nothing was tested"


SWAPPED = [
    (DDIMScheduler, {}),
    (EulerAncestralDiscreteScheduler, {}),
    (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    (UniPCMultistepScheduler, {}),
    (HeunDiscreteScheduler, {}),
    (LCMScheduler, {}),
    (DEISMultistepScheduler, {}),
    (PNDMScheduler, {"skip_prk_steps": True}),
    (KDPM2AncestralDiscreteScheduler, {}),
    (TCDScheduler, {}),
]
FLOWS = [
    (FlowMatchHeunDiscreteScheduler, {}),
    (UniPCMultistepScheduler, {"prediction_type": "flow_prediction", "use_flow_sigmas": True}),
    (DPMSolverMultistepScheduler, {"prediction_type": "flow_prediction", "use_flow_sigmas": True}),
]


def check_survivor(pipe, base, **call):
    """The winner of halving and of drafts is its plain image: a scheduler's memory is kept from leg to leg."""
    for guidance in (Halving(3, at=(0.4, 0.7)), Drafts(3, steps=2, full=1)):
        (winner,) = pipe("a cat", guidance=guidance, seed=0, **call).chosen
        plain = base("a cat", generator=torch.Generator().manual_seed(winner.seed), **call).images[0]
        assert apart(winner.image, plain) <= 1, guidance.name


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize(("scheduler", "settings"), SWAPPED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_survivor_is_its_plain_image(scheduler, settings):
    base = tiny_pipeline("sd15")
    base.scheduler = scheduler.from_config(base.scheduler.config, **settings)
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    check_survivor(pipe, base, **{**STEPS, "num_inference_steps": 6})


@pytest.mark.parametrize(("scheduler", "settings"), FLOWS, ids=lambda value: getattr(value, "__name__", ""))
def test_of_a_flow_too(scheduler, settings):
    base = tiny_pipeline("sd3")
    base.scheduler = scheduler.from_config(base.scheduler.config, **settings)
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    check_survivor(pipe, base, **{**CALL["sd3"], "num_inference_steps": 6})
