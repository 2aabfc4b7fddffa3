"""Eight families of diffusers pipelines, none of which the package knows by name."""

import diffusers
import numpy as np
import pytest
from comparing import generator, pixels
from diffusers import DiffusionPipeline
from tiny_diffusion import CALL, FAMILIES, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer, replay
from cogguided.pipelines import CUSTOM_PIPELINE

diffusers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def base(family):
    return tiny_pipeline(family)


@pytest.fixture(scope="module")
def pipe(base):
    return CogGuidedPipeline.from_pipe(base)


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    """The pipeline saved with a target and guidance."""
    where = tmp_path_factory.mktemp("saved")
    CogGuidedPipeline.from_pipe(base, target="fake", guidance=BestOfN(2)).save_pretrained(where)
    return where


def test_same_seed_gives_the_base_image(base, pipe, family):
    expected = base("a cat", generator=generator(3), **CALL[family]).images[0]
    out = pipe("a cat", seed=3, **CALL[family])
    assert np.array_equal(pixels(out.images[0]), pixels(expected))
    assert (out.candidates[0].seed, out.candidates[0].prompt) == (3, "a cat")
    assert pixels(expected).std() > 5, "the tiny model draws nothing"


def test_a_batch_equals_single_runs(pipe, family):
    prompts, seeds = ["a cat", "a long dog", "a cat"], [0, 1, 2]
    batch = pipe(prompts, seed=seeds, output_type="np", **CALL[family]).images
    for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        single = pipe(prompt, seed=seed, output_type="np", **CALL[family]).images[0]
        assert np.abs(batch[i] - single).max() <= 1e-5
    assert np.abs(batch[0] - batch[2]).max() > 0.1, "seeds make no difference"


def test_best_of_n_contains_the_base_images(base, family):
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    out = pipe(["a cat", "a dog"], guidance=BestOfN(3, batch_size=4), seed=5, **CALL[family])
    assert [(c.request, c.seed) for c in out.candidates] == [(r, s) for s in (5, 6, 7) for r in (0, 1)]
    for candidate in out.candidates:
        alone = base(candidate.prompt, generator=generator(candidate.seed), **CALL[family]).images[0]
        assert np.abs(pixels(alone) - pixels(candidate.image)).max() <= 1
        assert candidate.scores["fake"] == pytest.approx(pixels(candidate.image).mean() / 255, abs=1e-6)
    for request, image in enumerate(out.images):
        mine = [c for c in out.candidates if c.request == request]
        assert image is max(mine, key=lambda c: c.score).image
    assert out.scores == [c.scores for c in out.chosen]


def test_from_pipe_shares_every_weight(base, pipe):
    assert isinstance(pipe, type(base))
    assert isinstance(pipe, CogGuidedPipeline)
    assert pipe.components.keys() == base.components.keys()
    for name, component in base.components.items():
        assert pipe.components[name] is component
    assert dict(pipe.config) == dict(base.config)


def test_saved_folder_comes_back_and_opens_in_plain_diffusers(base, family, folder):
    expected = pixels(base("a cat", generator=generator(3), **CALL[family]).images[0])
    plain = DiffusionPipeline.from_pretrained(folder)
    assert type(plain) is type(base)
    plain.set_progress_bar_config(disable=True)
    assert np.array_equal(pixels(plain("a cat", generator=generator(3), **CALL[family]).images[0]), expected)
    ours = CogGuidedPipeline.from_pretrained(folder)
    assert (ours.target, ours.guidance) == ("fake", [BestOfN(2)])
    ours.set_progress_bar_config(disable=True)
    out = ours("a cat", seed=3, **CALL[family])
    assert [c.seed for c in out.candidates] == [3, 4]
    assert np.abs(pixels(out.candidates[0].image) - expected).max() <= 1


def test_custom_pipeline_in_plain_diffusers(base, family, folder):
    load = {"custom_pipeline": CUSTOM_PIPELINE, "trust_remote_code": True}
    pipe = DiffusionPipeline.from_pretrained(folder, **load)
    assert isinstance(pipe, type(base))
    assert (pipe.target, pipe.guidance) == ("fake", [BestOfN(2)])
    pipe.set_progress_bar_config(disable=True)
    out = pipe("a cat", seed=3, guidance=[], **CALL[family])
    expected = base("a cat", generator=generator(3), **CALL[family]).images[0]
    assert np.array_equal(pixels(out.images[0]), pixels(expected))
    assert out.scores[0].keys() == {"fake"}


def test_replay_is_exact(family, folder, tmp_path):
    pipe = CogGuidedPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    out = pipe(["a cat", "a dog"], guidance=BestOfN(3, batch_size=4), seed=1, **CALL[family])
    out.save(tmp_path)
    for index in (0, 3, 5):
        again = replay(tmp_path / "candidates.json", index)
        assert again.same, again.differences
        assert again.differences == []
        assert np.array_equal(pixels(again.image), pixels(out.candidates[index].image))


def test_evaluations_are_counted(pipe, family):
    out = pipe("a cat", seed=0, **CALL[family])
    guided = 1 if family == "flux" else 2  # flux's own guidance is distilled: one pass
    assert out.nfe == guided * 2  # two steps
