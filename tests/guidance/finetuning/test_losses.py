"""The losses and what images count, against derivations by hand."""

import math

import pytest
import torch

from cogguided.guidance.finetuning import FinetuneConfig, denoising_error, dpo_loss, nft_loss, weighted_loss
from cogguided.guidance.finetuning.objectives.advantages import (
    best_and_worst,
    exponential_weights,
    group_advantages,
    optimality,
    top_weights,
)
from cogguided.guidance.finetuning.objectives.methods import Part, part_loss, parts_of


def test_weighted_loss_is_the_weighted_mean_square():
    output = torch.tensor([[[1.0, 2.0]], [[0.0, 1.0]]])
    target = torch.tensor([[[0.0, 0.0]], [[0.0, 3.0]]])
    # (1 + 4) / 2 = 2.5 and (0 + 4) / 2 = 2
    assert weighted_loss(output, target, torch.tensor([2.0, 0.5])).tolist() == [5.0, 1.0]


def test_nft_by_hand():
    # old 1, output 2, target 4, beta 0.5: toward = 0.5 * 1 + 0.5 * 2 - 4 = -2.5, away = 1.5 * 1 - 0.5 * 2 - 4 = -3.5
    old, output, target = (torch.full((1, 4), v) for v in (1.0, 2.0, 4.0))
    loss = nft_loss(output, old, target, torch.tensor([0.75]), beta=0.5)
    assert loss.item() == pytest.approx(0.75 * 2.5**2 / 2.5 + 0.25 * 3.5**2 / 3.5)


@pytest.mark.parametrize("good", [0.0, 0.25, 0.5, 1.0])
def test_the_gradient_of_nft_goes_toward_good_images_and_away_from_bad_ones(good):
    # at output = old: d/d output = 2 beta (2 r - 1) (old - target) / (D mean|old - target|), by hand
    torch.manual_seed(0)
    old, target, beta = torch.randn(1, 6), torch.randn(1, 6), 0.7
    output = old.clone().requires_grad_()
    nft_loss(output, old, target, torch.tensor([good]), beta).sum().backward()
    error = old - target
    expected = 2 * beta * (2 * good - 1) * error / (6 * error.abs().mean())
    assert torch.allclose(output.grad, expected, atol=1e-6)


def test_dpo_by_hand():
    loss = dpo_loss(*(torch.tensor([v]) for v in (0.2, 0.9, 0.3, 0.7)), beta=2.0)
    # margin (0.2 - 0.3) - (0.9 - 0.7) = -0.3; -log sigmoid(0.6)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.6)))


def test_advantages_are_within_prompts_and_leave_unread_scores_out():
    scores = torch.tensor([[1.0, 2.0, 3.0, math.nan], [5.0, 5.0, 5.0, 5.0]])
    # squared differences 1, 0, 1 and four zeros: spread sqrt(2 / 7); within the first prompt sqrt(2 / 3)
    assert group_advantages(scores)[0, 2].item() == pytest.approx(1 / math.sqrt(2 / 7))
    within = group_advantages(scores, "within")
    assert within[0, 2].item() == pytest.approx(1 / math.sqrt(2 / 3))
    assert within[0, 3].isnan()
    assert within[1].tolist() == [0.0] * 4
    # an image alone has nothing to differ from: it is 0, and the others' spread is as if it were not there
    alone = group_advantages(torch.tensor([[1.0, 3.0], [5.0, math.nan]]))
    torch.testing.assert_close(alone, torch.tensor([[-1.0, 1.0], [0.0, math.nan]]), equal_nan=True)


def test_weights_have_mean_one_over_what_was_read():
    gained = torch.tensor([[1.0, -1.0, math.nan], [0.0, 2.0, -2.0]])
    weights = exponential_weights(gained, 0.5)
    assert weights[0, 2] == 0
    assert weights.sum().item() == pytest.approx(5.0)
    assert (weights[0, 0] / weights[0, 1]).item() == pytest.approx(math.exp(2 / 0.5), rel=1e-4)
    top = top_weights(gained, 0.4)
    # one of the two that were read, two of three: 5 / 3 each
    assert torch.allclose(top, torch.tensor([[5 / 3, 0, 0], [5 / 3, 5 / 3, 0]]))


def test_optimality_is_a_probability():
    assert optimality(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0]), clip=2.0).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_pairs_need_a_difference():
    gained = torch.tensor([[0.1, 0.4, -0.5, math.nan], [0.0, 0.0, 0.0, 0.0]])
    assert best_and_worst(gained, pairs=3) == [(0, 1, 2)]


@pytest.mark.parametrize("method", ["rwr", "nft", "dpo"])
def test_unread_scores_are_never_trained_on(method):
    scores = torch.tensor([[0.1, math.nan, 0.9, 0.4]])
    parts = parts_of(scores, FinetuneConfig(method=method))
    assert 1 not in {row for part in parts for row in part.rows}
    assert parts


@pytest.mark.parametrize("method", ["rwr", "nft", "dpo"])
def test_small_parts_add_up_to_large_ones(method):
    torch.manual_seed(0)
    scores = torch.rand(2, 8)
    output, target, old, reference = torch.randn(4, 2, 8, 5)

    def total(micro_batch):
        config = FinetuneConfig(method=method, micro_batch=micro_batch, pairs=4, reference_weight=0.1)
        found = 0.0
        for part in parts_of(scores, config):
            rows = list(part.rows)
            found += part_loss(config, part, *(t[part.group, rows] for t in (output, target, old, reference))).item()
        return found

    assert total(8) == pytest.approx(total(2), rel=1e-5)


def test_the_reference_term_pulls_back():
    config = FinetuneConfig(method="rwr", reference_weight=2.0)
    part = Part(0, (0,), (0.0,))
    zero, one = torch.zeros(1, 3), torch.ones(1, 3)
    assert part_loss(config, part, one, zero, None, zero).item() == pytest.approx(2.0)


def test_errors_are_in_float32():
    half = torch.full((1, 4), 300.0, dtype=torch.float16)
    assert denoising_error(half, torch.zeros_like(half)).item() == pytest.approx(90000.0)


@pytest.mark.parametrize("method", ["rwr", "nft", "dpo"])
def test_a_prompt_whose_images_score_alike_teaches_nothing(method):
    config = FinetuneConfig(method=method)
    scores = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.1, 0.9, 0.4, math.nan], [0.3, math.nan, math.nan, math.nan]])
    assert {part.group for part in parts_of(scores, config)} == {1}
    assert parts_of(torch.full((2, 4), 0.7), config) == []


def test_best_of_a_constant_reward_is_nothing_either():
    assert parts_of(torch.full((2, 4), 0.7), FinetuneConfig(method="rwr", top=0.5)) == []
