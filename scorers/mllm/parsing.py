"""Read the score out of an answer in words, or say why that cannot be done."""

from __future__ import annotations

import re
import unicodedata

from ..dimensions import Dimension

_MINUS = str.maketrans({"\u2212": "-", "\uff0d": "-", "\u2010": "-", "\u2011": "-", "\ufe63": "-"})
_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
_ALONE = re.compile(rf"(?<![\w.,+-])({_NUMBER})(?![\w%])(?![.,]\d)")
_TO = r"-|\u2012|\u2013|\u2014|~|\.\.\.?|\u2026|to|through"
_RANGE = re.compile(
    rf"[\[(]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[\])]?|between\s+{_NUMBER}\s+and\s+{_NUMBER}"
    rf"|[\[(]?\s*{_NUMBER}\s*(?:{_TO})\s*{_NUMBER}\s*[\])]?",
    re.I,
)
_DASH_AS_SIGN = re.compile(r"(?<![\w.)\]%])[\u2012\u2013\u2014](?=\.?\d)")
_MARKUP = re.compile(r"(?<!\w)[*`_\"']+|[*`_\"']+(?!\w)")
_SIGN_APART = re.compile(r"(?:^|\s)[-\u2013\u2014]\s+$")
_OUT_OF = re.compile(rf"(?:/|out of)\s*{_NUMBER}", re.I)


def parse_answer(text: str, dim: Dimension) -> tuple[float, str | None]:
    """Read the number, and the label if it is said, from an answer in words.

    Integers, signs (also the Unicode minus, and longer dashes right before a number) and markdown are read; an
    echoed range or scale ("/10") is not the answer. A range is two numbers with a dash or "to" between, in brackets
    with a comma ("(0, 3.5)"), or "between 0 and 10"; other numbers side by side ("7, 2 dogs", "5.5 and 6") are
    several. What is left must be one number in the dimension's range. A dash that stands apart ("positive - 2") is no
    sign if the label says so; without such a label it is not guessed.

    Raises:
        ValueError: why the answer cannot be read: no number, only a range, several different numbers, one out
            of range, or a sign that is not clear.

    >>> from ..dimensions import dimension
    >>> parse_answer("high 7", dimension("aesthetics"))
    (7.0, 'high')
    >>> parse_answer("On a scale of 0-10: **very low** 2.5/10.", dimension("aesthetics"))
    (2.5, 'very low')
    >>> parse_answer("negative \u22121.250", dimension("emotional_valence"))
    (-1.25, 'negative')
    """
    plain = _MARKUP.sub("", unicodedata.normalize("NFKC", text.translate(_MINUS)))
    plain = _DASH_AS_SIGN.sub("-", plain)
    shown = repr(text if len(text) <= 80 else text[:77] + "...")
    without_ranges = _OUT_OF.sub(" ", _RANGE.sub(" ", plain))
    found = list(_ALONE.finditer(without_ranges))
    numbers = {float(match[1]) for match in found}
    if not numbers:
        what = "no number" if without_ranges == plain else "only a range or scale"
        raise ValueError(f"{what} in the answer {shown}")
    if len(numbers) > 1:
        raise ValueError(f"several numbers in the answer {shown}")
    value, label = numbers.pop(), _parse_label(plain, dim)
    if not dim.low <= value <= dim.high:
        raise ValueError(f"{value:g} is outside {dim.low:g}..{dim.high:g} in the answer {shown}")
    apart = any(_SIGN_APART.search(without_ranges[: match.start()]) for match in found)
    if apart and value > 0 > dim.low and (label is None or dim.bin(label)[0] < 0):
        raise ValueError(f"a dash apart from its number in the answer {shown}: sign or not?")
    return value + 0.0, label


def _parse_label(text: str, dim: Dimension) -> str | None:
    if not dim.labels:
        return None
    longest_first = sorted(dim.labels, key=len, reverse=True)
    said = re.findall(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", text.lower())
    return str(said[0]) if len(set(said)) == 1 else None
