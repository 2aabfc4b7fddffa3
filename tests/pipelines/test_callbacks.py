"""The user's own step callback: every step reaches it once, what it does is honoured, and it can stop."""

import numpy as np
import pytest
import torch
from comparing import pixels
from diffusers import LatentConsistencyModelPipeline, LCMScheduler
from tiny_diffusion import CALL, tiny_pipeline
from tiny_parts import byte_tokenizer, clip_config, ddim, kl_vae, unet
from transformers import CLIPTextModel

from cogguided import BestOfN, CogGuidedPipeline, Drafts, FakeScorer, Halving
from cogguided._errors import ModelError

CALLBACK = "callback_on_step_end"
GUIDANCE = {
    "plain": [],
    "best_of_n": [BestOfN(2, batch_size=2)],
    "halving": [Halving(4, at=(0.5,))],
    "drafts": [Drafts(2, steps=2, full=1)],
}


@pytest.fixture(scope="module", params=["sd15", "flux", "qwen_image"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pipe(family):
    return CogGuidedPipeline.from_pipe(tiny_pipeline(family), scorer=FakeScorer())


def test_every_step_reaches_it_once_and_is_counted_through(pipe, family):
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, len(tensors["latents"])))
        return {}

    call = {**CALL[family], "num_inference_steps": 4, CALLBACK: callback}
    out = pipe("a cat", guidance=Halving(4, at=(0.5,)), seed=0, **call)
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert seen[0][1] > seen[3][1], "fewer go on"
    plain = pipe("a cat", guidance=[], seed=next(c.seed for c in out.candidates if c.finished), **call)
    survivor = next(c for c in out.candidates if c.finished)
    assert np.array_equal(pixels(survivor.image), pixels(plain.images[0]))


def test_what_it_changes_is_carried_over_legs():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=FakeScorer())

    def callback(pipe, step, timestep, tensors):
        pipe._guidance_scale = 2.0 + step
        return {"latents": tensors["latents"] * (1.1 if step == 1 else 1.0)}

    call = {**CALL["sd15"], "num_inference_steps": 4, CALLBACK: callback}
    out = pipe("a cat", guidance=Halving(4, at=(0.5,), batch_size=1), seed=0, **call)
    survivor = next(c for c in out.candidates if c.finished)
    plain = pipe("a cat", seed=survivor.seed, guidance=[], **call).images[0]
    assert np.abs(pixels(survivor.image) - pixels(plain)).max() <= 1
    untouched = pipe("a cat", seed=survivor.seed, guidance=[], **{**call, CALLBACK: None}).images[0]
    assert np.abs(pixels(untouched) - pixels(plain)).max() > 3


def test_what_cannot_be_carried_over_is_refused():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=FakeScorer())
    call = {**CALL["sd15"], "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    call[CALLBACK] = lambda pipe, step, timestep, tensors: {"prompt_embeds": tensors["prompt_embeds"] * 2}
    with pytest.raises(ModelError, match=r"callback_on_step_end changes \['prompt_embeds'\]"):
        pipe("a cat", guidance=Halving(2, at=(0.5,)), seed=0, **call)
    pipe("a cat", guidance=BestOfN(2), seed=0, **call)


@pytest.mark.parametrize("name", GUIDANCE)
def test_it_can_stop_the_call(name):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=FakeScorer())
    calls = []

    def callback(pipe, step, timestep, tensors):
        calls.append(step)
        if len(calls) == 6 or name in ("plain", "best_of_n"):
            pipe._interrupt = True
        return {}

    call = {**CALL["sd15"], "num_inference_steps": 4, CALLBACK: callback}
    out = pipe("a cat", target=FakeScorer(), guidance=GUIDANCE[name], seed=0, **call)
    if name in ("plain", "best_of_n"):
        assert len(calls) == 1
        assert out.interrupted
        assert not any(c.finished for c in out.candidates)
    elif len(calls) >= 6:
        assert out.interrupted
    assert pipe("a cat", seed=0, **CALL["sd15"]).candidates[0].finished, "the next call is whole"


def test_a_pipeline_that_decodes_what_its_last_step_returned():
    torch.manual_seed(0)
    base = LatentConsistencyModelPipeline(
        vae=kl_vae(), text_encoder=CLIPTextModel(clip_config()), tokenizer=byte_tokenizer(),
        unet=unet(time_cond_proj_dim=8), scheduler=LCMScheduler.from_config(ddim().config), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    base.set_progress_bar_config(disable=True)
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    call = {**CALL["sd15"], "num_inference_steps": 4}
    for guidance in (Halving(4, at=(0.5,), batch_size=1), Drafts(2, steps=2, full=1)):
        out = pipe("a cat", guidance=guidance, seed=0, **call)
        best = next(c for c in out.candidates if c.finished)
        plain = base("a cat", generator=torch.Generator().manual_seed(best.seed), **call).images[0]
        assert np.abs(pixels(best.image) - pixels(plain)).max() <= 1
