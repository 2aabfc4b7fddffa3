"""Gradients of expected scores with respect to pixels, beside finite differences."""

import numpy as np
import pytest
import torch
from marked import EACH
from PIL import Image

from cogguided._errors import ModelError
from cogguided.scorers import load_target
from cogguided.scorers.mllm.branching import Branches, Reruns, cut_prefix
from cogguided.scorers.mllm.decoding import search_answers
from cogguided.scorers.mllm.scorer import MLLMScorer

NAMES = ("memorability", "emotional_valence")


@pytest.fixture
def scorer_of(model_folder):
    def load(family, dimension="memorability"):
        scorer = MLLMScorer.from_pretrained(model_folder(family), dimension, min_mass=0.0)
        scorer.model.double()  # so that differences of 1e-4 are not lost in rounding
        return scorer

    return load


def images(count=1, width=40, height=60):
    """Images (B, 3, H, W) that 8 bits hold exactly."""
    pixels = np.random.default_rng(1).integers(20, 235, (count, 3, height, width))
    return torch.from_numpy(pixels).float() / 255


def plain_means(scorer, pixels, like, names):
    """Means at pixels that need not fit into 8 bits: the processor's float output, moved to the 8-bit one's place."""
    core = scorer.core
    question = core.facts.dimensions[names[0]].question
    base = core.prepare([Image.fromarray(p) for p in as_bytes(like)], question)
    here, there = core.prepare(list(pixels), question), core.prepare(list(like), question)
    moved = {k: base[k] + here[k] - there[k] if here[k].is_floating_point() else base[k] for k in base}
    prefix, lengths = cut_prefix(moved, len(core.questions[names[0]]))
    branches = (Branches if core.packed else Reruns)(core.model, prefix, lengths)
    questions = {n: [core.questions[n]] * len(lengths) for n in names}
    trees = {n: core.tree(core.facts.dimensions[n]) for n in names}
    searches = search_answers(branches, questions, trees)
    return {n: [s.read().mean for s in of] for n, of in searches.items()}


def as_bytes(pixels):
    return (pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("family", EACH)
def test_the_gradient_is_that_of_finite_differences(family, scorer_of):
    names = NAMES if family == "qwen2_5_vl" else NAMES[:1]
    scorer = scorer_of(family)
    scorer.model.requires_grad_(True)
    start = images()
    pixels = start.clone().requires_grad_()
    answers = scorer.score_all(pixels, names)
    with torch.no_grad():
        exact = plain_means(scorer, start, start, names)
    for name in names:
        span = scorer.with_dimension(name).high - scorer.with_dimension(name).low
        assert answers[name].values.item() == pytest.approx(exact[name][0], abs=1e-4 * span)
        (gradient,) = torch.autograd.grad(answers[name].values.sum(), pixels, retain_graph=True)
        assert torch.isfinite(gradient).all()
        step = 3e-4 * gradient / gradient.abs().max()
        with torch.no_grad():
            up, down = (plain_means(scorer, start + s, start, names)[name][0] for s in (step, -step))
        assert (up - down) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.05)
    assert all(p.grad is None for p in scorer.model.parameters())
    assert all(p.requires_grad for p in scorer.model.parameters())


def test_a_batch_gets_the_gradients_of_its_images(scorer_of):
    scorer = scorer_of("qwen2_5_vl")
    scorer.batch_size = 2
    pixels = images(3).requires_grad_()
    (together,) = torch.autograd.grad(scorer(pixels).values.sum(), pixels)
    for row in range(3):
        one = images(3)[row : row + 1].requires_grad_()
        (alone,) = torch.autograd.grad(scorer(one).values.sum(), one)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-3, atol=1e-6)
    assert not scorer(images(1)).values.requires_grad
    with torch.no_grad():
        assert not scorer(pixels).values.requires_grad


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "mllama"])
def test_the_gradient_is_there_after_inference_mode(family, model_folder):
    """Of a scorer that was loaded and asked inside it: nothing that it keeps is barred from a graph."""
    with torch.inference_mode():
        scorer = MLLMScorer.from_pretrained(model_folder(family), "memorability", min_mass=0.0)
        inside = scorer(images().requires_grad_()).values
    gradients = []
    for one in (scorer, MLLMScorer.from_pretrained(model_folder(family), "memorability", min_mass=0.0)):
        pixels = images().requires_grad_()
        values = one(pixels).values
        torch.testing.assert_close(values.detach(), inside.clone())
        gradients.append(*torch.autograd.grad(values.sum(), pixels))
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_a_broken_image_takes_no_part(scorer_of):
    pixels = images(2)
    pixels[0] = torch.nan
    pixels.requires_grad_()
    scores = scorer_of("qwen2_5_vl")(pixels)
    assert scores.valid.tolist() == [False, True]
    (gradient,) = torch.autograd.grad(scores.values[1], pixels)
    assert (gradient[0] == 0).all()
    assert gradient[1].abs().max() > 0


def test_targets_of_several_dimensions_have_a_gradient(scorer_of):
    target = load_target("memorability=1,emotional_valence=-0.5", scorer=scorer_of("qwen2_5_vl"))
    assert target.differentiable
    pixels = images().requires_grad_()
    (gradient,) = torch.autograd.grad(target(pixels).total.sum(), pixels)
    assert gradient.abs().max() > 0


def test_greedy_scores_have_none(model_folder):
    scorer = MLLMScorer.from_pretrained(model_folder("qwen2_5_vl"), "memorability", readout="greedy")
    assert not scorer.differentiable
    assert not scorer(images().requires_grad_()).values.requires_grad


def test_a_processor_that_breaks_the_graph_is_an_error(scorer_of, monkeypatch):
    scorer = scorer_of("qwen2_5_vl")
    prepare = scorer.core.prepare

    def hard(pictures, question):
        return {k: v.detach() for k, v in prepare(pictures, question).items()}

    monkeypatch.setattr(scorer.core, "prepare", hard)
    with pytest.raises(ModelError, match="no gradient"):
        scorer(images().requires_grad_())
