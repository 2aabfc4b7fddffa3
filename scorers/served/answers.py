"""Valid answers as texts, and what a server's top tokens say about them.

A server tells the likeliest tokens at a place as strings. Each that leads on to a valid answer is a branch; a branch
that nobody went down stands for the mean of the answers beneath it. So one greedy answer with its alternatives is a
distribution already, and each answer that is begun for the model and gone on with (`continue_final_message`) makes it
finer, until what is left moves the mean by less than `RESOLUTION` of the range.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..dimensions import Dimension
from ..mllm.readout import Reading, read_distribution

RESOLUTION = 1e-3
"""Part of the range by which branches that are left as they are may move the mean, together."""
Tokens = Sequence[tuple[str, float]]
"""Likeliest next tokens with their log probabilities."""


class ValidAnswers:
    """All answers that count, in any case, with values and labels.

    >>> levels = ValidAnswers({"bad": 0.0, "fair": 0.5, "fine": 1.0})
    >>> levels.beneath("F"), levels.beneath("x")
    ((0.75, 0.25, -1), None)
    """

    def __init__(self, values: Mapping[str, float], labels: Mapping[str, int] | None = None) -> None:
        self._texts = sorted(values, key=str.casefold)
        self._folded = [text.casefold() for text in self._texts]
        self._values = np.array([values[text] for text in self._texts])
        numbers = {text: index for index, text in enumerate(values)} if labels is None else labels
        self._labels = np.array([numbers[text] for text in self._texts])
        self.range = float(self._values.max() - self._values.min())

    @staticmethod
    def of(dim: Dimension) -> ValidAnswers:
        """Every "label number" of a dimension."""
        texts = {f"{label} {n}": float(n) for label in dim.labels for n in dim.numbers()}
        return ValidAnswers(texts, {text: dim.labels.index(text.rpartition(" ")[0]) for text in texts})

    def beneath(self, start: str) -> tuple[float, float, int] | None:
        """Of the answers that begin so: middle, half of what they span, and label if it is one; None for none."""
        folded = start.casefold()
        low = bisect_left(self._folded, folded)
        high = bisect_left(self._folded, folded + "\U0010ffff")
        if low == high:
            return None
        values, labels = self._values[low:high], self._labels[low:high]
        label = int(labels[0]) if (labels == labels[0]).all() else -1
        return float(values.min() + values.max()) / 2, float(values.max() - values.min()) / 2, label

    def ends(self, text: str) -> bool:
        """Whether an answer is complete."""
        folded = text.casefold()
        place = bisect_left(self._folded, folded)
        return place < len(self._folded) and self._folded[place] == folded


@dataclass
class Walk:
    """What is known of one image's answer.

    >>> walk = Walk(ValidAnswers({"yes": 1.0, "no": 0.0}))
    >>> walk.add("", [("Yes", math.log(0.5)), (" no", math.log(0.25)), ("maybe", math.log(0.25))])
    True
    >>> walk.read()
    Reading(mean=0.66..., std=0.47..., mass=0.75, label=0)
    """

    answers: ValidAnswers
    leaves: dict[str, float] = field(default_factory=lambda: {"": 0.0})

    def add(self, start: str, tokens: Tokens) -> bool:
        """Go on from an answer begun so; what leads nowhere is lost. Whether the start was a branch."""
        if start not in self.leaves:
            return False
        logprob, ended = self.leaves.pop(start), 1.0
        for token, given in tokens:
            longer = start + token if start else token.lstrip()
            if longer != start and self.answers.beneath(longer) is not None:
                self.leaves[longer] = float(np.logaddexp(self.leaves.get(longer, -np.inf), logprob + given))
                ended -= math.exp(given)
        if self.answers.ends(start) and ended > 0:  # whatever follows, the answer is said
            self.leaves[start] = logprob + math.log(ended)
        return True

    def next(self) -> str | None:
        """The branch that leaves most open, or None when enough is known."""
        total = sum(map(math.exp, self.leaves.values()))
        doubts = {start: self._doubt(start, logprob) for start, logprob in self.leaves.items()}
        if not total or sum(doubts.values()) <= RESOLUTION * self.answers.range * total:
            return None
        return max(doubts, key=lambda start: doubts[start])

    def _doubt(self, start: str, logprob: float) -> float:
        found = self.answers.beneath(start)
        return 0.0 if found is None or self.answers.ends(start) else found[1] * math.exp(logprob)

    def read(self) -> Reading:
        """Mean, spread, mass and likeliest label over the branches."""
        found = [(logprob, self.answers.beneath(start)) for start, logprob in self.leaves.items() if start]
        kept = [(logprob, *beneath) for logprob, beneath in found if beneath is not None]
        if not kept:
            return Reading(math.nan, math.nan, 0.0, -1)
        logprobs, middles, _, labels = map(np.array, zip(*kept, strict=True))
        known = labels >= 0
        named = int(labels[known][np.argmax(logprobs[known])]) if known.any() else -1
        reading = read_distribution(logprobs, middles, labels.astype(int) - labels.min())
        return Reading(reading.mean, reading.std, min(1.0, reading.mass), named)
