"""A scatter plot as inline SVG: a few lines of text need no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence

SIZE, MARGIN = 250, 34
MAX_POINTS = 3000
"""More points than this are thinned evenly: the page would become slow."""


def scatter(
    pairs: Sequence[tuple[float, float]], across: tuple[float, float], up: tuple[float, float] | None = None
) -> str:
    """Draw human scores (across) against a scorer's (up); pairs with a NaN are left out.

    Args:
        pairs: human score and scorer's score of each image.
        across: ends of the human scale.
        up: ends of the scorer's scale, with the line where both agree; None if it is another scale, which is
            then drawn from the lowest to the highest score.

    >>> drawing = scatter([(1.0, 2.0), (3.0, float("nan"))], (0.0, 10.0), (0.0, 10.0))
    >>> drawing.count("<circle"), drawing.startswith("<svg")
    (1, True)
    """
    points = [pair for pair in pairs if not math.isnan(pair[0]) and not math.isnan(pair[1])]
    points = points[:: -(-len(points) // MAX_POINTS)] if points else points
    values = [value for _, value in points] or [0.0, 1.0]
    ends = up or _widened(min(values), max(values))
    end = SIZE - 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" width="{SIZE}" height="{SIZE}" '
        'font-family="system-ui, sans-serif" font-size="10" fill="#5d6778">',
        f'<path d="M{MARGIN} 8V{SIZE - MARGIN}H{end}" fill="none" stroke="#5d6778"/>',
    ]
    for tick in range(5):
        share = tick / 4
        x, y = _place(share, share)
        human, score = (low + share * (high - low) for low, high in (across, ends))
        parts.append(f'<path d="M{x} 8V{SIZE - MARGIN}M{MARGIN} {y}H{end}" stroke="#e8ebf0"/>')
        parts.append(f'<text x="{x}" y="{SIZE - MARGIN + 13}" text-anchor="middle">{human:.3g}</text>')
        parts.append(f'<text x="{MARGIN - 4}" y="{y + 3}" text-anchor="end">{score:.3g}</text>')
    if up is not None:
        (x0, y0), (x1, y1) = _place(0, 0), _place(1, 1)
        parts.append(f'<path d="M{x0} {y0}L{x1} {y1}" stroke="#b6bfcd" stroke-dasharray="4 3"/>')
    parts.append('<g fill="#2f6db5" fill-opacity=".35">')
    for human, score in points:
        x, y = _place(_share(human, across), _share(score, ends))
        parts.append(f'<circle cx="{x}" cy="{y}" r="2.5"/>')
    parts.append(f'</g><text x="{(SIZE + MARGIN) / 2}" y="{SIZE - 6}" text-anchor="middle">people</text>')
    middle = (SIZE - MARGIN) / 2
    parts.append(f'<text transform="translate(9 {middle}) rotate(-90)" text-anchor="middle">scorer</text></svg>')
    return "".join(parts)


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _share(value: float, ends: tuple[float, float]) -> float:
    return (value - ends[0]) / (ends[1] - ends[0])


def _place(right: float, up: float) -> tuple[float, float]:
    """Position on the drawing of a point given in shares of the axes."""
    span = SIZE - MARGIN - 8
    return round(MARGIN + right * span, 1), round(SIZE - MARGIN - up * span, 1)
