"""What is known without looking: three predictions from training ratings that any scorer should beat.

The train mean minimises MSE among constants, the train median MAE; "true label known" predicts the train mean
of the human score's own bin, which is what a perfect labeller without numbers would reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ..._errors import InputError
from ..dimensions import Dimension
from .metrics import Floats, Judged, judged

REFERENCES = ("train mean", "train median", "true label known")


@dataclass(frozen=True)
class TrainFigures:
    """What the training ratings of a dimension say on the whole.

    Attributes:
        count: how many ratings.
        mean: their mean.
        median: their median.
        label_means: mean of the ratings in each bin that has some.
        source: which ratings.
    """

    count: int
    mean: float
    median: float
    label_means: Mapping[str, float]
    source: str = ""


def train_figures(scores: Sequence[float], dim: Dimension, source: str = "") -> TrainFigures:
    """Summarise training ratings of a dimension.

    Raises:
        InputError: no ratings, or one out of range.

    >>> from ..dimensions import dimension
    >>> figures = train_figures([1.0, 3.0, 9.0], dimension("funniness"))
    >>> figures.median, dict(figures.label_means)
    (3.0, {'very low': 2.0, 'very high': 9.0})
    """
    if not len(scores):
        raise InputError(f"{dim.name}: no training ratings")
    values = np.asarray(scores, dtype=np.float64)
    labels = np.array([dim.label(value) for value in values.tolist()])
    means = {label: float(values[labels == label].mean()) for label in dim.labels if label in labels}
    return TrainFigures(len(values), float(values.mean()), float(np.median(values)), means, source)


def reference(name: str, human: Sequence[float] | Floats, dim: Dimension, figures: TrainFigures) -> Judged:
    """Predict the human scores of a dimension by one of `REFERENCES`.

    NaN for a score whose bin has no training ratings.

    Raises:
        InputError: an unknown reference.

    >>> from ..dimensions import dimension
    >>> figures = train_figures([1.0, 3.0, 9.0], dimension("funniness"))
    >>> reference("true label known", [2.5, 8.5], dimension("funniness"), figures).score.tolist()
    [2.0, 9.0]
    """
    people = np.asarray(human, dtype=np.float64)
    if name == "train mean":
        guess = np.full(len(people), figures.mean)
    elif name == "train median":
        guess = np.full(len(people), figures.median)
    elif name == "true label known":
        known = [figures.label_means.get(dim.label(value), math.nan) for value in people.tolist()]
        guess = np.array(known, dtype=np.float64)
    else:
        raise InputError(f"unknown reference {name!r}: expected one of {', '.join(REFERENCES)}")
    return judged(people, guess, dim)


def _of_cogip(mean: float, median: float, label_means: Mapping[str, float]) -> TrainFigures:
    return TrainFigures(800, mean, median, label_means, "CogIP-Bench, training split")


COGIP_TRAIN: Mapping[str, TrainFigures] = MappingProxyType(
    {
        "aesthetics": _of_cogip(
            5.6839,
            5.6875,
            {"very low": 2.9877, "low": 4.4588, "medium": 5.7068, "high": 6.929, "very high": 8.2387},
        ),
        "funniness": _of_cogip(
            4.7915,
            5.188,
            {"very low": 2.101, "low": 4.2562, "medium": 5.6618, "high": 7.0282, "very high": 8.4308},
        ),
        "emotional_valence": _of_cogip(0.0025, 0.0, {"negative": -1.7628, "neutral": 0.0, "positive": 1.8798}),
        "memorability": _of_cogip(
            0.5367,
            0.591,
            {"very low": 0.0905, "low": 0.445, "medium": 0.5877, "high": 0.7271, "very high": 0.8648},
        ),
    }
)
"""Figures of the 3,200 training ratings of CogIP-Bench (arXiv 2511.22805, CC BY 4.0), zeros included."""
