"""Which of two images is better: both orders, batches, gradients, on every family."""

import numpy as np
import pytest
import torch
from marked import EACH
from test_own_questions import probability

from cogguided._errors import InputError
from cogguided.scorers import load_scorer
from cogguided.scorers.base import ComparingScorer
from cogguided.scorers.images import to_tensor

QUESTION = "Which is finer for {}?"
SPELLED = (("First", "first", "FIRST"), ("Second", "second", "SECOND"))


def reference(scorer, first, second, text):
    """P(the first is better) by plain runs of both orders."""
    found = []
    with torch.no_grad():
        for pair in ((first, second), (second, first)):
            inputs = scorer.core.prepare([pair], text)
            shares = [sum(probability(scorer, inputs, word) for word in of) for of in SPELLED]
            found.append(shares[0] / sum(shares))
    return (found[0] + 1 - found[1]) / 2, abs(found[0] - (1 - found[1])) / 2


def load(folder, **more):
    return load_scorer("mllm", model=folder, question=QUESTION, readout="pairwise", min_mass=0.0, **more)


@pytest.mark.parametrize("family", EACH)
def test_it_is_the_mean_of_both_orders_by_plain_runs(family, model_folder, pictures):
    scorer = load(model_folder(family))
    assert isinstance(scorer, ComparingScorer)
    assert (scorer.low, scorer.high, scorer.compares, scorer.needs_prompt) == (0.0, 1.0, True, True)
    first, second, prompts = pictures[:2], pictures[1:], ["a low picture", "very high"]
    scores = scorer.compare(first, second, prompts)
    for row, prompt in enumerate(prompts):
        mean, gap = reference(scorer, first[row], second[row], QUESTION.replace("{}", prompt))
        assert scores.values[row].item() == pytest.approx(mean, abs=1e-4)
        assert scores.std[row].item() == pytest.approx(gap, abs=1e-4)
    alone = scorer.compare(first[1:], second[1:], prompts[1:])
    back = scorer.compare(second[:1], first[:1], prompts[:1])
    assert alone.values.item() == pytest.approx(scores.values[1].item(), abs=1e-4)
    assert back.values.item() == pytest.approx(1 - scores.values[0].item(), abs=1e-4)


def test_the_gradient_of_both_images_is_that_of_finite_differences(model_folder):
    scorer = load(model_folder("qwen2_5_vl"))
    scorer.model.double()
    pixels = np.random.default_rng(1).integers(20, 235, (2, 3, 40, 60))
    one, other = (torch.from_numpy(p)[None].float() / 255 for p in pixels)
    one.requires_grad_()
    other.requires_grad_()
    value = scorer.compare(one, other, ["x"]).values.sum()
    gradients = torch.autograd.grad(value, (one, other))
    text = QUESTION.replace("{}", "x")
    for place, gradient in enumerate(gradients):
        assert gradient.abs().max() > 0
        step = 3e-4 * gradient / gradient.abs().max()
        sides = [[one.detach()[0], other.detach()[0]] for _ in range(2)]
        sides[0][place] = sides[0][place] + step[0]
        sides[1][place] = sides[1][place] - step[0]
        up, down = (reference(scorer, *side, text)[0] for side in sides)
        assert (up - down) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.05)


def test_what_cannot_be_compared_is_told(model_folder, pictures, tmp_path):
    scorer = load(model_folder("qwen2_5_vl"), batch_size=4)
    scores = scorer.compare([pictures[0], tmp_path / "gone.png"], [pictures[1]] * 2, ["x", "x"])
    assert scores.valid.tolist() == [True, False]
    assert "gone.png" in scores.errors[1]
    refused = scorer.compare([pictures[0].resize((1, 400)), pictures[0]], pictures[:2], ["x", "x"])
    assert refused.valid.tolist() == [False, True]
    assert "1x400" in refused.errors[0]
    strict = load(model_folder("qwen2_5_vl"))
    strict.min_mass = 0.9
    assert "min_mass=0.9" in strict.compare(pictures[:1], pictures[1:2], ["x"]).errors[0]
    with pytest.raises(InputError, match="says which of two images is better"):
        scorer(pictures, ["x"] * 3)
    with pytest.raises(InputError, match="expected pairs, got 2 and 1"):
        scorer.compare(pictures[:2], pictures[:1], ["x", "x"])
    with pytest.raises(InputError, match="pass prompts"):
        scorer.compare(pictures[:1], pictures[:1])
    assert len(scorer.compare([], [], [])) == 0


def test_a_dimension_brings_its_own_question(model_folder, pictures):
    scorer = load_scorer("memorability", model=model_folder("qwen2_5_vl"), readout="pairwise", min_mass=0.0)
    assert (scorer.name, scorer.high, scorer.needs_prompt) == ("memorability", 1.0, False)
    mean, _ = reference(scorer, *pictures[:2], scorer.facts.dimensions["memorability"].comparison)
    assert scorer.compare(pictures[:1], pictures[1:2]).values.item() == pytest.approx(mean, abs=1e-4)
    plain = load_scorer("memorability", model=model_folder("qwen2_5_vl"))
    with pytest.raises(InputError, match="load it with readout='pairwise'"):
        plain.compare(pictures[:1], pictures[1:2])
    assert not plain.compares
    same = to_tensor(pictures[:1])
    assert scorer.compare(same, same).values.item() == pytest.approx(0.5, abs=1e-5)
