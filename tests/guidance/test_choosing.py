"""Which images are kept, and how far apart they are."""

import math

import pytest
import torch
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer
from cogguided._errors import GenerationError
from cogguided.guidance.choosing import distances, keep_different, mean_distance


class Encoding(FakeScorer):
    """Tells images apart by their mean colour."""

    def encode_images(self, images):
        colours = torch.stack([torch.tensor(image.resize((1, 1)).getpixel((0, 0))).float() - 128 for image in images])
        return torch.nn.functional.normalize(colours, dim=1)


@pytest.fixture
def pipe():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target=FakeScorer())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_greedy_selection_by_hand():
    angles = torch.tensor([0.0, 0.1, 1.5, 3.0])
    features = torch.stack([angles.cos(), angles.sin()], 1)
    scores = [1.0, 0.99, 0.9, 0.0]
    assert keep_different(scores, features, 4, weight=0.0) == [0, 1, 2, 3]
    assert keep_different(scores, features, 2, weight=1.0) == [0, 2]
    assert keep_different(scores, features, 2, weight=10.0) == [0, 3]
    # the nearest counts: 85 degrees are far from 0, but hardly from 90
    angles = torch.deg2rad(torch.tensor([0.0, 90.0, 85.0, 45.0]))
    features = torch.stack([angles.cos(), angles.sin()], 1)
    assert keep_different([1.0, 0.0, 0.0, 0.0], features, 3, weight=10.0) == [0, 1, 3]


def test_vectors_that_are_not_finite_are_no_farther():
    features = torch.tensor([[1.0, 0.0], [math.nan, math.nan], [0.0, 1.0]])
    assert distances(features)[1].tolist() == [0, 0, 0]
    assert keep_different([0.5, 0.4, 0.4], features, 2) == [0, 2]
    assert mean_distance(features[:1]) is None


def test_equal_scores_and_equal_images():
    assert keep_different([0.5, 0.5, 0.5], torch.ones(3, 2) / 2**0.5, 2) == [0, 1]


def test_kept_images_differ_more_and_the_record_says_so(pipe):
    pipe._loaded_scorers["clip"] = Encoding("clip")
    plain = pipe("a cat", guidance=BestOfN(8, keep=3), seed=0, diversity=0.0, **CALL["sd15"])
    apart = pipe("a cat", guidance=BestOfN(8, keep=3), seed=0, diversity=3.0, **CALL["sd15"])
    assert "guidance" not in plain.facts
    told = apart.to_dict()["guidance"]["diversity"]["requests"][0]
    assert told["mean_distance"] >= told["mean_distance_of_the_best"]
    assert len(apart.images) == len(plain.images) == 3
    assert max(c.score for c in apart.chosen) == plain.chosen[0].score  # the best is always among them


def test_what_cannot_tell_images_apart_is_named_and_nothing_is_lost(pipe):
    pipe._loaded_scorers["clip"] = FakeScorer("clip")
    with pytest.raises(GenerationError, match="encode_images") as caught:
        pipe("a cat", guidance=BestOfN(2, keep=2), seed=0, **CALL["sd15"])
    assert len(caught.value.output.candidates) == 2
