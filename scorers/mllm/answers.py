"""From what a model said about an image to `Scores`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..base import Scores
from ..dimensions import Dimension
from .parsing import parse_answer
from .readout import Reading


@dataclass(frozen=True)
class ReadAnswer:
    """What was read of one image in one dimension; NaN and None where something is not known.

    Attributes:
        value: in the dimension's unit.
        std: spread of the model's belief.
        mass: probability of valid answers, in [0, 1].
        label: the word for it.
        error: why there is no value.
    """

    value: float = float("nan")
    std: float = float("nan")
    mass: float = float("nan")
    label: str | None = None
    error: str | None = None


def from_reading(reading: Reading, labels: Sequence[str], min_mass: float) -> ReadAnswer:
    """Take the mean of an answer distribution, unless valid answers have less than `min_mass` of it.

    >>> from_reading(Reading(5.0, 1.0, 0.9, 2), ["low", "medium", "high"], 0.1).label
    'high'
    >>> from_reading(Reading(5.0, 1.0, 0.01, 2), ["low", "medium", "high"], 0.1).error
    'the model gave valid answers a probability of 0.01, below min_mass=0.1'
    """
    if reading.mass == 0 or reading.mass < min_mass:
        error = (
            f"the model gave valid answers a probability of {reading.mass:.2g}, below min_mass={min_mass:g}"
        )
        return ReadAnswer(mass=reading.mass, error=error)
    label = labels[reading.label] if reading.label >= 0 else None
    return ReadAnswer(reading.mean, reading.std, reading.mass, label)


def from_text(text: str, dim: Dimension) -> ReadAnswer:
    """Parse an answer in words; where that fails, keep why.

    >>> from ..dimensions import dimension
    >>> from_text("high 7", dimension("aesthetics")).value
    7.0
    >>> from_text("no idea", dimension("aesthetics")).error
    "no number in the answer 'no idea'"
    """
    try:
        value, label = parse_answer(text, dim)
    except ValueError as error:
        return ReadAnswer(error=str(error))
    return ReadAnswer(value, label=label)


def to_scores(answers: Sequence[ReadAnswer]) -> Scores:
    """Gather the answers of B images; `std` and `mass` are None where nobody knows them.

    >>> to_scores([ReadAnswer(1.0), ReadAnswer(error="no number")]).valid.tolist()
    [True, False]
    """
    std = torch.tensor([answer.std for answer in answers])
    mass = torch.tensor([answer.mass for answer in answers])
    return Scores(
        torch.tensor([answer.value for answer in answers]),
        std=None if bool(std.isnan().all()) else std,
        labels=[answer.label for answer in answers],
        mass=None if bool(mass.isnan().all()) else mass,
        errors=[answer.error for answer in answers],
    )
