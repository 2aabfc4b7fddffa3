"""Schedulers that draw noise of their own at every step: an image has its own generator, whatever batch it is in."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    LCMScheduler,
    SASolverScheduler,
)
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer

STEPS = {**CALL["sd15"], "num_inference_steps": 4}


def pixels(image):
    return np.asarray(image).astype(int)


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
