"""Tournament: comparisons, what they cost, and the order that they give."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from cogguided import BestOfN, Budget, FakeScorer, Tournament
from cogguided._errors import InputError
from cogguided.guidance import Request, Run, guidance_from_dict, guidance_to_dict
from cogguided.guidance.comparing import Ranking, bradley_terry, next_pairs, win_rates
from cogguided.guidance.search.named import named_guidance
from cogguided.scorers import Scores, load_target


class Dots:
    """Draws a grey that depends on the seed alone, best at 3, and counts."""

    nfe = 0

    def sample(self, prompts, seeds):
        self.nfe += 10 * len(prompts)
        return [Image.new("L", (4, 4), 250 - 10 * ((seed - 3) % 16)).convert("RGB") for seed in seeds]


class Pairwise(FakeScorer):
    """Says which of two is lighter; `asked` are the pairs, and of those in `blind` it cannot tell."""

    compares = True

    def __init__(self, name="lighter", blind=()):
        super().__init__(name)
        self.asked, self.blind = [], blind

    def __call__(self, images, prompts=None):
        raise AssertionError("nobody asks it of one image")

    def compare(self, first, second, prompts=None):
        assert prompts == ["a cat"] * len(first)
        levels = [[float(np.asarray(image).mean()) for image in side] for side in (first, second)]
        self.asked += list(zip(*levels, strict=True))
        values = [1 / (1 + math.exp((b - a) / 10)) for a, b in zip(*levels, strict=True)]
        lost = [a in self.blind or b in self.blind for a, b in zip(*levels, strict=True)]
        return Scores(torch.tensor([math.nan if gone else v for gone, v in zip(lost, values, strict=True)]))


def run_of(scorer, budget=None, prompts=("a cat",)):
    requests = [Request(index, prompt, 0) for index, prompt in enumerate(prompts)]
    return Run(requests, Dots(), load_target(scorer), Budget.parse(budget))


def test_the_best_wins_by_few_comparisons():
    scorer = Pairwise()
    run = run_of(scorer)
    Tournament(8, keep=2)(run)
    run.finish()
    assert len(scorer.asked) == 16 == Tournament(8).total
    assert len({frozenset(pair) for pair in scorer.asked}) == 16, "no pair meets twice"
    assert [c.seed for c in sorted((c for c in run.candidates if c.chosen), key=lambda c: c.rank)] == [3, 4]
    assert run.nfe == 8 * 10 + 2 * 16
    assert all(0 < c.score < 1 and c.scores == {"lighter": c.score} and c.valid for c in run.candidates)
    told = run.facts["tournament"][0]
    assert told["comparisons"] == len(told["seeds"]) == 16
    seed, other, win = told["seeds"][0]
    greys = {c.seed: float(np.asarray(c.image).mean()) for c in run.candidates}
    assert win == pytest.approx(1 / (1 + math.exp((greys[other] - greys[seed]) / 10)), abs=1e-3)
    assert Tournament(1).total == 0


def test_less_of_it_is_a_weight_below_nothing():
    run = run_of({Pairwise(): -1})
    Tournament(6)(run)
    run.finish()
    assert next(c for c in run.candidates if c.chosen).seed == 2  # the darkest


def test_a_budget_ends_the_comparisons():
    run = run_of(Pairwise(), "100nfe")
    Tournament(8)(run)
    run.finish()
    assert run.nfe <= 100
    assert any("comparisons of 'a cat' were not made" in note for note in run.notes)
    assert sum(c.chosen for c in run.candidates) == 1


def test_a_candidate_that_cannot_be_compared_does_not_win():
    run = run_of(Pairwise(blind=(250.0,)))  # seed 3, the lightest
    Tournament(8)(run)
    run.finish()
    assert next(c for c in run.candidates if c.chosen).seed == 4
    assert [c.seed for c in run.candidates if not c.valid] == [3]
    assert "no comparison of it could be read" in run.notes[0]


def test_a_scorer_that_cannot_compare_is_refused_before_anything_is_drawn():
    for target in (FakeScorer(), {Pairwise(): 1, FakeScorer(): 1}):
        run = run_of(target)
        with pytest.raises(InputError, match="'fake' looks at one at a time: give an MLLM that is read by readout="):
            Tournament(4)(run)
        assert run.candidates == []
    with pytest.raises(InputError, match="nothing to search by"):
        Tournament(4)(Run([Request(0, "a cat", 0)], Dots()))
    with pytest.raises(InputError, match="keep=3 of n=2"):
        Tournament(2, keep=3)


def test_by_name():
    assert guidance_from_dict(guidance_to_dict(Tournament(4))) == Tournament(4)
    assert named_guidance("tournament", 6, keep=2) == [Tournament(6, keep=2)]
    assert named_guidance("best_of_n", 4) == [BestOfN(4)]


def kendall(a, b):
    signs = [np.sign(x[:, None] - x[None]) for x in (a, b)]
    count = len(a) * (len(a) - 1)
    return float((signs[0] * signs[1]).sum() / count)


def test_the_order_of_true_strengths_comes_back_from_few_noisy_comparisons():
    """16 candidates, 40 of 120 pairs, each a coin thrown by the true strengths, or a probability with noise on it."""
    found, firsts, sure = [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        true = rng.permutation(np.linspace(-4, 4, 16))
        for coins in (True, False):
            ranking, left = Ranking(16, [1.0]), Tournament(16).total
            assert left == 40

            def ask(pairs, true=true, rng=rng, coins=coins):
                gaps = np.array([true[a] - true[b] for a, b in pairs])
                chance = 1 / (1 + np.exp(-gaps))
                noisy = 1 / (1 + np.exp(-gaps - rng.normal(size=len(gaps)) / 2))
                return [(rng.random(len(gaps)) < chance).astype(float) if coins else noisy]

            while left:
                left -= ranking.meet(left, ask, rng)
            rates = ranking.rates()[0]
            if coins:
                found.append(kendall(rates, true))
                firsts.append(true[rates.argmax()])
            else:
                sure.append(kendall(rates, true))
    assert np.mean(found) > 0.7
    assert np.mean(firsts) > 3.0  # the second best has 3.5
    assert np.mean(sure) > 0.93


def test_strengths_are_the_likeliest():
    """Beside the maximum of the likelihood with its prior, by plain gradient ascent."""
    pairs, wins = [(0, 1), (1, 2), (0, 2), (3, 0)], [0.9, 0.6, 1.0, 0.3]
    strengths = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    for _ in range(600):
        gaps = torch.stack([strengths[a] - strengths[b] for a, b in pairs])
        won = torch.tensor(wins, dtype=torch.float64)
        told = (won * gaps.sigmoid().log() + (1 - won) * (-gaps).sigmoid().log()).sum()
        (slope,) = torch.autograd.grad(told - 0.05 * strengths.square().sum(), strengths)
        with torch.no_grad():
            strengths += 0.3 * slope
    np.testing.assert_allclose(bradley_terry(4, pairs, wins), strengths.detach().numpy(), atol=1e-4)
    rates = win_rates(np.array([1.0, 0.0, -1.0]))
    assert rates[0] == pytest.approx((1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(-2))) / 2)
    assert rates.sum() == pytest.approx(1.5)
    assert next_pairs(np.zeros(2), [(1, 0)], 5, np.random.default_rng(0)) == []
