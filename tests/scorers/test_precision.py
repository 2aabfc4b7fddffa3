"""A judge's score is its own: no autocast, default type or batch around it moves it."""

from contextlib import contextmanager

import pytest
import torch

from cogguided import load_scorer
from cogguided.scorers import load_target


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS = {
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "default bfloat16": lambda: default_dtype(torch.bfloat16),
}


@pytest.fixture(scope="module")
def target():
    return load_target("emotional_valence=1,clip=1")


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_score_is_the_same_in_any_surroundings(target, pictures, name):
    prompts = ["a face", "a cat", "a face"]
    expected = target(pictures, prompts)
    with SURROUNDINGS[name]():
        got = target(pictures, prompts)
        kept = torch.get_default_dtype()
    assert str(kept) == ("torch.float32" if "autocast" in name else f"torch.{name.split()[1]}")
    assert got.total.dtype == torch.float32
    assert torch.equal(got.total, expected.total)
    for term in expected.terms:
        assert torch.equal(got.terms[term].values, expected.terms[term].values)


def test_so_are_features_and_gradients(pictures):
    clip, valence = load_scorer("clip"), load_scorer("emotional_valence")
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    image = pixels.clone().requires_grad_()

    def scores():
        values = clip(image, ["a face"]).values + valence(image).values
        return values.sum(), clip.encode_images(pictures), clip.encode_texts(["a face"])

    expected = scores()
    with torch.autocast("cpu", torch.bfloat16):
        got = scores()  # the backward pass belongs outside, as torch says
    for a, b in zip(expected[1:], got[1:], strict=True):
        assert torch.equal(a, b)
    (gradient,), (other,) = torch.autograd.grad(expected[0], image), torch.autograd.grad(got[0], image)
    assert torch.equal(gradient, other)


BATCH = {torch.float32: 1e-4, torch.bfloat16: 5e-3, torch.float16: 1e-3}


@pytest.mark.parametrize("dtype", BATCH, ids=str)
def test_what_a_batch_may_move_by_type(pictures, dtype):
    """The guarantee of docs/scorers.md, in shares of the range, with the embedded judge's trained weights."""
    judge = load_scorer("emotional_valence", dtype=dtype)
    together = judge(pictures).values
    alone = torch.cat([judge([picture]).values for picture in pictures])
    moved = ((together - alone).abs().max() / (judge.high - judge.low)).item()
    assert moved <= BATCH[dtype]
    assert together.dtype == torch.float32
