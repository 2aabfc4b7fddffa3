"""The score of the predicted clean image in real calls of diffusers' pipelines, and ending early."""

import numpy as np
import pytest
import torch
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import CogGuidedPipeline, FakeScorer
from cogguided._errors import InputError
from cogguided.integrations import ScoreCallback


def call(pipe, family, **arguments):
    settings = {**CALL[family], "num_inference_steps": 4, "generator": torch.Generator().manual_seed(0)}
    return pipe("a cat", **settings, **arguments).images[0]


def size(family):
    return {name: value for name, value in CALL[family].items() if name in ("height", "width")}


@pytest.fixture(scope="module", params=["sd15", "sdxl", "flux", "qwen_image"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pipe(family):
    return tiny_pipeline(family)


def test_it_watches_each_step_changes_nothing_and_ends_with_the_image(pipe, family):
    plain = call(pipe, family)
    before = dict(vars(pipe.scheduler))
    with ScoreCallback(pipe, FakeScorer("light"), **size(family)) as watch:
        image = call(pipe, family, callback_on_step_end=watch)
    assert np.array_equal(np.asarray(image), np.asarray(plain))
    assert [step for step, _ in watch.history] == [0, 1, 2, 3]
    totals = [float(scores.total) for _, scores in watch.history]
    assert totals[-1] == pytest.approx(float(FakeScorer()([plain]).values), abs=0.02)
    assert len(set(totals)) > 1
    assert before.keys() == vars(pipe.scheduler).keys()


def test_it_ends_early_with_the_clean_image(pipe, family):
    with ScoreCallback(pipe, FakeScorer(), stop=lambda step, scores: step == 1, **size(family)) as watch:
        image = call(pipe, family, callback_on_step_end=watch)
    assert [step for step, _ in watch.history] == [0, 1]
    assert float(FakeScorer()([image]).values) == pytest.approx(float(watch.history[-1][1].total), abs=2e-3)


def test_every_other_step_in_a_guided_pipeline(pipe, family):
    guided = CogGuidedPipeline.from_pipe(pipe)
    with ScoreCallback(guided, FakeScorer(), every=2, **size(family)) as watch:
        call(guided, family, callback_on_step_end=watch)
    assert [step for step, _ in watch.history] == [1, 3]


def test_outside_its_context_it_says_so(pipe, family):
    watch = ScoreCallback(pipe, FakeScorer())
    with pytest.raises(InputError, match="inside its context"):
        call(pipe, family, callback_on_step_end=watch)
    with pytest.raises(InputError, match="every"):
        ScoreCallback(pipe, FakeScorer(), every=0)
