"""Single frames through a video VAE: the same image, less work, and nothing left behind."""

import numpy as np
import pytest
import torch
from tiny_diffusion import CALL, tiny_pipeline

from cogguided.guidance import Noise
from cogguided.pipelines.driving.frames import single_frames
from cogguided.pipelines.driving.sampler import PipelineSampler


def pixels(images):
    return np.stack([np.asarray(image).astype(int) for image in images])


@pytest.mark.parametrize("family", ["qwen_image", "sd15", "flux"])
def test_a_quick_look_shows_the_same(family):
    pipe = tiny_pipeline(family)
    pipe.set_progress_bar_config(disable=True)
    sampler = PipelineSampler(pipe, type(pipe), {**CALL[family], "num_inference_steps": 3})
    rows = sampler.advance(sampler.begin(["a cat", "a dog"], [Noise.of(0), Noise.of(1)]), 1.0)
    plain, quick = (pixels(sampler.decode(rows, quick=way)[0]) for way in (False, True))
    assert np.abs(plain - quick).max() <= 1
    if family != "qwen_image":
        assert (plain == quick).all()


def test_2d_equals_3d_and_work_is_saved():
    pipe = tiny_pipeline("qwen_image")
    latents = torch.randn(2, pipe.vae.config.z_dim, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    seen = []
    original = torch.nn.functional.conv3d

    def counted(*args, **kwargs):
        seen.append(1)
        return original(*args, **kwargs)

    torch.nn.functional.conv3d = counted
    try:
        with torch.no_grad():
            plain = pipe.vae.decode(latents).sample
            before = len(seen)
            with single_frames(pipe):
                quick = pipe.vae.decode(latents).sample
            after = len(seen) - before
            again = pipe.vae.decode(latents).sample
    finally:
        torch.nn.functional.conv3d = original
    assert torch.allclose(plain, quick, atol=1e-4)
    assert before > 0
    assert after < before / 2
    assert torch.equal(plain, again)  # everything is as it was


def test_several_frames_are_left_to_the_vae():
    pipe = tiny_pipeline("qwen_image")
    latents = torch.randn(1, pipe.vae.config.z_dim, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = pipe.vae.decode(latents).sample
        with single_frames(pipe):
            quick = pipe.vae.decode(latents).sample
    assert torch.allclose(plain, quick, atol=1e-4)
