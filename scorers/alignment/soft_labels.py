"""What a model should put on the next token, for every token of an answer, given what a person felt.

The next token's candidates are the children of a node of the dimension's `AnswerTree`: whatever the tokenizer
makes of labels, signs and digits (one by one, or three in a token), the tree knows which tokens can follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..._errors import InputError
from ..dimensions import Dimension
from ..mllm.answer_tree import AnswerTree, Bools, Floats, Ints, answer_tree

Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True, eq=False)
class Step:
    """One supervised token: its candidates, what they should get, and what they would mean.

    Attributes:
        tokens: (K,) token ids of the candidates.
        probs: (K,) probability that each should have; sums to 1.
        values: (K,) the number, in the dimension's unit, that an answer going on so is expected to hold.
        told: which candidate the answer goes on with.
        weight: of this token's loss.
        valid: (K,) which candidates go on with a valid answer; None: all of them.
    """

    tokens: Ints
    probs: Floats
    values: Floats
    told: int
    weight: float = 1.0
    valid: Bools | None = None


def one_hot(token: int, value: float = 0.0, weight: float = 1.0) -> Step:
    """Want one token and no other.

    >>> one_hot(7).probs.tolist()
    [1.0]
    """
    return Step(np.array([token]), np.ones(1), np.array([value]), 0, weight)


def digit_probs(digit: int, eta: float = 0.15) -> Floats:
    """Soft label of one digit: the triangular distribution of CogIP-Bench (arXiv 2511.22805), over 0 to 9.

    With m = max(c, 9 - c): psi_k proportional to m - |k - c|, and q = (1 - eta) onehot(c) + eta psi. In the
    paper psi is scaled by the digit's place, which cancels when normalised: every digit counts the same.

    Raises:
        InputError: not a digit, or eta out of [0, 1].

    >>> digit_probs(0, eta=0.45)[:3].round(3).tolist()  # psi = 9/45, 8/45, 7/45, ...
    [0.64, 0.08, 0.07]
    """
    if not 0 <= digit <= 9 or not 0 <= eta <= 1:
        raise InputError(f"expected a digit and eta in [0, 1], got {digit} and {eta}")
    places = np.arange(10)
    psi = max(digit, 9 - digit) - np.abs(places - digit).astype(float)
    soft: Floats = eta * psi / psi.sum()
    soft[digit] += 1 - eta
    return soft


def number_probs(values: Floats, score: float, std: float) -> Floats:
    """Discretised normal distribution of width `std` around a score over all numbers (M,) of a dimension.

    Raises:
        InputError: `std` is not above 0.

    >>> number_probs(np.array([4.0, 5.0, 6.0]), score=5.0, std=1.0).round(3).tolist()
    [0.274, 0.452, 0.274]
    """
    if not std > 0:
        raise InputError(f"std: expected more than 0, got {std}")
    logs = -0.5 * ((values - score) / std) ** 2
    weights: Floats = np.exp(logs - logs.max())
    weights /= weights.sum()
    return weights


@dataclass(frozen=True, eq=False)
class AnswerSpace:
    """The answers of a dimension whose label and number agree, as paths through the tree of all valid ones.

    Attributes:
        dim: the dimension.
        tree: every valid answer, down to its last token.
        values: (M,) the dimension's numbers, rising.
        paths: (M, D) nodes from the root to the end of each number's answer, -1 behind the end.
    """

    dim: Dimension
    tree: AnswerTree
    values: Floats
    paths: Ints

    @staticmethod
    def of(encode: Encode, dim: Dimension) -> AnswerSpace:
        """Write out a dimension's answers with a tokenizer.

        Args:
            encode: token ids of each text, without special tokens.
            dim: labels and range.

        Raises:
            ModelError: the tokenizer writes two different answers in the same way.

        >>> from ..dimensions import dimension
        >>> spell = lambda texts: [[ord(character) for character in text] for text in texts]
        >>> AnswerSpace.of(spell, dimension("memorability")).paths.shape  # "very high 1.000" and the root
        (1001, 16)
        """
        tree = answer_tree(encode, dim).full
        ends = np.flatnonzero(tree.ends)
        bins = np.searchsorted(np.array(dim.edges[1:-1]), tree.values[ends], side="right")
        ends = ends[tree.labels[ends] == bins]
        ends = ends[np.argsort(tree.values[ends], kind="stable")]
        up, nodes = [ends], ends
        while (nodes >= 0).any():
            nodes = np.where(nodes >= 0, tree.parents[nodes], -1)
            up.append(nodes)
        down = np.stack(up[::-1], axis=1)  # right-aligned, -1 before the root
        shift = (down < 0).sum(axis=1, keepdims=True)
        columns = np.arange(down.shape[1]) + shift
        paths = np.where(
            columns < down.shape[1],
            np.take_along_axis(down, np.minimum(columns, down.shape[1] - 1), axis=1),
            -1,
        )
        return AnswerSpace(dim, tree, tree.values[ends], paths[:, :-1])

    def index(self, score: float) -> int:
        """Which number of the dimension is nearest to a score."""
        return int(np.abs(self.values - score).argmin())

    @cached_property
    def tokens(self) -> frozenset[int]:
        """Every token that an answer can hold."""
        return frozenset(self.tree.tokens[1:].tolist())


def answer_steps(space: AnswerSpace, score: float, std: float, told: int) -> list[Step]:
    """Project a distribution over whole answers on the tokens of one of them.

    The target is `number_probs(score, std)`, each number with its own label. At every token of the answer
    told, a candidate should get the share of the target's mass that lies beneath it, given what was said
    before. So the expected loss over answers drawn from the target is the cross-entropy of the whole answer's
    distribution, in which 4.999 and 5.000 are neighbours and an integer weighs more than a third decimal.

    Args:
        space: answers of the dimension.
        score: what people felt, in the dimension's unit.
        std: how sure that is, in the same unit.
        told: index of the number whose answer is told to the model.

    >>> from ..dimensions import dimension
    >>> spell = lambda texts: [[ord(character) for character in text] for text in texts]
    >>> space = AnswerSpace.of(spell, dimension("emotional_valence"))
    >>> steps = answer_steps(space, score=1.0, std=0.3, told=space.index(1.0))
    >>> [chr(token) for token in steps[0].tokens], steps[0].probs.round(3).tolist()
    (['n', 'p'], [0.067, 0.933])
    >>> digits = steps[9]  # after "positive "
    >>> [chr(token) for token in digits.tokens], digits.probs.round(3).tolist()
    (['-', '0', '1', '2', '3'], [0.0, 0.464, 0.536, 0.0, 0.0])
    """
    tree, path = space.tree, space.paths[told]
    weights = number_probs(space.values, score, std)
    beneath = np.arange(len(space.values))
    steps = []
    for depth in range(1, space.paths.shape[1]):
        if path[depth] < 0:
            break
        start, end = tree.first[path[depth - 1]], tree.last[path[depth - 1]]
        nodes = space.paths[beneath, depth] - start
        own = weights[beneath]
        mass = np.bincount(nodes, own, minlength=end - start)
        # Far from the score every weight is 0 in floating point; there the middle of the branch has to do.
        values = tree.values[start:end].copy()
        some = mass > 0
        values[some] = (
            np.bincount(nodes, own * space.values[beneath], minlength=end - start)[some] / mass[some]
        )
        if mass.sum() > 0:
            probs = mass / mass.sum()
        else:
            probs = np.zeros(end - start)
            probs[path[depth] - start] = 1.0
        steps.append(Step(tree.tokens[start:end], probs, values, int(path[depth] - start)))
        beneath = beneath[nodes == path[depth] - start]
    return steps


def draw_number(space: AnswerSpace, score: float, std: float, uniform: float) -> int:
    """Draw the index of a number from `number_probs`, with `uniform` in [0, 1) as the source of chance.

    >>> from ..dimensions import dimension
    >>> spell = lambda texts: [[ord(character) for character in text] for text in texts]
    >>> space = AnswerSpace.of(spell, dimension("memorability"))
    >>> space.values[draw_number(space, score=0.5, std=0.1, uniform=0.84)].round(2)
    np.float64(0.6)
    """
    rising = np.cumsum(number_probs(space.values, score, std))
    return min(int(np.searchsorted(rising, uniform * rising[-1], side="right")), len(rising) - 1)


def token_steps(
    tokens: Sequence[int],
    digits: dict[int, int],
    eta: float,
    digit_weight: float,
    ids: Sequence[int],
    several: Collection[int] = (),
) -> list[Step]:
    """Soften the digits of an answer one by one, as in CogIP-Bench; see `digit_probs`.

    Args:
        tokens: the answer.
        digits: digit of each token that is a single one.
        eta: weight of the triangular part; 0 is plain cross-entropy.
        digit_weight: weight of a digit's loss.
        ids: (10,) tokens of the digits 0 to 9.
        several: tokens of several digits: they stay hard, and weigh as digits.

    >>> steps = token_steps([50, 5], digits={5: 5}, eta=0.15, digit_weight=2.0, ids=range(10))
    >>> [len(step.tokens) for step in steps], [step.weight for step in steps]
    ([1, 10], [1.0, 2.0])
    """
    steps = []
    for token in tokens:
        if token not in digits or not math.isfinite(eta):
            steps.append(one_hot(token, weight=digit_weight if token in several else 1.0))
        elif eta == 0:
            steps.append(one_hot(token, weight=digit_weight))
        else:
            digit = digits[token]
            probs = digit_probs(digit, eta)
            steps.append(Step(np.asarray(ids), probs, np.zeros(10), digit, digit_weight))
    return steps


def with_values(soft: Step, valid: Step) -> Step:
    """Keep what `soft` wants, and add the candidates and values of `valid`, for a value term beside it.

    >>> wanted = one_hot(5, weight=2.0)
    >>> valid = Step(np.array([4, 5]), np.array([0.5, 0.5]), np.array([0.4, 0.5]), told=1)
    >>> both = with_values(wanted, valid)
    >>> both.tokens.tolist(), both.probs.tolist(), both.values.tolist(), both.told, both.weight
    ([4, 5], [0.0, 1.0], [0.4, 0.5], 1, 2.0)
    """
    extra = soft.tokens[~np.isin(soft.tokens, valid.tokens)]
    tokens = np.concatenate([valid.tokens, extra])
    probs = np.zeros(len(tokens))
    for token, prob in zip(soft.tokens, soft.probs, strict=True):
        probs[tokens == token] = prob
    values = np.concatenate([valid.values, np.zeros(len(extra))])
    return Step(tokens, probs, values, valid.told, soft.weight, np.arange(len(tokens)) < len(valid.tokens))
