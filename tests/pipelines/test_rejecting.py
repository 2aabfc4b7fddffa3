"""A picture that is black because it was flagged, or because of NaN, is no candidate where the target likes dark."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.deepfloyd_if import IFPipelineOutput
from PIL import Image
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, Drafts, FakeScorer, Halving
from cogguided._errors import GenerationError
from cogguided.guidance.types import REJECTED
from cogguided.pipelines.driving.rejecting import mark_rejected

DARK = FakeScorer(name="darkness", fn=lambda pixels: 1 - pixels.mean(dim=(1, 2, 3)))
GUIDANCE = [BestOfN(3, batch_size=3), Halving(3, at=(0.5,)), Drafts(3, steps=2, full=2)]
SD = {**CALL["sd15"], "num_inference_steps": 4}


class Flagging(StableDiffusionPipeline):
    """Blackens the first image of every batch, as a safety checker does."""

    first = True

    def run_safety_checker(self, image, device, dtype):
        flags = [self.first and place == 0 for place in range(len(image))]
        blackened = [torch.zeros_like(row) if flag else row for row, flag in zip(image, flags, strict=True)]
        return torch.stack(blackened), flags


@pytest.fixture
def flagging():
    base = tiny_pipeline("sd15")
    pipe = Flagging(**base.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return CogGuidedPipeline.from_pipe(pipe)


@pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: g.name)
def test_a_flagged_image_never_wins(flagging, guidance):
    out = flagging("a cat", target=DARK, guidance=guidance, seed=0, **SD)
    flagged = [c for c in out.candidates if not np.asarray(c.image).any()]
    assert flagged
    assert not any(c.valid or c.chosen for c in flagged)
    assert all("nsfw_content_detected" in c.error for c in flagged)
    assert np.asarray(out.images[0]).any()
    assert any("safety checker" in note for note in out.notes)


def test_unguided_with_a_target_and_without(flagging):
    with pytest.raises(GenerationError, match="safety checker"):
        flagging("a cat", target=DARK, seed=0, **SD)
    out = flagging("a cat", seed=0, **SD)
    assert any("safety checker" in note for note in out.notes)
    assert out.images
    assert out.base_output == [{"nsfw_content_detected": True}]


@pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: g.name)
def test_what_the_base_says_of_each_image_is_kept_and_recorded(flagging, guidance, tmp_path):
    out = flagging("a cat", target=DARK, guidance=guidance, seed=0, **SD)
    for candidate in out.candidates:
        black = not np.asarray(candidate.image).any()
        assert candidate.base_output == {"nsfw_content_detected": black}
    assert out.base_output == [{"nsfw_content_detected": False}]
    out.save(tmp_path)
    record = json.loads((tmp_path / "candidates.json").read_text())
    assert [c["base_output"] for c in record["candidates"]] == [c.base_output for c in out.candidates]


def test_deepfloyd_says_it_by_another_name():
    """`nsfw_detected` and `watermark_detected` of `IFPipelineOutput`; a value for all images stands at each."""
    pictures = [Image.new("RGB", (1, 1)) for _ in range(2)]
    output = IFPipelineOutput(images=pictures, nsfw_detected=[False, np.bool_(True)], watermark_detected=None)
    mark_rejected(pictures, output, [])
    assert REJECTED not in pictures[0].info
    assert "nsfw_detected" in pictures[1].info[REJECTED]


@pytest.mark.parametrize("family", ["sd15", "qwen_image"])
@pytest.mark.parametrize("guidance", GUIDANCE[:2], ids=lambda g: g.name)
def test_an_image_of_nan_never_wins(family, guidance):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline(family))
    decode = pipe.vae.decode

    def broken(latents, *args, **kwargs):
        out = decode(latents, *args, **kwargs)
        sample = out[0] if isinstance(out, tuple) else out.sample
        if len(sample) > 1:
            sample[0] = torch.nan
        return out

    pipe.vae.decode = broken
    with np.errstate(invalid="ignore"):
        out = pipe("a cat", target=DARK, guidance=guidance, seed=0, **{**CALL[family], "num_inference_steps": 4})
    bad = [c for c in out.candidates if c.error]
    assert bad
    assert all("not finite" in c.error and not c.valid for c in bad)
