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
        labels: names of the bins, from the lowest to the highest.
        edges: the ends of the bins, one more than labels: bin k is [edges[k], edges[k + 1]), the last one
            closed.
        question: what an MLLM is asked after it has seen the image.
        decimals: digits after the point in an answer.
    """

    name: str
    summary: str
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    question: str
    decimals: int = 3

    def __post_init__(self) -> None:
        """Check that the bins are in order, without gaps, and each has a label."""
        ordered = all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False))
        if not self.labels or len(self.edges) != len(self.labels) + 1 or not ordered:
            raise InputError(
                f"dimension '{self.name}': expected rising edges, one more than labels, got "
                f"{len(self.labels)} labels and edges {self.edges}"
            )
        if len(set(self.labels)) != len(self.labels) or self.decimals < 1:
            raise InputError(f"dimension '{self.name}': labels must differ, and decimals be at least 1")

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
            InputError: the value is not in [low, high].

        >>> DIMENSIONS["aesthetics"].label(3.5), DIMENSIONS["aesthetics"].label(10.0)
        ('low', 'very high')
        """
        if not self.low <= value <= self.high:
            raise InputError(f"{self.name} runs from {self.low:g} to {self.high:g}, got {value}")
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
        return f"{self.label(rounded)} {rounded:.{self.decimals}f}"

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


_DEGREES = ("very low", "low", "medium", "high", "very high")
_FORMAT = "Answer with the label and the score only, nothing before or after, for example: {example}"


def _question(ask: str, bins: str, example: str) -> str:
    return (
        f"{ask}\n"
        f"Choose the label whose range fits, then give the exact score with three decimals.\n{bins}\n"
        + _FORMAT.format(example=example)
    )


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
