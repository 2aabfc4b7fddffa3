"""CogGuidedPipeline: its arguments, its call, what it keeps and saves."""

import itertools
import json
import math

import diffusers
import numpy as np
import pytest
import torch
from comparing import generator, pixels, same
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer
from cogguided._errors import (
    GenerationError,
    InputError,
    ModelError,
    RecordError,
    UnknownNameError,
)
from cogguided.pipelines.arguments import check_text_to_image
from cogguided.scorers import Scores, register_scorer, unregister_scorer

diffusers.utils.logging.disable_progress_bar()
SD = CALL["sd15"]


@pytest.fixture(scope="module")
def base():
    return tiny_pipeline("sd15")


@pytest.fixture
def pipe(base):
    """A view of its own for each test; the weights are shared, so a test that changes them takes a copy."""
    return CogGuidedPipeline.from_pipe(base)


@pytest.fixture
def own():
    return CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"))


# ---------------------------------------------------------------------- what it is


def test_it_is_not_made_by_its_constructor():
    with pytest.raises(InputError, match="from_pretrained"):
        CogGuidedPipeline()


def test_class_tells_what_it_is(pipe, base):
    assert type(pipe).__name__ == type(base).__name__  # what diffusers writes and looks up
    assert type(pipe).__qualname__ == "CogGuidedPipeline[StableDiffusionPipeline]"
    assert type(CogGuidedPipeline.from_pipe(pipe)) is type(pipe), "a view of a view is a view of the base"


@pytest.mark.parametrize("name", ["WanPipeline", "DDPMPipeline"])
def test_other_pipelines_are_refused(name):
    with pytest.raises(ModelError, match=f"{name} is not a text-to-image pipeline"):
        check_text_to_image(getattr(diffusers, name))


def test_other_objects_are_refused():
    with pytest.raises(InputError, match="expected a diffusers pipeline, got str"):
        CogGuidedPipeline.from_pipe("embedded")


def test_from_pipe_takes_other_components(pipe, base):
    euler = EulerDiscreteScheduler.from_config(base.scheduler.config)
    view = CogGuidedPipeline.from_pipe(base, scheduler=euler)
    assert view.scheduler is euler
    assert view.config["scheduler"] == ("diffusers", "EulerDiscreteScheduler")
    assert isinstance(base.scheduler, DDIMScheduler)
    with pytest.raises(UnknownNameError, match="did you mean 'scheduler'"):
        CogGuidedPipeline.from_pipe(base, sheduler=euler)


def test_relatives_are_found(pipe):
    sketch = StableDiffusionImg2ImgPipeline.from_pipe(pipe, dtype=torch.float32)
    assert sketch.unet is pipe.unet
    assert diffusers.AutoPipelineForImage2Image.from_pipe(pipe, dtype=torch.float32).unet is pipe.unet


# ---------------------------------------------------------------------- the call


def test_unknown_arguments_name_the_nearest(pipe):
    with pytest.raises(UnknownNameError, match="did you mean 'num_inference_steps'"):
        pipe("a cat", num_inference_step=2)
    with pytest.raises(UnknownNameError, match="did you mean 'guidance'"):
        pipe("a cat", guidence=BestOfN(2))


def test_every_prompt_gets_the_same_seeds(pipe):
    out = pipe(["a cat", "a dog"], seed=4, **SD)
    assert [c.seed for c in out.candidates] == [4, 4]
    assert same(out.images[0], pipe("a cat", seed=4, **SD).images[0])


def test_guided_without_a_seed_torch_decides(pipe):
    torch.manual_seed(0)
    first, second = (pipe("a cat", guidance=BestOfN(1), **SD).candidates[0] for _ in range(2))
    torch.manual_seed(0)
    assert pipe("a cat", guidance=BestOfN(1), **SD).candidates[0].seed == first.seed != second.seed
    assert same(pipe("a cat", seed=first.seed, **SD).images[0], first.image)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1", [1, 2]])
def test_seeds_that_cannot_be(pipe, seed):
    with pytest.raises(InputError, match="seed"):
        pipe("a cat", seed=seed, **SD)


@pytest.mark.parametrize("prompt", [None, [], [3]])
def test_prompts_that_cannot_be(pipe, prompt):
    with pytest.raises(InputError, match="prompt"):
        pipe(prompt, **SD)


def test_a_generator_passes_through(pipe, base):
    out = pipe("a cat", generator=generator(7), **SD)
    assert out.candidates[0].seed == 7
    assert same(out.images[0], base("a cat", generator=generator(7), **SD).images[0])
    used = generator(7)
    torch.randn(3, generator=used)
    assert pipe("a cat", generator=used, **SD).candidates[0].seed is None
    with pytest.raises(InputError, match="not both"):
        pipe("a cat", generator=generator(7), seed=7, **SD)
    with pytest.raises(InputError, match="a text, prompt=, in place of prompt_embeds"):
        pipe(prompt_embeds=torch.zeros(1, 8, 8), guidance=BestOfN(2), **SD)
    with pytest.raises(InputError, match="seed= in place of generator"):
        pipe("a cat", generator=generator(7), guidance=BestOfN(2), **SD)


def test_several_images_per_prompt(pipe, base):
    out = pipe(["a cat", "a dog"], num_images_per_prompt=2, seed=3, **SD)
    expected = [("a cat", 3), ("a cat", 4), ("a dog", 3), ("a dog", 4)]
    assert [(c.prompt, c.seed) for c in out.chosen] == expected
    alone = base("a dog", generator=generator(4), **SD).images[0]
    assert np.abs(pixels(out.images[3]) - pixels(alone)).max() <= 1


def test_one_negative_prompt_each(pipe):
    out = pipe(["a cat", "a dog"], negative_prompt=["red", "blue"], seed=3, **SD)
    alone = pipe("a dog", negative_prompt="blue", seed=3, **SD)
    assert np.abs(pixels(out.images[1]) - pixels(alone.images[0])).max() <= 1
    with pytest.raises(InputError, match="negative_prompt"):
        pipe(["a cat", "a dog"], negative_prompt=["red", "blue"], guidance=BestOfN(2), **SD)


def test_prompt_embeddings_pass_through(pipe, base):
    embeds, negative = base.encode_prompt("a cat", "cpu", 1, True)
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    out = pipe(seed=3, **given, **SD)
    assert same(out.images[0], base("a cat", generator=generator(3), **SD).images[0])


def test_the_bases_own_output(pipe, base):
    latents = pipe("a cat", seed=3, output_type="latent", **SD).images
    assert torch.equal(latents, base("a cat", generator=generator(3), output_type="latent", **SD).images)
    assert isinstance(pipe("a cat", seed=3, return_dict=False, **SD), tuple)
    with pytest.raises(InputError, match="cannot be scored"):
        pipe("a cat", target=FakeScorer(), output_type="pt", **SD)


def test_callbacks_pass_through(pipe):
    seen = []

    def callback(pipeline, step, timestep, kwargs):
        seen.append(step)
        return kwargs

    pipe("a cat", seed=0, callback_on_step_end=callback, **SD)
    assert seen == [0, 1]


def test_scored_without_guidance(pipe):
    out = pipe(["a cat", "a dog"], target=FakeScorer(), seed=0, **SD)
    means = [pixels(image).mean() / 255 for image in out.images]
    assert [score["fake"] for score in out.scores] == pytest.approx(means, abs=1e-6)
    assert set(out.candidates[0].seconds) == {"sample", "score"}


def test_not_scored_without_a_target(pipe):
    out = pipe("a cat", seed=0, **SD)
    assert out.scores == [{}]
    assert math.isnan(out.candidates[0].score)
    assert out.candidates[0].valid


def test_output_is_diffusers_output(pipe):
    out = pipe("a cat", seed=0, **SD)
    assert out["images"] is out.images
    assert out[0] is out.images


class Interrupting(FakeScorer):
    def __call__(self, images, prompts=None):
        if self.calls == 1:
            raise KeyboardInterrupt
        return super().__call__(images, prompts)


def test_ctrl_c_returns_what_is_there(pipe, tmp_path):
    out = pipe("a cat", target=Interrupting(), guidance=BestOfN(6, batch_size=2), seed=0, **SD)
    assert out.interrupted
    assert len(out.candidates) == 4
    assert len(out.images) == 1
    assert any("interrupted" in note for note in out.notes)
    out.save(tmp_path)
    assert json.loads((tmp_path / "candidates.json").read_text())["interrupted"]


def test_ctrl_c_with_nothing_made_goes_on(pipe):
    def callback(pipeline, step, timestep, kwargs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe("a cat", guidance=BestOfN(2), callback_on_step_end=callback, seed=0, **SD)


class Blind(FakeScorer):
    def __call__(self, images, prompts=None):
        return Scores(torch.full((len(images),), math.nan), errors=["saw nothing"] * len(images))


def test_nothing_valid_is_an_error_that_loses_nothing(pipe, tmp_path):
    with pytest.raises(GenerationError, match=r"no candidate of .*a cat.*saw nothing") as caught:
        pipe("a cat", target=Blind(), guidance=BestOfN(3), seed=0, **SD)
    assert len(caught.value.output.candidates) == 3
    caught.value.output.save(tmp_path)
    assert len(list((tmp_path / "candidates").glob("*.png"))) == 3
    assert (tmp_path / "contact_sheet.png").exists()


def test_a_scorer_that_breaks_loses_nothing(pipe):
    class Broken(FakeScorer):
        def __call__(self, images, prompts=None):
            if self.calls == 2:
                raise ZeroDivisionError("a bug in a plug-in")
            return super().__call__(images, prompts)

    with pytest.raises(GenerationError, match="a bug in a plug-in") as caught:
        pipe("a cat", target=Broken(), guidance=BestOfN(4, batch_size=1), seed=0, **SD)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [c.valid for c in caught.value.output.candidates] == [True, True, False]


def test_budget(pipe):
    out = pipe("a cat", target=FakeScorer(), guidance=BestOfN(50), budget="30nfe", seed=0, **SD)
    assert 1 < len(out.candidates) <= 6  # two steps with guidance and a score: five evaluations each
    assert out.nfe <= 30


# ---------------------------------------------------------------------- target, scorer, guidance


def test_target_scorer_and_guidance_stay(base):
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer(), guidance=BestOfN(2))
    assert len(pipe("a cat", seed=0, **SD).candidates) == 2
    assert len(pipe("a cat", seed=0, guidance=BestOfN(3), **SD).candidates) == 3
    assert len(pipe("a cat", seed=0, guidance=[], **SD).candidates) == 1
    pipe.guidance = None
    pipe.target = {"fake": -1}
    assert pipe("a cat", seed=0, **SD).candidates[0].score < 0
    view = CogGuidedPipeline.from_pipe(pipe, guidance=BestOfN(2))
    assert view.target == {"fake": -1}
    assert pipe.guidance == []


def test_scorers_are_loaded_once(base):
    made = []

    def factory(high=1.0):
        made.append(FakeScorer("counted", high=high))
        return made[-1]

    register_scorer("counted", factory)
    try:
        pipe = CogGuidedPipeline.from_pipe(base, target="counted=2")
        for _ in range(3):
            pipe("a cat", seed=0, **SD)
        assert len(made) == 1
        pipe.scorer = {"counted": {"high": 2.0}}
        assert pipe.load_target().terms[0].scorer.high == 2.0
    finally:
        unregister_scorer("counted")


def test_a_saved_target_may_need_arguments(base, tmp_path):
    target, scorer = {"fake": -0.5}, {"fake": {"low": -1.0, "high": 3.0}}
    CogGuidedPipeline.from_pipe(base, target=target, scorer=scorer).save_pretrained(tmp_path)
    pipe = CogGuidedPipeline.from_pretrained(tmp_path)
    term = pipe.load_target().terms[0]
    assert (term.weight, term.scorer.low, term.scorer.high) == (-0.5, -1.0, 3.0)


def test_an_object_cannot_be_saved_by_name(base, tmp_path):
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    with pytest.raises(InputError, match=r"register_scorer.*pipe\.scorer = None"):
        pipe.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_call_defaults_hold_unless_given(base, tmp_path):
    base.save_pretrained(tmp_path)
    (tmp_path / "cogguided.json").write_text(json.dumps({"version": 1, "call_defaults": SD}))
    pipe = CogGuidedPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    out = pipe("a cat", seed=0)
    assert out.images[0].size == (16, 16)
    assert out.facts["call"]["arguments"] == SD
    assert pipe("a cat", seed=0, height=32).images[0].size == (16, 32)


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("{", RecordError, "cogguided.json"),
        ('{"version": 99}', RecordError, "version 99"),
        ('{"version": 1, "call_defaults": {"hight": 16}}', UnknownNameError, "did you mean 'height'"),
        ('{"version": 1, "guidance": [{"name": "best"}]}', UnknownNameError, "best_of_n"),
    ],
)
def test_settings_that_do_not_fit(base, tmp_path, text, error, match):
    base.save_pretrained(tmp_path)
    (tmp_path / "cogguided.json").write_text(text)
    with pytest.raises(error, match=match):
        CogGuidedPipeline.from_pretrained(tmp_path)


# ---------------------------------------------------------------------- what is told, and what is refused


def test_local_files_that_are_not_there():
    with pytest.raises(ModelError, match=r"'./nowhere': no such folder"):
        CogGuidedPipeline.from_pretrained("./nowhere")
    with pytest.raises(ModelError, match="'embeded' cannot be loaded") as caught:
        CogGuidedPipeline.from_pretrained("embeded", local_files_only=True)
    assert caught.value.__cause__ is not None


def test_a_prompt_that_a_judge_does_not_read_to_the_end_is_noted(own):
    out = own("a" + " cat" * 40, target="clip", seed=0, **SD)
    assert any("is not seen" in note for note in out.notes)


def test_a_scorer_of_the_users_own_is_not_taken_for_the_embedded_one(own):
    mine = FakeScorer(name="memorability")
    assert not any("embedded" in note for note in own("a cat", target=mine, seed=0, **SD).notes)
    assert any("embedded" in note for note in own("a cat", target="memorability", seed=0, **SD).notes)


@pytest.mark.parametrize("guidance", [[], [BestOfN(2)]])
@pytest.mark.parametrize("seed", [None, 3])
def test_repeated_prompts_are_not_copies(own, guidance, seed):
    out = own(["a cat"] * 3, target=FakeScorer(), guidance=guidance, seed=seed, **SD)
    seeds = [c.seed for c in out.candidates]
    if guidance or seed is not None:  # else torch's global state draws them, in one batch
        assert len(set(seeds)) == len(seeds)
    assert not any(same(a, b) for a, b in itertools.combinations(out.images, 2))
    if seed is not None:
        assert same(own("a cat", seed=3, target=FakeScorer(), guidance=guidance, **SD).images[0], out.images[0])


@pytest.mark.parametrize("guidance", [[], [BestOfN(2)]])
def test_half_a_character_in_a_prompt_is_one_sentence(own, guidance):
    with pytest.raises(InputError, match=r"prompt: character 7 is half of one \('\\ud83d', a lone surrogate\)"):
        own("a cat \ud83d", target=FakeScorer(), guidance=guidance, seed=0, **SD)
