"""Drawings as inline SVG, in the page's own colours (light or dark); each says in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from ..scorers.mllm.readout import Distribution

WIDTH, HEIGHT, MARGIN = 360, 150, 30
BINS = 30
MOST_POINTS = 2000


def distribution(found: Distribution, low: float, high: float, name: str) -> str:
    """Draw a judge's own distribution over its answers, with the mean that is the score.

    >>> found = Distribution(np.array([1.0, 2.0]), np.array([0.5, 0.5]), np.zeros(2), 0.9)
    >>> drawing = distribution(found, 0.0, 10.0, "aesthetics")
    >>> drawing.count("<rect"), "mean 1.50" in drawing
    (2, True)
    """
    if not len(found.values):
        return f"<p>The judge gave no valid answer any probability in {escape(_words(name))}.</p>"
    mean = float(found.values @ found.probabilities)
    std = math.sqrt(float(found.probabilities @ ((found.values - mean) ** 2 + found.stds**2)))
    shares, ends = np.histogram(found.values, BINS, (low, high), weights=found.probabilities)
    top = max(float(shares.max()), 1e-9)
    likely = float((ends[shares.argmax()] + ends[shares.argmax() + 1]) / 2)
    said = (
        f"{_words(name)}: mean {mean:.2f}, spread {std:.2f}, most likely about {likely:.2f}, on a scale from {low:g} "
        f"to {high:g}; valid answers had {found.mass:.0%} of the probability"
    )
    bars = [
        f'<rect x="{_x(a, low, high):.1f}" y="{_y(share / top):.1f}" '
        f'width="{_x(b, low, high) - _x(a, low, high):.1f}" '
        f'height="{(HEIGHT - 2 * MARGIN) * share / top:.1f}"><title>{a:.2f} to {b:.2f}: {share:.1%}</title></rect>'
        for share, a, b in zip(shares, ends[:-1], ends[1:], strict=True)
        if share > 0
    ]
    at = _x(mean, low, high)
    marks = f'<path class="cg-mark" d="M{at:.1f} {MARGIN - 8}V{HEIGHT - MARGIN}"/>'
    label = f'<text x="{at:.1f}" y="{MARGIN - 13}" text-anchor="middle">mean {mean:.2f} ± {std:.2f}</text>'
    inner = f'<g class="cg-bars">{"".join(bars)}</g>{marks}{label}{_axis(low, high)}'
    return f"{_svg(said, inner)}<p class='cg-note'>{escape(said)}.</p>"


def strip(values: Sequence[float | None], picked: int, low: float, high: float, name: str) -> str:
    """Draw one candidate's value among those of the others, on one line.

    >>> strip([0.1, 0.4, None], 1, 0.0, 1.0, "memorability").count("<circle")
    2
    """
    there = [value for value in values if value is not None]
    mine = values[picked]
    if mine is None:
        return "<span>no score</span>"
    place = 1 + sum(value > mine for value in there)
    said = f"{_words(name)} {mine:.3f}, place {place} of {len(there)}"
    ends = min([low, *there]), max([high, *there])

    def dot(value: float, kind: str) -> str:
        return f'<circle class="{kind}" cx="{8 + 184 * (value - ends[0]) / (ends[1] - ends[0]):.1f}" cy="10" r="5"/>'

    dots = "".join(dot(v, "cg-other") for i, v in enumerate(values) if v is not None and i != picked)
    return (
        f'<svg class="cg-strip" role="img" aria-label="{escape(said)}" viewBox="0 0 200 20">'
        f'<path class="cg-axis" d="M8 10H192"/>{dots}{dot(mine, "cg-mine")}</svg>'
    )


def scatter(
    points: Sequence[tuple[float, float, str]], across: tuple[str, float, float], up: tuple[str, float, float]
) -> str:
    """Draw files by two of their scores; each point tells its name.

    Args:
        points: value across, value up, and name; those with NaN are left out.
        across: name and range of the one axis.
        up: of the other.

    >>> scatter([(1, 2, "a.png"), (2, math.nan, "b.png")], ("a", 0, 10), ("b", 0, 10)).count("<circle")
    1
    """
    shown = [p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])]
    shown = shown[:: -(-len(shown) // MOST_POINTS)] if shown else shown
    if not shown:
        return "<p>No file has both scores.</p>"
    x_name, *x_ends = _widened(across, [p[0] for p in shown])
    y_name, *y_ends = _widened(up, [p[1] for p in shown])
    side, pad = 320, 40

    def place(value: float, ends: Sequence[float]) -> float:
        return (value - ends[0]) / (ends[1] - ends[0])

    dots = "".join(
        f'<circle class="cg-dot" cx="{pad + (side - pad - 10) * place(x, x_ends):.1f}" '
        f'cy="{10 + (side - pad - 10) * (1 - place(y, y_ends)):.1f}" r="5">'
        f"<title>{escape(name)}: {x:.3f}, {y:.3f}</title></circle>"
        for x, y, name in shown
    )
    grid = []
    for tick in range(5):
        x, y = pad + (side - pad - 10) * tick / 4, 10 + (side - pad - 10) * (1 - tick / 4)
        x_value, y_value = (ends[0] + (ends[1] - ends[0]) * tick / 4 for ends in (x_ends, y_ends))
        grid.append(f'<path class="cg-grid" d="M{x} 10V{side - pad}M{pad} {y}H{side - 10}"/>')
        grid.append(f'<text x="{x}" y="{side - pad + 14}" text-anchor="middle">{x_value:.3g}</text>')
        grid.append(f'<text x="{pad - 5}" y="{y + 4}" text-anchor="end">{y_value:.3g}</text>')
    names = (
        f'<text x="{(side + pad) / 2}" y="{side - 8}" text-anchor="middle">{escape(_words(str(x_name)))}</text>'
        f'<text transform="translate(11 {(side - pad) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(_words(str(y_name)))}</text>"
    )
    said = f"{len(shown)} files by {_words(str(x_name))} (across) and {_words(str(y_name))} (up)"
    return (
        f'<svg class="cg-plot" role="img" aria-label="{escape(said)}" viewBox="0 0 {side} {side}" '
        f'style="max-width:30rem">{"".join(grid)}{dots}{names}</svg>'
    )


def _widened(axis: tuple[str, float, float], values: Sequence[float]) -> tuple[str, float, float]:
    """An axis that holds its values and is not a point; scales without a fixed range are as wide as their values."""
    name, low, high = axis
    seen = (min(values), max(values))
    span = (seen[1] - seen[0]) or 1.0
    if low <= seen[0] and seen[1] <= high and span > 0.2 * (high - low):
        return axis
    return name, seen[0] - span / 10, seen[1] + span / 10


def _words(name: str) -> str:
    return name.replace("_", " ")


def _x(value: float, low: float, high: float) -> float:
    return MARGIN + (WIDTH - 2 * MARGIN) * (value - low) / (high - low)


def _y(share: float) -> float:
    return MARGIN + (HEIGHT - 2 * MARGIN) * (1 - share)


def _axis(low: float, high: float) -> str:
    parts = [f'<path class="cg-axis" d="M{MARGIN} {HEIGHT - MARGIN}H{WIDTH - MARGIN}"/>']
    for tick in range(5):
        value = low + (high - low) * tick / 4
        x = _x(value, low, high)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 15}" text-anchor="middle">{value:.3g}</text>')
    return "".join(parts)


def _svg(said: str, inner: str) -> str:
    return (
        f'<svg class="cg-plot" role="img" aria-label="{escape(said)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'style="max-width:32rem">{inner}</svg>'
    )
