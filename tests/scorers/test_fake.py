import pytest
import torch
from PIL import Image

from cogguided._errors import InputError
from cogguided.scorers import FakeScorer


def test_brightness_of_pictures_of_different_sizes():
    scorer = FakeScorer()
    scores = scorer([Image.new("L", (2, 3), 255), Image.new("RGB", (5, 4)), "missing.png"])
    assert scores.values[:2].tolist() == [1.0, 0.0]
    assert scores.valid.tolist() == [True, True, False]
    assert "missing.png" in scores.errors[2]
    assert (scorer.calls, scorer.num_scored) == (1, 3)


def test_gradients_reach_the_images():
    images = torch.full((2, 3, 2, 2), 0.5, requires_grad=True)
    FakeScorer()(images).values.sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, 1 / 12))
    assert not FakeScorer(differentiable=False)(images).values.requires_grad


def test_a_function_that_fails_on_one_image():
    scorer = FakeScorer(fn=lambda pixels: pixels.mean(dim=(1, 2, 3)).log() * 0)
    scores = scorer(torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)]))
    assert scores.valid.tolist() == [False, True]


def test_prompts_and_range():
    with pytest.raises(InputError, match="prompts"):
        FakeScorer(needs_prompt=True)(torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError):
        FakeScorer(low=1.0, high=1.0)
    assert len(FakeScorer()([])) == 0
