"""The four dimensions in which people rate images: scale, labels and the question to ask.

Scales, labels and the answer format ("label, then a number with three decimals") are those of CogIP-Bench
(arXiv 2511.22805); the wording of the questions is our own.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._errors import InputError, unknown_name


@dataclass(frozen=True)
class Dimension:
    """One property of images on a scale that is cut into labelled bins.

    Attributes:
        name: as in `DIMENSIONS`.
        summary: one line.
        labels: names of the bins, from the lowest to the highest; none: an answer is a number alone.
        edges: the ends of the bins, one more than labels: bin k is [edges[k], edges[k + 1]), the last one
            closed. Without labels, the two ends of the scale.
        question: what an MLLM is asked after it has seen the image; ``{}`` stands for the image's prompt.
        decimals: digits after the point in an answer.
        readout: how an answer to the question is meant to be read; None: as numbers or by its label.
        levels: (word, value) pairs that the read-out "levels" weighs; none: the labels, at the middle of their bins.
        words: the two answers that "yes_no" or "pairwise" weighs; none: "Yes" and "No", or "First" and "Second".
        comparison: what an MLLM is asked about two images, for the read-out "pairwise"; "": they are not compared.
    """

    name: str
    summary: str
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    question: str
    decimals: int = 3
    readout: str | None = None
    levels: tuple[tuple[str, float], ...] = ()
    words: tuple[str, str] | None = None
    comparison: str = ""

    def __post_init__(self) -> None:
        """Check that the bins are in order, without gaps, and each has a label."""
        ordered = all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False))
        if len(self.edges) != (len(self.labels) or 1) + 1 or not ordered:
            raise InputError(
                f"dimension '{self.name}': expected rising edges, one more than labels, got "
                f"{len(self.labels)} labels and edges {self.edges}"
            )
        if len(set(self.labels)) != len(self.labels) or self.decimals < 1:
            raise InputError(f"dimension '{self.name}': labels must differ, and decimals be at least 1")
        if self.levels:
            _check_levels(self)

    @property
    def readouts(self) -> tuple[str, ...]:
        """Ways in which it can be read, the one that is meant first.

        >>> DIMENSIONS["memorability"].readouts
        ('expected', 'greedy', 'levels', 'pairwise')
        """
        worded = ("levels",) if self.labels or self.levels else ()
        found = ("expected", "greedy", *worded, *(("pairwise",) if self.comparison else ()))
        if self.readout is None:
            return found
        if self.readout not in found[:2]:
            return (self.readout,)  # an answer in words has no number
        return (self.readout, *(name for name in found if name != self.readout))

    @property
    def weighed(self) -> tuple[tuple[str, float], ...]:
        """(word, value) pairs of the read-out "levels".

        >>> DIMENSIONS["aesthetics"].weighed[0]
        ('very low', 1.75)
        """
        return self.levels or tuple((label, self.middle(label)) for label in self.labels)

    @property
    def low(self) -> float:
        """Lowest value of the scale."""
        return self.edges[0]

    @property
    def high(self) -> float:
        """Highest value of the scale."""
        return self.edges[-1]

    def label(self, value: float) -> str:
        """Name the bin that holds `value`.

        Raises:
            InputError: the value is not in [low, high], or there are no labels.

        >>> DIMENSIONS["aesthetics"].label(3.5), DIMENSIONS["aesthetics"].label(10.0)
        ('low', 'very high')
        """
        if not self.low <= value <= self.high:
            raise InputError(f"{self.name} runs from {self.low:g} to {self.high:g}, got {value}")
        if not self.labels:
            raise InputError(f"{self.name} has no labels, its answers are numbers")
        return self.labels[min(bisect.bisect_right(self.edges, value), len(self.labels)) - 1]

    def bin(self, label: str) -> tuple[float, float]:
        """Lower and upper end of the bin with that label.

        Raises:
            UnknownNameError: no bin has that label.

        >>> DIMENSIONS["emotional_valence"].bin("neutral")
        (-0.05, 0.55)
        """
        if label not in self.labels:
            raise unknown_name(f"{self.name} label", label, self.labels)
        index = self.labels.index(label)
        return self.edges[index], self.edges[index + 1]

    def middle(self, label: str) -> float:
        """Value in the middle of a bin.

        Raises:
            UnknownNameError: no bin has that label.

        >>> DIMENSIONS["funniness"].middle("very high")
        9.0
        """
        return sum(self.bin(label)) / 2

    def answer(self, value: float) -> str:
        """Write a value as a model should answer it.

        Raises:
            InputError: the value is not in [low, high].

        >>> DIMENSIONS["aesthetics"].answer(5.577)
        'medium 5.577'
        """
        rounded = round(value, self.decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
        number = f"{rounded:.{self.decimals}f}"
        return f"{self.label(rounded)} {number}" if self.labels else number

    def numbers(self) -> list[str]:
        """List every number that a valid answer can hold, in rising order.

        >>> numbers = DIMENSIONS["emotional_valence"].numbers()
        >>> len(numbers), numbers[0], numbers[3000], numbers[-1]
        (6001, '-3.000', '0.000', '3.000')
        """
        unit = 10**self.decimals
        return [
            f"{step / unit:.{self.decimals}f}"
            for step in range(round(self.low * unit), round(self.high * unit) + 1)
        ]


def _check_levels(dim: Dimension) -> None:
    """Check the words and values of a dimension's levels."""
    words = [word.strip() for word, _ in dim.levels]
    if len(words) < 2 or not all(words):
        raise InputError(f"levels of '{dim.name}': expected two words or more, each with a value, got {words}")
    if len({word.casefold() for word in words}) < len(words):
        raise InputError(f"levels of '{dim.name}': a word occurs twice in {words} (case does not matter)")
    for word, value in dim.levels:
        if not dim.low <= value <= dim.high:
            raise InputError(f"levels of '{dim.name}': {word!r} is {value:g}, outside {dim.low:g} to {dim.high:g}")


_DEGREES = ("very low", "low", "medium", "high", "very high")
_FORMAT = "Answer with the label and the score only, nothing before or after, for example: {example}"


def _question(ask: str, bins: str, example: str) -> str:
    return (
        f"{ask}\n"
        f"Choose the label whose range fits, then give the exact score with three decimals.\n{bins}\n"
        + _FORMAT.format(example=example)
    )


def _compared(ask: str) -> str:
    return f"{ask} Answer with one word only: First or Second."


_TEN_POINTS = "very low: 0 to 3.5; low: 3.5 to 5; medium: 5 to 6.5; high: 6.5 to 8; very high: 8 to 10"

DIMENSIONS: Mapping[str, Dimension] = MappingProxyType(
    {
        dim.name: dim
        for dim in (
            Dimension(
                "aesthetics",
                "how beautiful people find an image",
                _DEGREES,
                (0.0, 3.5, 5.0, 6.5, 8.0, 10.0),
                _question(
                    "How beautiful would most people find this picture? Weigh light, colour and composition.",
                    _TEN_POINTS,
                    "medium 5.734",
                ),
                comparison=_compared("Which of these two pictures would most people find more beautiful?"),
            ),
            Dimension(
                "funniness",
                "how funny people find an image",
                _DEGREES,
                (0.0, 3.5, 5.0, 6.5, 8.0, 10.0),
                _question(
                    "How funny would most people find this picture? Think of surprise, absurdity and wit.",
                    _TEN_POINTS,
                    "high 7.218",
                ),
                comparison=_compared("Which of these two pictures would most people find funnier?"),
            ),
            Dimension(
                "emotional_valence",
                "how pleasant or unpleasant the feeling is that an image gives",
                ("negative", "neutral", "positive"),
                # The benchmark names -3..-0.1, 0..0.1 and 1..3; each gap is cut half-way.
                (-3.0, -0.05, 0.55, 3.0),
                _question(
                    "Which feeling does this picture give, from very unpleasant (-3) to very pleasant (3)?",
                    "negative: below 0; neutral: about 0; positive: above 0",
                    "negative -1.362",
                ),
                comparison=_compared("Which of these two pictures gives the more pleasant feeling?"),
            ),
            Dimension(
                "memorability",
                "how likely people are to remember an image after one look",
                _DEGREES,
                (0.0, 0.35, 0.5, 0.65, 0.8, 1.0),
                _question(
                    "How likely are people to recognise this picture again after a single look?",
                    "very low: 0 to 0.35; low: 0.35 to 0.5; medium: 0.5 to 0.65; high: 0.65 to 0.8; "
                    "very high: 0.8 to 1",
                    "medium 0.581",
                ),
                comparison=_compared("Which of these two pictures will people recognise more likely after one look?"),
            ),
        )
    }
)
"""The dimensions by name, in the benchmark's order."""


def dimension(name: str) -> Dimension:
    """Look up a dimension by its exact name.

    Raises:
        UnknownNameError: there is no such dimension.

    >>> dimension("memorability").high
    1.0
    """
    if name not in DIMENSIONS:
        raise unknown_name("dimension", name, DIMENSIONS)
    return DIMENSIONS[name]
