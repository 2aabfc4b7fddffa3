"""Pipelines that work on pictures (draw over, fill in, follow an outline) are guided too."""

import numpy as np
import pytest
import torch
from comparing import pixels
from diffusers import (
    ControlNetModel,
    FluxImg2ImgPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from PIL import Image
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, Drafts, FakeScorer, Halving
from cogguided._errors import InputError, ModelError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
MASK = Image.fromarray(np.pad(np.full((16, 32), 255, np.uint8), ((0, 16), (0, 0))))


def controlled():
    base = tiny_pipeline("sd15")
    torch.manual_seed(0)
    net = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(4, 4))
    for name, weight in net.named_parameters():  # as made these are zero: the picture would change nothing
        if "controlnet" in name:
            weight.data.normal_(std=0.3)
    parts = {**base.components, "controlnet": net}
    return StableDiffusionControlNetPipeline(**parts, requires_safety_checker=False)


def of(kind, family="sd15"):
    parts = tiny_pipeline(family).components
    return kind(**parts, **({"requires_safety_checker": False} if family == "sd15" else {}))


SD = {"num_inference_steps": 4, "guidance_scale": 3.0}
FLUX = {**CALL["flux"], "num_inference_steps": 4, "strength": 0.5}
KINDS = {
    "draw over": (lambda: of(StableDiffusionImg2ImgPipeline), {"image": PICTURE, "strength": 0.75, **SD}),
    "fill in": (
        lambda: of(StableDiffusionInpaintPipeline),
        {"image": PICTURE, "mask_image": MASK, "strength": 0.75, "height": 32, "width": 32, **SD},
    ),
    "follow": (controlled, {"image": PICTURE, "height": 32, "width": 32, **SD}),
    "draw over, flux": (lambda: of(FluxImg2ImgPipeline, "flux"), {"image": PICTURE, **FLUX}),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_image_of_the_base_and_the_best_of_three(name):
    make, call = KINDS[name]
    base = make()
    base.set_progress_bar_config(disable=True)
    pipe = CogGuidedPipeline.from_pipe(base)
    expected = base("a cat", generator=torch.Generator().manual_seed(3), **call).images[0]
    assert np.array_equal(pixels(pipe("a cat", seed=3, **call).images[0]), pixels(expected))
    out = pipe(["a cat", "a dog"], seed=3, target=FakeScorer(), guidance=BestOfN(3, batch_size=3), **call)
    assert len(out.candidates) == 6
    alone = next(c for c in out.candidates if (c.prompt, c.seed) == ("a cat", 3))
    assert np.abs(pixels(alone.image) - pixels(expected)).max() <= 1
    best = max((c for c in out.candidates if c.request == 0), key=lambda c: c.score)
    assert out.chosen[0] is best
    given = {k: v for k, v in call.items() if "image" not in k}
    given |= {"image": PICTURE.rotate(90), **({"mask_image": MASK} if "fill" in name else {})}
    other = pipe("a cat", seed=3, **given)
    assert not np.array_equal(pixels(other.images[0]), pixels(expected))


def test_halving_follows_a_picture_and_says_where_it_cannot():
    make, call = KINDS["follow"]
    pipe = CogGuidedPipeline.from_pipe(make())
    out = pipe("a cat", seed=3, target=FakeScorer(), guidance=Halving(4, at=(0.5,)), **call)
    plain = pipe("a cat", seed=out.chosen[0].seed, **call).images[0]
    assert np.abs(pixels(out.images[0]) - pixels(plain)).max() <= 1
    make, call = KINDS["draw over"]
    pipe = CogGuidedPipeline.from_pipe(make())
    for guidance in (Halving(4), Drafts(4)):
        with pytest.raises(ModelError, match=r"begins from a picture, at a step of its own; use .* BestOfN"):
            pipe("a cat", seed=3, target=FakeScorer(), guidance=guidance, **call)


def test_what_is_missing_is_named():
    pipe = CogGuidedPipeline.from_pipe(of(StableDiffusionInpaintPipeline))
    with pytest.raises(InputError, match="InpaintPipeline works on pictures: give image=, mask_image="):
        pipe("a cat", **SD)
    with pytest.raises(InputError, match="one picture for all prompts as image"):
        pipe("a cat", image=[PICTURE], mask_image=MASK, guidance=BestOfN(2), target=FakeScorer(), **SD)
