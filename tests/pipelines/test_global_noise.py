"""Unguided and without a seed, a view draws from torch's global state just as its base does, and can be replayed."""

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import CogGuidedPipeline, replay
from cogguided._errors import GenerationError, RecordError
from cogguided.pipelines.records.global_noise import generator_at


def pixels(images):
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("family", ["sd15", "flux", "qwen_image"])
@pytest.mark.parametrize("prompts", ["a cat", ["a cat", "a dog", "a cat"]], ids=["one", "three"])
def test_the_image_of_the_base(family, prompts, tmp_path):
    base = tiny_pipeline(family)
    pipe = CogGuidedPipeline.from_pipe(base)
    torch.manual_seed(7)
    expected = [base(prompts, **CALL[family]).images for _ in range(2)]
    after = torch.rand(1)
    torch.manual_seed(7)
    outs = [pipe(prompts, **CALL[family]) for _ in range(2)]
    assert torch.equal(torch.rand(1), after)
    for out, images in zip(outs, expected, strict=True):
        assert np.array_equal(pixels(out.images), pixels(images))
    again = replay(outs[1].save(tmp_path), len(expected[1]) - 1, pipe=pipe)
    assert again.same


def test_latents_too():
    base = tiny_pipeline("sd15")
    call = {**CALL["sd15"], "output_type": "latent"}
    torch.manual_seed(7)
    expected = base("a cat", **call).images
    torch.manual_seed(7)
    assert torch.equal(CogGuidedPipeline.from_pipe(base)("a cat", **call).images, expected)


def test_neither_loading_a_judge_nor_scoring_costs_noise():
    """CLIP's weights are drawn before they are loaded; an ancestral scheduler goes on drawing."""
    base = tiny_pipeline("sd15")
    base.scheduler = EulerAncestralDiscreteScheduler.from_config(base.scheduler.config)
    torch.manual_seed(7)
    expected = base("a cat", **CALL["sd15"]).images
    torch.manual_seed(7)
    out = CogGuidedPipeline.from_pipe(base, target="emotional_valence=1,clip=1")("a cat", **CALL["sd15"])
    assert np.array_equal(pixels(out.images), pixels(expected))


def test_a_fresh_state_is_a_seed():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"))
    torch.manual_seed(7)
    out = pipe("a cat", **CALL["sd15"])
    assert out.candidates[0].seed == 7
    assert np.array_equal(pixels(out.images), pixels(pipe("a cat", seed=7, **CALL["sd15"]).images))
    assert pipe("a cat", **CALL["sd15"]).candidates[0].seed is None


def test_memory_that_runs_out_says_what_helps():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"))

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    pipe.unet.forward = full
    with pytest.raises(GenerationError, match=r"2 prompts of this call in one batch.*pass seed="):
        pipe(["a cat", "a dog"], **CALL["sd15"])


def test_a_state_of_a_device_that_is_not_here():
    with pytest.raises(RecordError, match="xpu, which is not here"):
        generator_at({"device": "xpu", "base64": ""})
