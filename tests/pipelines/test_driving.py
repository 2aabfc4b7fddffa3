"""What pipelines do in their calls, and how it is met: scaled latents, batches, processors, embeddings, stages."""

import numpy as np
import pytest
import torch
from comparing import pixels
from diffusers import (
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    SCMScheduler,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
)
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, Drafts, FakeScorer, Halving
from cogguided._errors import InputError, ModelError
from cogguided.pipelines.driving.diffusion import clean_latents, noise_levels, noised, training_target
from cogguided.pipelines.driving.stopping import entry_scale
from cogguided.pipelines.loading import load_base

SMALL = CALL["sd15"]


@pytest.mark.parametrize("kind", [EDMEulerScheduler, EDMDPMSolverMultistepScheduler, SCMScheduler])
def test_clean_latents_are_those_that_the_scheduler_predicts(kind):
    scheduler = kind()
    scheduler.set_timesteps(2)
    timestep = scheduler.timesteps[0]
    level, _ = noise_levels(scheduler, timestep, 0)
    generator = torch.Generator().manual_seed(0)
    sample, output = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    found = clean_latents(scheduler, output, sample, level)
    if kind is EDMDPMSolverMultistepScheduler:
        scheduler._init_step_index(timestep)
        expected = scheduler.convert_model_output(output, sample=sample)
    else:
        told = scheduler.step(output, timestep, sample, generator=generator)
        expected = told.pred_original_sample
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", [EDMEulerScheduler, SCMScheduler])
def test_a_model_that_gives_its_target_predicts_the_clean_latents(kind):
    scheduler = kind()
    scheduler.set_timesteps(2)
    level, _ = noise_levels(scheduler, scheduler.timesteps[1], 1)
    clean, noise = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    target = training_target(scheduler, clean, noise, level)
    assert torch.allclose(clean_latents(scheduler, target, noised(clean, noise, level), level), clean, atol=1e-4)


def test_latents_that_are_changed_otherwise_than_by_a_factor_are_refused():
    drawn = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert entry_scale(drawn, drawn) == 1.0
    assert entry_scale(drawn, drawn.bfloat16()) == 1.0
    assert entry_scale(drawn, 13.0 * drawn) == pytest.approx(13.0)
    with pytest.raises(ModelError, match="BestOfN"):
        entry_scale(drawn, drawn.flip(0))


def test_attention_processors_are_those_of_before_when_a_call_is_left():
    pipe = StableDiffusionPAGPipeline(**tiny_pipeline("sd15").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    before = dict(pipe.unet.attn_processors)
    guided = CogGuidedPipeline.from_pipe(pipe, scorer=FakeScorer())
    guided("a cat", guidance=Halving(2, at=(0.5,)), seed=0, **SMALL)
    assert all(pipe.unet.attn_processors[name] is processor for name, processor in before.items())


class OneAtATime(StableDiffusionPipeline):
    """Its call fails on several prompts, as PRX's does."""

    @torch.no_grad()
    def __call__(
        self, prompt=None, height=None, width=None, num_inference_steps=2, generator=None, prompt_embeds=None,
        callback_on_step_end=None, callback_on_step_end_tensor_inputs=("latents",),
    ):  # fmt: skip
        if isinstance(prompt, list) and len(prompt) > 1:
            raise RuntimeError("The size of tensor a (2) must match the size of tensor b (8)")
        return super().__call__(prompt, height, width, num_inference_steps, generator=generator)


def test_a_call_that_takes_one_prompt_makes_images_one_by_one_and_says_so():
    base = OneAtATime(**tiny_pipeline("sd15").components, requires_safety_checker=False)
    base.set_progress_bar_config(disable=True)
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    for guidance in (BestOfN(3), Drafts(3, steps=1, full=1)):
        out = pipe("a cat", guidance=guidance, seed=5, **SMALL)
        chosen = out.chosen[0]
        alone = base("a cat", generator=torch.Generator().manual_seed(chosen.seed), **SMALL).images[0]
        assert np.abs(pixels(alone) - pixels(chosen.image)).max() <= 1
        assert any("3 prompts at once" in note and "batch_size=1" in note for note in out.notes)


@pytest.mark.parametrize(("family", "argument"), [("sd15", "prompt_embeds"), ("flux", "prompt_embeds")])
def test_embeddings_of_another_width_are_named(family, argument):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline(family))
    given = {argument: torch.zeros(1, 24, 20)}
    other = {"negative_prompt_embeds": given[argument]} if family == "sd15" else {}
    pooled = {"pooled_prompt_embeds": torch.zeros(1, 16)} if family == "flux" else {}
    with pytest.raises(InputError, match=f"^{argument}: expected 16 features a token.*got 20"):
        pipe(**given, **other, **pooled, **CALL[family])


def test_a_scheduler_without_its_package_is_a_sentence(tmp_path):
    """Diffusers' own message begins with a new line."""
    tiny_pipeline("sd15").save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "DPMSolverSDEScheduler"))
    with pytest.raises(ModelError, match="DPMSolverSDEScheduler requires the torchsde library"):
        load_base(tmp_path)


def test_noise_from_the_global_state_is_refused_half_way():
    """SD 3 gives its scheduler no generator: what an ancestral one draws, no seed tells."""
    base = tiny_pipeline("sd3")
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer(), scheduler=EulerAncestralDiscreteScheduler())
    with pytest.raises(ModelError, match=r"global state.*BestOfN"):
        pipe("a cat", guidance=Halving(2, at=(0.5,)), seed=0, **CALL["sd3"])
