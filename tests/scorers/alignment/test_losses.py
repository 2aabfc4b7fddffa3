import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cogguided._errors import InputError
from cogguided.scorers.alignment.soft_labels import (
    AnswerSpace,
    Step,
    answer_steps,
    digit_probs,
    draw_number,
    number_probs,
    one_hot,
    token_steps,
    with_values,
)
from cogguided.scorers.alignment.training.losses import Targets, answer_loss, expected_value, soft_cross_entropy
from cogguided.scorers.dimensions import DIMENSIONS

VOCAB = 128
TEN = replace(DIMENSIONS["aesthetics"], decimals=2)  # with three, listing all answers takes long


def spell(texts):
    return [[ord(character) for character in text] for text in texts]


def grouped(texts):
    """Tokens of up to three digits, as Llama has them: 200 + 1000 * length + number; letters as they are."""
    found = []
    for text in texts:
        tokens, digits = [], ""
        for character in [*text, ""]:
            if character.isdigit() and len(digits) < 3:
                digits += character
                continue
            if digits:
                tokens.append(200 + 1000 * len(digits) + int(digits))
            digits = character if character.isdigit() else ""
            if character and not character.isdigit():
                tokens.append(ord(character))
        found.append(tokens)
    return found


@pytest.fixture(scope="module")
def space():
    return AnswerSpace.of(spell, TEN)


DIGITS = {ord(str(digit)): digit for digit in range(10)}
DIGIT_IDS = list(DIGITS)


def paper_loss(logits, tokens, eta, digit_weight):
    """The paper's formula token by token and digit by digit, in plain Python floats."""
    total = 0.0
    for row, token in zip(logits.double(), tokens, strict=True):
        logprobs = (row - torch.logsumexp(row, 0)).tolist()
        if token not in DIGITS:
            total -= logprobs[token]
            continue
        c = DIGITS[token]
        m = max(c, 9 - c)
        psi = [m - abs(k - c) for k in range(10)]
        for k in range(10):
            q = (1 - eta) * (k == c) + eta * psi[k] / sum(psi)
            total -= digit_weight * q * logprobs[DIGIT_IDS[k]]
    return total / len(tokens)


def test_the_triangular_loss_is_the_paper_s():
    torch.manual_seed(0)
    for text in ("medium 5.577", "very high 10.000", "negative -1.362"):
        (tokens,) = spell([text])
        logits = 3 * torch.randn(len(tokens), VOCAB)
        steps = token_steps(tokens, DIGITS, 0.15, 2.0, DIGIT_IDS)
        targets = Targets.stack([steps], [0.0], [0.0], [(0.0, 10.0)])
        ours = answer_loss(logits, targets).item()
        assert ours == pytest.approx(paper_loss(logits, tokens, 0.15, 2.0), abs=1e-5)


def test_a_case_by_hand():
    # c = 0: m = 9, psi = 9, 8, ..., 0, sum 45. All tokens equally likely: the loss is log 20 whatever q is.
    np.testing.assert_allclose(digit_probs(0, 0.45), 0.55 * np.eye(10)[0] + np.arange(9, -1, -1) / 100)
    # c = 4: m = 5, psi = 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, sum 25
    np.testing.assert_allclose(digit_probs(4, 1.0), np.array([1, 2, 3, 4, 5, 4, 3, 2, 1, 0]) / 25)
    logits = torch.zeros(2, 20)
    whole = token_steps([15, 42, 4], {4: 4}, 0.15, 2.0, range(10), several={42})  # a letter, two digits, one
    assert [step.weight for step in whole] == [1.0, 2.0, 2.0]
    assert [len(step.tokens) for step in whole] == [1, 1, 10]
    steps = token_steps([15, 4], {4: 4}, 0.15, 2.0, range(10))  # one letter, one digit
    targets = Targets.stack([steps], [0.0], [0.0], [(0.0, 10.0)])
    assert answer_loss(logits, targets).item() == pytest.approx((1 + 2) / 2 * math.log(20), abs=1e-5)


def test_eta_0_is_weighted_cross_entropy():
    torch.manual_seed(1)
    (tokens,) = spell(["high 7.218"])
    logits = torch.randn(len(tokens), VOCAB)
    targets = Targets.stack([token_steps(tokens, DIGITS, 0.0, 1.0, DIGIT_IDS)], [0.0], [0.0], [(0.0, 10.0)])
    expected = F.cross_entropy(logits, torch.tensor(tokens))
    torch.testing.assert_close(answer_loss(logits, targets), expected)


def brute_force_children(encode, dim, score, std, told):
    """The conditional distribution of every next token of an answer, by listing all answers."""
    answers = [dim.answer(float(number)) for number in dim.numbers()]
    weights = number_probs(np.array([float(number) for number in dim.numbers()]), score, std)
    written = encode(answers)
    wanted = written[told]
    for place in range(len(wanted)):
        mass: dict[int, float] = {}
        for tokens, weight in zip(written, weights, strict=True):
            if tokens[:place] == wanted[:place] and len(tokens) > place:
                mass[tokens[place]] = mass.get(tokens[place], 0.0) + weight
        total = sum(mass.values())
        yield {token: value / total for token, value in mass.items()}


@pytest.mark.parametrize(
    ("encode", "dim"),
    [
        (grouped, TEN),
        (spell, TEN),
        (spell, replace(DIMENSIONS["emotional_valence"], decimals=2)),
        (grouped, DIMENSIONS["memorability"]),
    ],
)
def test_targets_over_answers_are_those_of_listing_all_answers(encode, dim):
    space = AnswerSpace.of(encode, dim)
    for part, std in ((0.0, 0.02), (0.5, 0.05), (0.7, 0.2), (1.0, 0.1)):
        score = dim.low + part * (dim.high - dim.low)
        told = space.index(score)
        assert space.values[told] == pytest.approx(score, abs=0.005)
        steps = answer_steps(space, score, std * (dim.high - dim.low), told)
        assert [int(s.tokens[s.told]) for s in steps] == encode([dim.answer(score)])[0]
        expected = brute_force_children(encode, dim, score, std * (dim.high - dim.low), told)
        for step, wanted in zip(steps, expected, strict=True):
            got = dict(zip(step.tokens.tolist(), step.probs.tolist(), strict=True))
            assert step.probs.sum() == pytest.approx(1)
            for token, prob in got.items():
                assert prob == pytest.approx(wanted.get(token, 0.0), abs=1e-9)


def test_place_value_counts_and_4_99_is_near_5_00(space):
    """Loss of a model that is sure of another number, under the target for 5.000."""

    def cost(said):
        """Minus the log of the probability that the target gives to `said`."""
        target = number_probs(space.values, 5.0, 0.5)
        return -math.log(target[space.index(said)])

    assert cost(4.99) == pytest.approx(cost(5.01), abs=1e-6)
    assert cost(4.99) - cost(5.0) < 1e-3 < cost(6.0) - cost(5.0)
    # token by token: at the label, "low" and "medium" share the mass about evenly
    steps = answer_steps(space, 5.0, 0.5, space.index(5.0))
    probs = dict(zip(map(chr, steps[0].tokens.tolist()), steps[0].probs.tolist(), strict=True))
    assert probs["l"] == pytest.approx(0.5, abs=0.01)
    assert probs["m"] == pytest.approx(0.5, abs=0.01)
    # the last decimal hardly matters, the integer does
    last, integer = steps[-1].probs, steps[len("medium ")].probs
    assert last.max() - last.min() < 0.01
    assert integer.max() > 0.7


def test_far_answers_have_finite_targets(space):
    steps = answer_steps(space, 0.0, 0.01, space.index(9.99))
    assert all(np.isfinite(step.probs).all() and np.isfinite(step.values).all() for step in steps)
    assert all(step.probs.sum() == pytest.approx(1) for step in steps)


def model_mean(logits_of, space):
    """Mean of a model's answers by walking all of them, consistent ones, normalised at every node."""
    tree = space.tree
    logprobs = np.full(len(tree.tokens), -np.inf)
    logprobs[0] = 0.0
    for node in range(len(tree.tokens)):
        children = np.arange(tree.first[node], tree.last[node])
        if len(children) and np.isfinite(logprobs[node]):
            logits = logits_of(node)[tree.tokens[children]]
            logprobs[children] = logprobs[node] + logits - np.logaddexp.reduce(logits)
    weights = np.exp(logprobs[tree.ends])
    return float(weights @ tree.values[tree.ends])


def test_the_expected_value_is_that_of_the_whole_answer_distribution():
    """Where branches not told hold their true means, the sum along one path is the model's mean."""
    dim = DIMENSIONS["memorability"]
    space = AnswerSpace.of(spell, dim)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(len(space.tree.tokens), VOCAB))
    told = space.index(0.581)
    path = [node for node in space.paths[told] if node >= 0]
    # true mean beneath every node, by the model itself
    means = space.tree.values.copy()
    for node in range(len(means) - 1, -1, -1):
        children = np.arange(space.tree.first[node], space.tree.last[node])
        if len(children):
            logits = table[node][space.tree.tokens[children]]
            probs = np.exp(logits - np.logaddexp.reduce(logits))
            means[node] = probs @ means[children]
    steps = []
    for node, child in itertools.pairwise(path):
        first, last = space.tree.first[node], space.tree.last[node]
        probs = np.full(last - first, 1 / (last - first))
        steps.append(Step(space.tree.tokens[first:last], probs, means[first:last], int(child - first)))
    targets = Targets.stack([steps, steps], [0.581] * 2, [0.5] * 2, [(0.0, 1.0)] * 2)
    logits = torch.tensor(np.concatenate([table[path[:-1]]] * 2), dtype=torch.float32)
    got = expected_value(logits, targets)
    expected = model_mean(lambda node: table[node], space)
    assert got.tolist() == pytest.approx([expected] * 2, abs=1e-5)


def test_the_value_term_pulls_towards_the_score():
    dim = DIMENSIONS["memorability"]
    space = AnswerSpace.of(spell, dim)
    steps = [*answer_steps(space, 0.9, 0.05, space.index(0.9)), one_hot(0)]
    targets = Targets.stack([steps], [0.9], [0.9], [(0.0, 1.0)])
    logits = torch.zeros(len(steps), VOCAB, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=20.0)
    gaps = []
    for _ in range(200):
        gap = (expected_value(logits, targets) - targets.scores).square().sum()
        gaps.append(gap.item())
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
    assert gaps[-1] < 1e-4 < 1e-3 < gaps[0]


def test_gradients_are_right():
    torch.manual_seed(0)
    space = AnswerSpace.of(spell, replace(DIMENSIONS["emotional_valence"], decimals=1))
    answers = [[*answer_steps(space, s, 0.3, space.index(s)), one_hot(0)] for s in (-1.5, 2.2)]
    targets = Targets.stack(answers, [-1.5, 2.2], [-1.4, 2.2], [(-3.0, 3.0)] * 2)
    logits = torch.randn(sum(map(len, answers)), VOCAB, requires_grad=True)
    (got,) = torch.autograd.grad(answer_loss(logits, targets, value_weight=3.0), logits)
    direction = torch.randn_like(logits)
    step = 1e-2
    with torch.no_grad():
        up, down = (answer_loss(logits + s * direction, targets, value_weight=3.0) for s in (step, -step))
    assert (got * direction).sum().item() == pytest.approx(((up - down) / (2 * step)).item(), rel=1e-2)


def test_a_batch_is_its_answers_and_accumulation_changes_nothing(space):
    torch.manual_seed(0)
    scores = [1.23, 5.0, 10.0]
    answers = [[*answer_steps(space, s, 0.5, space.index(s)), one_hot(0)] for s in scores]
    logits = [torch.randn(len(steps), VOCAB) for steps in answers]
    whole = Targets.stack(answers, scores, scores, [(0.0, 10.0)] * 3)
    together = answer_loss(torch.cat(logits), whole, value_weight=2.0)
    num_tokens = sum(map(len, answers))
    alone = sum(
        answer_loss(own, Targets.stack([steps], [s], [s], [(0.0, 10.0)]), num_tokens, num_answers=3, value_weight=2.0)
        for own, steps, s in zip(logits, answers, scores, strict=True)
    )
    torch.testing.assert_close(together, alone)


def test_a_value_term_can_stand_beside_any_loss(space):
    torch.manual_seed(0)
    steps = answer_steps(space, 6.4, 0.5, space.index(6.4))
    tokens = [int(step.tokens[step.told]) for step in steps]
    soft = token_steps(tokens, DIGITS, 0.15, 2.0, DIGIT_IDS)
    joined = [with_values(s, valid) for s, valid in zip(soft, steps, strict=True)]
    logits = torch.randn(len(steps), VOCAB)
    targets = [Targets.stack([own], [6.4], [6.4], [(0.0, 10.0)]) for own in (soft, joined, steps)]
    torch.testing.assert_close(answer_loss(logits, targets[0]), answer_loss(logits, targets[1]))
    torch.testing.assert_close(expected_value(logits, targets[1]), expected_value(logits, targets[2]))


def test_soft_cross_entropy_in_half_precision_is_computed_in_float32():
    logits = 30 * torch.randn(4, 1000)
    tokens, probs = torch.tensor([[1, 2]] * 4), torch.tensor([[0.25, 0.75]] * 4)
    full = torch.zeros(4, 1000).scatter(1, tokens, probs)
    expected = F.cross_entropy(logits.half().float(), full, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits.half(), tokens, probs), expected)


def test_drawn_answers_have_the_target_s_distribution(space):
    draws = [space.values[draw_number(space, 7.0, 0.5, u)] for u in (np.arange(2000) + 0.5) / 2000]
    assert np.mean(draws) == pytest.approx(7.0, abs=0.01)
    assert np.std(draws) == pytest.approx(0.5, abs=0.01)
    assert draw_number(space, 10.0, 0.5, 1 - 1e-12) == len(space.values) - 1


def test_what_cannot_be():
    with pytest.raises(InputError, match="std"):
        number_probs(np.zeros(2), 0.0, 0.0)
    with pytest.raises(InputError, match="digit"):
        digit_probs(10)
