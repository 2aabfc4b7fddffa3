"""What every proposer of rewrites works with: words that stay, what is new, how a model is asked."""

from pathlib import Path

import pytest

from cogguided._errors import InputError
from cogguided.guidance.rewriting.proposers import (
    Trial,
    clean_prompt,
    describe_target,
    keeps,
    kept_words,
)
from cogguided.guidance.rewriting.proposers.asking import instruction, parse_rewrites
from cogguided.guidance.rewriting.proposers.base import new_wordings

ROOT = Path(__file__).resolve().parents[2]
SAD = {"emotional_valence": -1.0}


# --- words that stay -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ("a face", []),
        ('a sign "STOP"', ["STOP"]),
        ("a sign “STOP here”", ["STOP here"]),
        ("'one' and [two] and \"three\"", ["one", "two", "three"]),
        ("the dog's bone and the cats' bowl", []),
        ("the dog's 'big bone'", ["big bone"]),
        ("it says 'don't stop'", ["don't stop"]),
        ("[cat] and [cat], [] and [ ]", ["cat"]),
        ("an open [bracket and a ] closed", ["bracket and a"]),
        ("nothing in ]these[", []),
        ("", []),
    ],
)
def test_words_that_stay(prompt, kept):
    assert kept_words(prompt) == kept


def test_only_brackets_around_words_are_stripped():
    assert clean_prompt('a [red hat], "STOP" and [] and ]x[') == 'a red hat, "STOP" and [] and ]x['
    assert keeps('a [Red  hat] "STOP"', "STOP, said the red hat")
    assert not keeps("an [art] work", "a party work")


def test_new_wordings_are_new_and_normalised():
    history = [Trial("A Happy face")]
    given = ["a FACE", "a  happy\tface", "a sad  face", "A SAD FACE", "", "a calm face", "an angry face"]
    assert new_wordings(given, "a [face]", history, 2) == ["a sad face", "a calm face"]
    assert new_wordings(given, "a face", history, 0) == []


def test_target_in_words():
    assert describe_target({"memorability": 1, "emotional_valence": -1}) == "more memorable and sadder"
    assert describe_target({"clip": 0.3, "emotional_valence": 1, "funniness": 0}) == (
        "happier and closer to what was asked for"
    )
    with pytest.raises(InputError, match="weight other than 0"):
        describe_target({"clip": 0})


# --- asking and reading --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("1. a cat\n2. a dog", ["a cat", "a dog"]),
        ("Sure:\n\n 1) a cat\n 2) **a dog**\n\nHope it helps!", ["a cat", "a dog"]),
        ("(1) “a cat”\n(2) 'a dog'", ["a cat", "a dog"]),
        ("* a cat\n• a dog\n- 3 birds", ["a cat", "a dog", "3 birds"]),
        ('["a cat", "a dog"]', ["a cat", "a dog"]),
        ('Here:\n```json\n[\n  "a cat",\n  "a dog"\n]\n```', ["a cat", "a dog"]),
        ('"a cat"\n"a dog"', ["a cat", "a dog"]),
        ('"a cat",\n"a dog"', ["a cat", "a dog"]),
        ('1. a sign "STOP"\n2. "A" and "B"', ['a sign "STOP"', '"A" and "B"']),
        ("<think>1. no\n2. no</think>1. a cat", ["a cat"]),
        ("<think>1. no", []),
        ("a cat\na dog", []),
        ("[1, 2]", []),
        ('[["a cat"]]', []),
        ("[" * 5000, []),
        ("1.\n2. ...\n3. 42\n4. " + "a" * 600, []),
        ("", []),
        ("\x00\ufffd 1", []),
    ],
)
def test_reading_answers(answer, found):
    assert parse_rewrites(answer) == found


def test_instruction_says_aim_and_history_best_first():
    history = [Trial("a dull cat", 0.2, 4), Trial("a bold cat", 0.7, 4), Trial("new"), Trial("a dog", 0.9, 4, False)]
    text = instruction("a [cat] 'HI'", {"memorability": 1.0, "emotional_valence": -0.5}, history, 3)
    assert "Prompt: a cat 'HI'" in text
    assert "more memorable and sadder" in text
    assert '"HI"' in text
    assert '"cat"' in text
    assert text.index("0.700  a bold cat") < text.index("0.200  a dull cat") < text.index("Rejected")
    assert text.index("Rejected") < text.index("a dog")
    assert "0.900" not in text
    assert "from 1. to 3." in text
