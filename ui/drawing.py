"""Drawings of the page; each says in words what it shows, and has the page's own colours (light or dark)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from .._reports import plots
from .._reports.plots import Scale
from ..scorers.mllm.readout import Distribution

BINS = 30


def distribution(found: Distribution, low: float, high: float, name: str) -> str:
    """Draw a judge's own distribution over its answers, with the mean that is the score.

    >>> found = Distribution(np.array([1.0, 2.0]), np.array([0.5, 0.5]), np.zeros(2), 0.9)
    >>> drawing = distribution(found, 0.0, 10.0, "aesthetics")
    >>> drawing.count("<title>"), "mean 1.50" in drawing
    (2, True)
    """
    if not len(found.values):
        return f"<p>The judge gave no valid answer any probability in {escape(_words(name))}.</p>"
    mean = float(found.values @ found.probabilities)
    std = math.sqrt(float(found.probabilities @ ((found.values - mean) ** 2 + found.stds**2)))
    shares, ends = np.histogram(found.values, BINS, (low, high), weights=found.probabilities)
    likely = float((ends[shares.argmax()] + ends[shares.argmax() + 1]) / 2)
    said = (
        f"{_words(name)}: mean {mean:.2f}, spread {std:.2f}, most likely about {likely:.2f}, on a scale from {low:g} "
        f"to {high:g}; valid answers had {found.mass:.0%} of the probability"
    )
    across = Scale(low=low, high=high)
    drawing = plots.bars(shares.tolist(), ends.tolist(), across, said, (mean, f"mean {mean:.2f} ± {std:.2f}"))
    return f"{drawing}<p class='cg-note'>{escape(said)}.</p>"


def strip(values: Sequence[float | None], picked: int, low: float, high: float, name: str) -> str:
    """Draw one candidate's value among those of the others, on one line.

    >>> strip([0.1, 0.4, None], 1, 0.0, 1.0, "memorability").count("<use")
    2
    """
    there = [value for value in values if value is not None]
    mine = values[picked]
    if mine is None:
        return "<span>no score</span>"
    place = 1 + sum(value > mine for value in there)
    said = f"{_words(name)} {mine:.3f}, place {place} of {len(there)}"
    others = [value for i, value in enumerate(values) if value is not None and i != picked]
    return plots.strip(others, mine, min([low, *there]), max([high, *there]), said)


def scatter(
    points: Sequence[tuple[float, float, str]], across: tuple[str, float, float], up: tuple[str, float, float]
) -> str:
    """Draw files by two of their scores; each point tells its name.

    Args:
        points: value across, value up, and name; those with NaN are left out.
        across: name and range of the one axis.
        up: of the other.

    >>> scatter([(1, 2, "a.png"), (2, math.nan, "b.png")], ("a", 0, 10), ("b", 0, 10)).count("<use")
    1
    """
    shown = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    if not shown:
        return "<p>No file has both scores.</p>"
    said = f"{len(shown)} files by {_words(across[0])} (across) and {_words(up[0])} (up)"
    return plots.scatter(
        [(x, y) for x, y, _ in shown], _scale(across, [x for x, _, _ in shown]), _scale(up, [y for _, y, _ in shown]),
        said, [f"{name}: {x:.3f}, {y:.3f}" for x, y, name in shown],
    )  # fmt: skip


def _scale(axis: tuple[str, float, float], values: Sequence[float]) -> Scale:
    """An axis of the whole range if the values are spread over a fifth of it, else as wide as they are."""
    name, low, high = axis
    seen = (min(values), max(values))
    if low <= seen[0] and seen[1] <= high and seen[1] - seen[0] > 0.2 * (high - low):
        return Scale(_words(name), low, high)
    return Scale(_words(name))


def _words(name: str) -> str:
    return name.replace("_", " ")
