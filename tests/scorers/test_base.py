import pytest
import torch

from cogguided._errors import InputError
from cogguided.scorers import FakeScorer, Scorer, Scores
from cogguided.scorers.base import check_prompts

NAN = float("nan")


def test_valid_follows_from_values():
    scores = Scores(torch.tensor([1.0, NAN]), labels=["low", None], errors=[None, "broken"])
    assert scores.valid.tolist() == [True, False]
    assert scores.num_invalid == 1
    assert scores.values.dtype == torch.float32


@pytest.mark.parametrize(
    "fields",
    [
        {"values": torch.tensor([[1.0]])},
        {"values": torch.tensor([1])},
        {"values": torch.tensor([torch.inf])},
        {"values": torch.tensor([1.0, NAN]), "valid": torch.tensor([True, True])},
        {"values": torch.tensor([1.0, 2.0]), "valid": torch.tensor([True, False])},
        {"values": torch.tensor([1.0]), "std": torch.tensor([1.0, 2.0])},
        {"values": torch.tensor([1.0]), "mass": torch.tensor([1.0, 2.0])},
        {"values": torch.tensor([1.0]), "labels": []},
        {"values": torch.tensor([NAN]), "errors": [None]},
        {"values": torch.tensor([1.0]), "errors": ["why?"]},
    ],
)
def test_contradictory_scores_are_refused(fields):
    with pytest.raises(InputError):
        Scores(**fields)


def test_cat_keeps_order_and_fills_what_a_part_lacks():
    first = Scores(torch.tensor([1.0, NAN]), errors=[None, "broken"])
    second = Scores(torch.tensor([NAN, 2.0]), std=torch.tensor([NAN, 0.5]), labels=[None, "low"])
    joined = Scores.cat([first, second])
    torch.testing.assert_close(joined.values, torch.tensor([1.0, NAN, NAN, 2.0]), equal_nan=True)
    torch.testing.assert_close(joined.std, torch.tensor([NAN, NAN, NAN, 0.5]), equal_nan=True)
    assert joined.labels == [None, None, None, "low"]
    assert joined.errors == [None, "broken", "not valid", None]
    assert joined.mass is None
    assert len(Scores.cat([])) == 0


def test_cpu_keeps_gradients():
    values = torch.ones(2, requires_grad=True)
    Scores(values).cpu().values.sum().backward()
    assert values.grad.tolist() == [1.0, 1.0]


def test_any_object_with_the_interface_is_a_scorer():
    class Plain:
        name, low, high, differentiable, needs_prompt = "plain", 0.0, 1.0, False, False

        def __call__(self, images, prompts=None):
            return Scores(torch.zeros(len(images)))

        def to(self, device):
            return self

    assert isinstance(Plain(), Scorer)
    assert isinstance(FakeScorer(), Scorer)
    assert not isinstance(lambda images: None, Scorer)


@pytest.mark.parametrize("prompts", [None, "a cat", ["a cat", "a dog"]])
def test_wrong_prompts_are_refused(prompts):
    with pytest.raises(InputError, match="prompts"):
        check_prompts(prompts, 1, "clip")
