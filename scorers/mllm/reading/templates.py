"""Questions of the user's own: checked, made a dimension, written into a folder's facts and read from there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...._errors import InputError, unknown_name
from ...dimensions import DIMENSIONS, Dimension, dimension
from ..options import READOUTS

DEFAULT = "emotional_valence"
PLACE = "{}"
"""Stands for an image's prompt in a question."""


def choose(
    dimensions: Mapping[str, Dimension],
    name: str | None = None,
    readout: str | None = None,
    question: str | None = None,
    levels: Mapping[str, float] | None = None,
    low: float | None = None,
    high: float | None = None,
    words: tuple[str, str] | None = None,
    default: str = "",
) -> tuple[Dimension, str]:
    """Return the dimension that is asked for, and how it is read.

    Args:
        dimensions: those that are known.
        name: of one of them, or of a new one; default: that of `default`, or "emotional_valence", or the first; of a
            question of one's own, the read-out's name.
        readout: default: how the dimension is meant to be read.
        question: in place of the dimension's own, or of a new one; ``{}`` stands for the image's prompt.
        levels: words and their values, for "levels".
        low: lowest value; default: of the levels, or of the dimension.
        high: highest value.
        words: the two answers, the one that counts first, for "yes_no" and "pairwise".
        default: name of the one that a folder's facts put first, or "".

    Raises:
        InputError: what a read-out needs is missing, or given to one that has no use for it; levels that say nothing.
        UnknownNameError: no such dimension or read-out.

    >>> found, readout = choose({}, "mood", "levels", "Gloomy or merry?", {"gloomy": -1, "merry": 1})
    >>> found.name, found.low, found.high, readout
    ('mood', -1.0, 1.0, 'levels')
    """
    if readout is not None and readout not in READOUTS:
        raise unknown_name("readout", readout, READOUTS)
    if question is not None and not (isinstance(question, str) and question.strip()):
        raise InputError(f"question: expected a text, got {question!r}")
    if question is None and levels is None and low is None and high is None and words is None:
        found = _known(dimensions, name or default or None)
        return found, _checked(found, readout or found.readouts[0])
    base = dimensions.get(name) if name is not None else None
    wanted = readout or (base.readouts[0] if base is not None and question is not None else None)
    if wanted is None:
        raise InputError(
            "question=, levels=, low=, high= and words= make a score of your own: say also how the answer is read, "
            f"readout={' or '.join(map(repr, READOUTS))}"
        )
    for given, argument, takers in ((levels, "levels", ("levels",)), (words, "words", ("yes_no", "pairwise"))):
        if given is not None and wanted not in takers:
            raise InputError(f"{argument}= is for readout={' or '.join(map(repr, takers))}, got readout={wanted!r}")
    make = {"levels": _levels, "yes_no": _of_two_words, "pairwise": _of_two_words}.get(wanted, _numbered)
    if name is None and wanted in dimensions:
        raise InputError(f"the model has a dimension {wanted!r} already: give the new one a name by dimension=")
    made = make(base, _Given(name or wanted, wanted, question, levels, low, high, words))
    return made, _checked(made, wanted)


@dataclass(frozen=True)
class _Given:
    name: str
    readout: str
    question: str | None
    levels: Any
    low: Any
    high: Any
    words: Any


def _checked(dim: Dimension, readout: str) -> str:
    if readout not in dim.readouts:
        raise InputError(
            f"'{dim.name}' can be read by {', '.join(dim.readouts)}, not by {readout!r}; "
            "pass question= of your own for that"
        )
    return readout


def _known(dimensions: Mapping[str, Dimension], name: str | None) -> Dimension:
    if name is None:
        name = DEFAULT if DEFAULT in dimensions else next(iter(dimensions), DEFAULT)
    if name not in dimensions:
        raise unknown_name("dimension", name, dimensions)
    return dimensions[name]


def _numbered(base: Dimension | None, given: _Given) -> Dimension:
    """A dimension that is answered by a number."""
    question, low, high = given.question, given.low, given.high
    if low is None and high is None and base is not None and question is not None:
        return replace(base, question=question)
    if question is None or low is None or high is None:
        raise InputError(
            f"readout={given.readout!r} on a scale of its own needs question=, low= and high=; to ask for one of the "
            f"model's dimensions in other words, question= and its name, e.g. dimension={DEFAULT!r}"
        )
    return Dimension(given.name, _summary(question), (), _scale(low, high), question, readout=given.readout)


def _levels(base: Dimension | None, given: _Given) -> Dimension:
    """A dimension that is answered by one of several words."""
    question, levels = given.question, given.levels
    if levels is None:
        if base is None or not base.weighed or given.low is not None or given.high is not None:
            raise InputError('readout="levels" needs levels=, words and their values, e.g. {"bad": 1, "good": 5}')
        return base if question is None else replace(base, question=question)
    if not isinstance(levels, Mapping) or len(levels) < 2 or not all(isinstance(word, str) for word in levels):
        raise InputError(
            f'levels: expected two words or more, each with a value, e.g. {{"bad": 1, "good": 5}}, got {levels!r}'
        )
    for word, value in levels.items():
        _number(f"levels: the value of {word!r}", value)
    asked = question or (None if base is None else base.question)
    if asked is None:
        raise InputError('readout="levels" needs question=, what the model is asked about the image')
    pairs = tuple((word.strip(), float(value)) for word, value in levels.items())
    values = [value for _, value in pairs]
    if len(set(values)) < 2:
        raise InputError(f"levels: all have the value {values[0]:g}, so nothing can be told apart")
    ends = _scale(min(values) if given.low is None else given.low, max(values) if given.high is None else given.high)
    return Dimension(given.name, _summary(asked), (), ends, asked, readout="levels", levels=pairs)


def _of_two_words(base: Dimension | None, given: _Given) -> Dimension:
    """A dimension that is answered by one of two words: a probability."""
    question, words, readout = given.question, given.words, given.readout
    if (given.low, given.high) not in ((None, None), (0, 1)):
        raise InputError(f"readout={readout!r} gives a probability, 0 to 1: leave low= and high= out")
    if question is None:
        raise InputError(
            f"readout={readout!r} needs question=, which "
            + ("can be answered by yes or no" if readout == "yes_no" else "asks which of two images is better")
        )
    if words is not None:
        words = (words,) if isinstance(words, str) else tuple(words)
        if len(words) != 2 or not all(isinstance(word, str) and word.strip() for word in words):
            raise InputError(f'words: expected two, the one that counts first, e.g. ("Yes", "No"), got {words!r}')
        if words[0].casefold() == words[1].casefold():
            raise InputError(f"words: {words[0]!r} and {words[1]!r} are one word, since case does not matter")
    compared = question if readout == "pairwise" else ""
    ends = (0.0, 1.0)
    return Dimension(
        given.name, _summary(question), (), ends, question, readout=readout, words=words, comparison=compared
    )


def _scale(low: Any, high: Any) -> tuple[float, float]:
    _number("low", low)
    _number("high", high)
    if not low < high:
        raise InputError(f"expected low < high, got low={low:g} and high={high:g}")
    return float(low), float(high)


def _number(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{what}: expected a number, got {value!r}")


def _summary(question: str) -> str:
    return question.strip().partition("\n")[0]


def to_json(dimensions: Mapping[str, Dimension]) -> dict[str, Any]:
    """Describe the dimensions that are more than one of `DIMENSIONS` with a question of its own.

    >>> found, _ = choose({}, "sharp", "yes_no", "Is it sharp?")
    >>> to_json({"sharp": found, "memorability": DIMENSIONS["memorability"]})
    {'sharp': {'readout': 'yes_no', 'question': 'Is it sharp?', 'low': 0.0, 'high': 1.0}}
    """
    return {name: _describe(dim) for name, dim in dimensions.items() if not _is_known(dim)}


def _is_known(dim: Dimension) -> bool:
    return dim.name in DIMENSIONS and replace(DIMENSIONS[dim.name], question=dim.question) == dim


def _describe(dim: Dimension) -> dict[str, Any]:
    if dim.labels:
        raise InputError(
            f"'{dim.name}': a dimension with labels can be written only if it is one of {', '.join(DIMENSIONS)}"
        )
    found: dict[str, Any] = {"readout": dim.readout, "question": dim.question}
    if dim.levels:
        found["levels"] = dict(dim.levels)
    if dim.words is not None:
        found["words"] = list(dim.words)
    return {**found, "low": dim.low, "high": dim.high}


def from_json(data: Mapping[str, Any]) -> dict[str, Dimension]:
    """Make the dimensions of a folder's facts: its keys "dimensions", "questions" and "templates".

    Raises:
        InputError, UnknownNameError, TypeError, ValueError, KeyError, AttributeError: something in it does not fit.

    >>> list(from_json({"dimensions": ["memorability"], "templates": {"mood": {
    ...     "readout": "levels", "question": "Mood?", "levels": {"sad": 0, "glad": 1}}}}))
    ['memorability', 'mood']
    """
    templates: dict[str, Any] = data.get("templates", {})
    names = data.get("dimensions", [name for name in DIMENSIONS if name not in templates])
    found = {name: dimension(name) for name in names if name not in templates}
    found |= {name: replace(found[name], question=str(text)) for name, text in data.get("questions", {}).items()}
    for name, template in templates.items():
        made, _ = choose({}, name, **{"readout": "expected", **template})
        found[name] = made
    return {name: found[name] for name in dict.fromkeys([*names, *templates])}
