"""The phrase bank: what it proposes, and what its bandit learns."""

from pathlib import Path

import numpy as np
import pytest

from cogguided._errors import InputError, UnknownNameError
from cogguided.guidance.rewriting.proposers import (
    PhraseBank,
    Proposer,
    Trial,
    keeps,
)
from cogguided.guidance.rewriting.proposers.base import holds, plain
from cogguided.guidance.rewriting.proposers.phrase_bank import BANKS, effects

ROOT = Path(__file__).resolve().parents[2]
SAD = {"emotional_valence": -1.0}


TARGETS = [{name: sign} for name in BANKS["general"] if name != "clip" for sign in (1.0, -1.0)]


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("target", [*TARGETS, {"my_scorer": 1.0, "clip": 0.5}], ids=str)
def test_phrase_bank_proposes_new_wordings(bank, target):
    proposer = PhraseBank(bank)
    assert isinstance(proposer, Proposer)
    history = [Trial("a [face]", 0.5, 4)]
    for seed in range(3):  # rounds
        found = proposer.propose("a [face]", target, history, 4, seed)
        assert found == proposer.propose("a [face]", target, list(history), 4, seed)
        assert len({plain(text) for text in found} - {plain(t.prompt) for t in history}) == 4
        assert all(keeps("a [face]", text) for text in found)
        history += [Trial(text, 0.1 * seed, 4) for text in found]


def test_phrase_bank_depends_on_seed_and_is_bounded():
    bank = PhraseBank("embedded")
    draws = {tuple(bank.propose("a face", SAD, [], 3, seed)) for seed in range(10)}
    assert len(draws) > 5
    every = bank.propose("a face", SAD, [], 1000, 0)
    assert len(every) == 10 * 3 + 2  # a mood alone or in a style, a style alone
    assert bank.propose("a face", SAD, list(map(Trial, every)), 4, 0) == []


def test_phrase_bank_has_nothing_for_faithfulness():
    assert PhraseBank().propose("a face", {"clip": 1.0}, [], 4, 0) == []
    assert PhraseBank().propose("a face", {"clip": 1.0, "funniness": 0.0}, [], 4, 0) == []


def test_phrase_bank_takes_both_terms_of_a_target():
    arms = PhraseBank().modifiers("a dog", {"memorability": 1.0, "emotional_valence": -0.5})
    assert arms["in striking close-up"] == 1.0
    assert arms["full of sorrow"] == 0.5
    assert "full of joy" not in arms


def test_general_phrases_go_behind_and_embedded_ones_before():
    assert PhraseBank().word("A dog.", ["full of joy", "bold and graphic"]) == "A dog, full of joy, bold and graphic"
    bank = PhraseBank("embedded")
    assert bank.word("the face", ["sad", "glossy"]) == "the glossy sad face"
    assert bank.word("an [animal]", ["happy"]) == "a happy animal"
    assert bank.word("smiling face with sunglasses", ["cool"]) == "cool smiling face with sunglasses"
    with pytest.raises(UnknownNameError, match="did you mean 'embedded'"):
        PhraseBank("embeded")
    with pytest.raises(InputError, match="most"):
        PhraseBank(most=0)


@pytest.mark.parametrize(
    ("bank", "good"), [("general", ("full of joy", "cozy and inviting")), ("embedded", ("love", "glossy"))]
)
def test_bandit_learns_and_recombines(bank, good):
    """Two modifiers are good: the third round holds them three times as often as the first, pairs too."""
    proposer = PhraseBank(bank)
    held = np.zeros((20, 3))
    pairs = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        history = [Trial("a face", 0.4, 4)]
        for turn in range(3):
            found = proposer.propose("a face", {"emotional_valence": 1.0}, history, 4, 100 * seed + turn)
            counts = [sum(holds(text, phrase) for phrase in good) for text in found]
            held[seed, turn] = np.mean(counts)
            pairs += counts.count(2)
            scores = [0.4 + 0.2 * count + 0.05 * rng.normal() for count in counts]
            history += [Trial(text, score, 4) for text, score in zip(found, scores, strict=True)]
    first, _, last = held.mean(0)
    assert last > 3 * first
    assert pairs > 5


def test_effects_against_an_independent_solution():
    """Posterior mean of linear regression = ridge regression, here by least squares on augmented rows."""
    rng = np.random.default_rng(0)
    words = ["red", "big", "old"]
    history = [
        Trial(" ".join(["a", *(w for w, on in zip(words, row, strict=True) if on), "hat"]), float(rng.normal()), 3)
        for row in rng.integers(0, 2, (9, 3))
    ]
    weights = np.array([1.0, 0.5, 1.0])
    mean, cov = effects(words, weights, history)
    x = np.array([[1.0, *(w in t.prompt.split() for w in words)] for t in history])
    y = np.array([t.score for t in history])
    y = y - y.mean()
    rows = np.vstack([x * np.sqrt(3 / 4), np.diag([np.sqrt(0.1), *(1 / weights)])])
    expected = np.linalg.lstsq(rows, np.concatenate([y * np.sqrt(3 / 4), np.zeros(4)]), rcond=None)[0]
    np.testing.assert_allclose(mean, expected[1:], atol=1e-12)
    assert np.all(np.linalg.eigvalsh(cov) > 0)


def test_a_wording_that_strayed_counts_as_the_worst():
    history = [Trial("a hat", 0.5, 4), Trial("a bad hat", 0.1, 4), Trial("a red hat", 0.9, 4, kept=False)]
    mean, _ = effects(["red", "bad"], np.ones(2), history)
    assert mean[0] == pytest.approx(mean[1])
    assert mean[0] < 0
    nothing, _ = effects(["red"], np.ones(1), [Trial("a red hat"), Trial("a hat", float("nan"), 3)])
    assert nothing.tolist() == [0.0]
