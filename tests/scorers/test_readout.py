from functools import cache

import numpy as np
import pytest

from cogguided._errors import ModelError
from cogguided.scorers import DIMENSIONS, dimension
from cogguided.scorers.mllm.answer_tree import answer_tree
from cogguided.scorers.mllm.readout import AnswerSearch, read_distribution

LEAK = 0.995  # each step leaves 0.5 % to what is no valid answer


def spell(texts):
    """One token a character, as with single digits."""
    return [[ord(character) for character in text] for text in texts]


def spell_grouped(texts):
    """Words and groups of up to three digits, as Llama 3 writes numbers."""
    import re

    pieces = [re.findall(r" ?[a-z]+|\d{1,3}|[ .-]", text) for text in texts]
    return [[hash_of(piece) for piece in row] for row in pieces]


def hash_of(piece):
    return int.from_bytes(piece.encode(), "big") % (2**61)


def spell_pairs(texts):
    """Two digits a token from the left: "5.577" is 5 . 57 7 and its length varies with the digits."""
    import re

    return [[hash_of(piece) for piece in re.findall(r" ?[a-z]+|\d{1,2}|[ .-]", text)] for text in texts]


def spell_merged(texts):
    """A tokenizer which merges the label's last letter with what follows: numbers are not written alike."""
    import re

    return [[hash_of(piece) for piece in re.findall(r"[a-z ]+\d|[a-z ]+-?|\d|[.-]", text)] for text in texts]


@cache
def tree_of(encode, name):
    return answer_tree(encode, dimension(name))


@cache
def answers_of(encode, name):
    """Values of all valid answers, their lengths in tokens, and by which of the prefixes each one passes."""
    dim = dimension(name)
    written = encode([f"{label} {number}" for label in dim.labels for number in dim.numbers()])
    values = np.array([float(number) for _ in dim.labels for number in dim.numbers()])
    lengths = np.array([len(tokens) for tokens in written])
    prefixes = {(): 0}
    passed = [prefixes.setdefault(tuple(row[:end]), len(prefixes)) for row in written for end in range(len(row) + 1)]
    return values, lengths, prefixes, np.array(passed)


class Oracle:
    """A model that knows the distribution over all valid answers and answers by it, one token at a time."""

    def __init__(self, dim, encode, weights):
        self.values, lengths, self.prefixes, passed = answers_of(encode, dim.name)
        self.mass = np.bincount(passed, np.repeat(weights / weights.sum(), lengths + 1))
        self.weights = weights / weights.sum() * LEAK**lengths  # "-" leaks once more
        self.total = float(self.weights.sum())
        self.weights /= self.total
        self.mean = float(self.weights @ self.values)
        self.std = float(np.sqrt(self.weights @ (self.values - self.mean) ** 2))

    def logprob(self, path, token):
        with np.errstate(divide="ignore"):
            before = self.mass[self.prefixes[path]]
            return np.log(LEAK * self.mass[self.prefixes[(*path, token)]] / max(before, 1e-300))


def run(tree, oracle):
    search, fed, passes = walk(tree, oracle)
    return search.read(), fed, passes


def walk(tree, oracle):
    search, fed, passes = AnswerSearch(tree), 0, 0
    paths = {0: ()}
    while len(nodes := search.next_nodes()):
        parents, children = search.children(nodes)
        order = []
        for parent, child in zip(nodes[parents], children, strict=True):
            token = int(tree.tokens[child])
            if parent not in paths:
                paths[parent] = (*paths[tree.parents[parent]], int(tree.tokens[parent]))
            order.append(oracle.logprob(paths[parent], token))
            paths[child] = (*paths[parent], token)
        search.update(nodes, np.array(order))
        fed, passes = fed + len(nodes), passes + 1
    return search, fed, passes


def answer_weights(dim, kind):
    values = np.tile([float(number) for number in dim.numbers()], len(dim.labels))
    if kind == "flat":
        return np.ones(len(values))
    span = dim.high - dim.low
    if kind == "round":  # a model that learned from ratings of few decimals
        step = 0.01 if span == 1 else 0.1
        centre = dim.low + 0.4 * span
        close = abs(values / step - np.rint(values / step)) < 1e-6
        return np.where(close, 1.0, 1e-6) * np.exp(-0.5 * ((values - centre) / (0.2 * span)) ** 2)
    if kind == "narrow":  # within one branch, whose width is nearly all of the spread
        return np.exp(-0.5 * ((values - dim.low - 0.574 * span) / (0.002 * span)) ** 2)
    if kind in ("peaked", "centred"):
        labels = np.repeat([dim.middle(label) for label in dim.labels], len(dim.numbers()))
        centre = dim.low + (0.57 if kind == "peaked" else 0.5) * span
        return np.exp(-0.5 * ((values - centre) / (0.08 * span)) ** 2 - abs(labels - centre) / (0.05 * span))
    rng = np.random.default_rng(0)
    return rng.exponential(size=len(values)) ** 6


@pytest.mark.parametrize(
    ("kind", "encode"),
    [
        *((k, e) for k in ("flat", "peaked", "rough") for e in (spell, spell_grouped, spell_pairs, spell_merged)),
        ("round", spell),
        ("round", spell_pairs),
        ("centred", spell),
        ("narrow", spell),
        ("narrow", spell_pairs),
    ],
)
@pytest.mark.parametrize("name", ["aesthetics", "emotional_valence", "memorability"])
def test_the_mean_over_all_valid_answers(name, kind, encode):
    dim = dimension(name)
    oracle = Oracle(dim, encode, answer_weights(dim, kind))
    reading, fed, passes = run(tree_of(encode, name), oracle)
    tolerance = (dim.high - dim.low) / 1000
    assert reading.mean == pytest.approx(oracle.mean, abs=tolerance)
    assert reading.std == pytest.approx(oracle.std, abs=tolerance)
    assert reading.mass == pytest.approx(oracle.total, abs=6e-3)  # of a cut branch a last step may not be known
    if kind in ("peaked", "centred") and encode in (spell, spell_grouped):
        assert fed < 160
        assert passes <= 6
    if kind in ("peaked", "round") and encode is spell:
        assert fed < (520 if dim.high - dim.low > 1 else 700)  # what is followed stands for the rest


@pytest.mark.parametrize("name", ["aesthetics", "emotional_valence", "memorability"])
def test_branches_that_are_not_followed_are_as_wide_as_the_others(name):
    """Numbers that are equally likely within a branch: its width over sqrt(12)."""
    dim = dimension(name)
    search, _, _ = walk(tree_of(spell, name), Oracle(dim, spell, answer_weights(dim, "flat")))
    nodes, _, variances, _ = search.outcome()
    wide = variances[search.tree.open_branches[nodes]]
    assert len(wide) > 20
    width = 0.01 if dim.high == 1 else 0.1
    assert np.sqrt(wide) == pytest.approx(width / np.sqrt(12), rel=0.1)


@pytest.mark.parametrize("name", ["aesthetics", "emotional_valence", "memorability"])
def test_a_branch_that_is_followed_has_its_own_width(name):
    """Of the likely branches some hold a single number, the others all of their numbers alike."""
    dim = dimension(name)
    digits = 2 if dim.high > 1 else 1
    numbers = [number.lstrip("-") for number in dim.numbers()]
    stems = sorted({number[:-digits] for number in numbers})
    each = [
        float(number == stems[5] + "5" * digits) + (number[:-digits] == stems[8]) / 10**digits for number in numbers
    ]
    weights = np.zeros((len(dim.labels), len(numbers)))
    weights[1] = each
    search, _, _ = walk(tree_of(spell, name), Oracle(dim, spell, weights.ravel() / weights.sum() + 1e-12))
    nodes, _, variances, _ = search.outcome()
    found = np.sqrt(variances[search.logprobs[nodes] > np.log(0.15)])
    width = 0.01 if dim.high == 1 else 0.1
    assert found.max() == pytest.approx(width / np.sqrt(12), rel=0.15)
    assert found.min() < 0.1 * found.max()


@pytest.mark.parametrize("name", ["aesthetics", "emotional_valence", "memorability"])
def test_branches_that_are_not_followed_cannot_move_the_mean(name):
    """The eight likeliest branches end in 9, the others, with 0.6 of the mass, in 0."""
    dim = dimension(name)
    numbers = [number.lstrip("-") for number in dim.numbers()]
    stems = sorted({number[:-2] if dim.high > 1 else number[:-1] for number in numbers})
    likely = set(stems[5 : 5 + 8 * 3 : 3])
    width = 2 if dim.high > 1 else 1
    each = np.zeros(len(numbers))
    for place, number in enumerate(numbers):
        stem, rest = number[:-width], number[-width:]
        each[place] = (0.4 / 8 if rest == "9" * width else 0.0) if stem in likely else (
            0.6 / (len(stems) - 8) if rest == "0" * width else 0.0
        )
    weights = np.zeros((len(dim.labels), len(numbers)))
    weights[1] = each
    oracle = Oracle(dim, spell, weights.ravel() + 1e-12)
    reading, _, _ = run(tree_of(spell, name), oracle)
    assert reading.mean == pytest.approx(oracle.mean, abs=2e-3 * (dim.high - dim.low))


@pytest.mark.parametrize("encode", [spell, spell_grouped, spell_pairs, spell_merged])
@pytest.mark.parametrize("dim", DIMENSIONS.values(), ids=lambda dim: dim.name)
def test_the_tree_holds_every_answer_once(encode, dim):
    tree = tree_of(encode, dim.name)
    ends = np.flatnonzero(tree.ends)
    for answers in (f"{dim.labels[0]} {dim.numbers()[0]}", f"{dim.labels[-1]} {dim.numbers()[-1]}"):
        node = 0
        for token in encode([answers])[0]:
            inside = range(tree.first[node], tree.last[node])
            if not len(inside):
                break
            node = next(child for child in inside if tree.tokens[child] == token)
        assert node in ends
        assert tree.values[node] == pytest.approx(float(answers.rsplit(" ", 1)[1]), abs=(dim.high - dim.low) / 1000)
        assert dim.labels[tree.labels[node]] == answers.rsplit(" ", 1)[0]
    assert set(tree.labels[ends]) == set(range(len(dim.labels)))
    assert tree.values[ends].mean() == pytest.approx((dim.low + dim.high) / 2, abs=0.1 * (dim.high - dim.low))


def test_ten_needs_as_many_decimals_as_nine():
    tree = answer_tree(spell, dimension("aesthetics"))
    ends = np.flatnonzero(tree.ends)
    depth = np.zeros(len(tree.tokens), dtype=int)
    for node in range(1, len(tree.tokens)):
        depth[node] = depth[tree.parents[node]] + 1
    tens = ends[(tree.values[ends] == 10.0) & (tree.labels[ends] == 1)]
    assert depth[tens].tolist() == [len("low 10.00")]


def test_a_tokenizer_that_cannot_write_digits():
    with pytest.raises(ModelError, match="cannot tell"):
        answer_tree(lambda texts: [[0 if c.isdigit() else ord(c) for c in t] for t in texts], dimension("aesthetics"))


def test_nothing_captured():
    reading = read_distribution(np.array([-np.inf]), np.array([1.0]), np.array([0]))
    assert np.isnan(reading.mean)
    assert (reading.mass, reading.label) == (0.0, -1)
