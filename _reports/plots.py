"""Every drawing of the reports, the page and the benchmarks, in one style: SVG by matplotlib, light or dark.

A drawing is a text `<svg class="plot" …>` to put into a page; `svg.standalone` makes a file of several. Words stay
words, the same values give the same text, and `says` is what a screen reader says. What a user has set of matplotlib
neither shows in them nor is changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .panel import BELOW, Panel, Scale, draw
from .svg import COLOURS, TIPS

__all__ = ["Line", "Scale", "bars", "curves", "scatter", "strip"]

SERIES = ("mark", "third", "fourth", "data")
SHAPES = "sD^vPX"
MOST_POINTS = 3000
"""More points than this are thinned evenly: a page would become slow."""
CROWD = 100
"""From so many points on they are drawn fainter, so that one sees where most lie."""


@dataclass(frozen=True)
class Line:
    """Values along an axis, with what they may as well be.

    Attributes:
        points: position and value of each; those that are no number are left out.
        within: lower and upper end of each one's interval, or nothing.
        name: for the legend; empty: not in it.
        joined: a line with a band; else points with bars.
    """

    points: Sequence[tuple[float, float]]
    within: Sequence[tuple[float, float]] = ()
    name: str = ""
    joined: bool = True

    def finite(self) -> list[tuple[float, float, float, float]]:
        """Return position, value, and ends of the interval; an interval without ends is the value itself."""
        within = self.within or [(value, value) for _, value in self.points]
        return [
            (x, y, low if math.isfinite(low) else y, high if math.isfinite(high) else y)
            for (x, y), (low, high) in zip(self.points, within, strict=True)
            if math.isfinite(x) and math.isfinite(y)
        ]


def scatter(
    points: Sequence[tuple[float, float]], across: Scale, up: Scale, says: str, names: Sequence[str] = (),
    equal: bool = False,
) -> str:  # fmt: skip
    """Draw points; those that are no number are left out.

    Args:
        points: value across and value up of each.
        across: the one axis.
        up: the other.
        says: what is to be seen, in a sentence.
        names: what each point tells when it is pointed at, or nothing.
        equal: with the line where both values are the same.

    >>> drawing = scatter([(1.0, 2.0), (3.0, math.nan)], Scale("people", 0, 10), Scale("scorer", 0, 10), "one point")
    >>> drawing.count("<use"), drawing.startswith('<svg class="plot"'), ">people</text>" in drawing
    (1, True, True)
    """
    labels = names or [""] * len(points)
    shown = [(x, y, n) for (x, y), n in zip(points, labels, strict=True) if math.isfinite(x) and math.isfinite(y)]
    shown = shown[:: -(-len(shown) // MOST_POINTS)] if shown else shown

    x, y = [x for x, _, _ in shown], [y for _, y, _ in shown]

    def fill(panel: Panel) -> None:
        panel.set(across, up, x, y)
        panel.frame()
        if equal:
            lows, highs = zip(*panel.ends, strict=True)
            both = (max(lows), min(highs))
            panel.line(both, both, linestyle="--", color=COLOURS["line"], linewidth=1.2)
        if shown:
            alpha = 0.45 if len(shown) > CROWD else 0.8
            panel.line(x, y, linestyle="", marker="o", markersize=5.5, color=COLOURS["data"], alpha=alpha, gid=TIPS)

    return draw((260, 250), fill, says, [name for _, _, name in shown])


def curves(
    lines: Sequence[Line], across: Scale, up: Scale, says: str, title: str = "", level: float | None = None
) -> str:
    """Draw lines with bands, and points with bars; those that have a name are in a legend.

    Args:
        lines: what is drawn; without any value there is a sentence instead of a drawing.
        across: the axis of positions.
        up: the axis of values.
        says: what is to be seen, in a sentence.
        title: above it.
        level: a value that the others are to be compared with.

    >>> line = Line([(0.0, 1.0), (1.0, 2.0), (2.0, math.nan)], [(0.5, 1.5), (1.5, 2.5), (0.0, 0.0)])
    >>> drawing = curves([line], Scale("minutes"), Scale(), "it rises")
    >>> drawing.count("<use"), 'aria-label="it rises"' in drawing
    (2, True)
    """
    shown = [(line, of) for line in lines if (of := line.finite())]
    every = [point for _, of in shown for point in of]
    if not every:
        return "<p>no values</p>"
    heights = [value for point in every for value in point[1:]] + ([] if level is None else [level])
    rows = -(-sum(bool(line.name) for line, _ in shown) // 2)

    def fill(panel: Panel) -> None:
        panel.set(across, up, [point[0] for point in every], heights)
        panel.frame(title)
        if level is not None:
            panel.line(panel.ends[0], (level, level), linestyle=":", color=COLOURS["line"], linewidth=1.2)
        series = iter(range(len(lines)))
        drawn = [_joined(panel, of) if line.joined else _apart(panel, of, next(series)) for line, of in shown]
        if rows:
            named = [(one, line.name) for one, (line, _) in zip(drawn, shown, strict=True) if line.name]
            panel.legend([one for one, _ in named], [name for _, name in named])

    return draw((380, 260 + 18 * rows), fill, says, below=BELOW + 18 * rows) if rows else draw((340, 200), fill, says)


Points = Sequence[tuple[float, float, float, float]]


def _joined(panel: Panel, of: Points) -> Any:
    lower, upper = [(x, low) for x, _, low, _ in of], [(x, high) for x, _, _, high in of]
    if lower != upper:
        panel.area([*upper, *reversed(lower)], color=COLOURS["data"], alpha=0.15)
    x, y = [x for x, _, _, _ in of], [y for _, y, _, _ in of]
    return panel.line(x, y, marker="o", color=COLOURS["data"], markersize=4, linewidth=1.5)


def _apart(panel: Panel, of: Points, number: int) -> Any:
    colour, shape = COLOURS[SERIES[number % len(SERIES)]], SHAPES[number // len(SERIES) % len(SHAPES)]
    for at, _, low, high in of:
        panel.line((at, at), (low, high), color=colour, linewidth=1.2)
    x, y = [x for x, _, _, _ in of], [y for _, y, _, _ in of]
    return panel.line(x, y, linestyle="", marker=shape, color=colour, markersize=6)


def bars(
    shares: Sequence[float], edges: Sequence[float], across: Scale, says: str, mark: tuple[float, str] | None = None
) -> str:
    """Draw shares of bins as bars, with one value marked; empty bins are left out.

    Args:
        shares: of B bins, 0 or more.
        edges: B + 1 ends of the bins, rising.
        across: the axis of values.
        says: what is to be seen, in a sentence.
        mark: a value, and the words for it.

    >>> drawing = bars([0.25, 0.0, 0.75], [0.0, 1.0, 2.0, 3.0], Scale(low=0, high=3), "mostly high", (2.0, "mean 2"))
    >>> drawing.count("<title>"), "2.00 to 3.00: 75.0%" in drawing, ">mean 2</text>" in drawing
    (2, True, True)
    """
    shown = [(s, a, b) for s, a, b in zip(shares, edges[:-1], edges[1:], strict=True) if s > 0]
    top = max((share for share, _, _ in shown), default=1.0)

    def fill(panel: Panel) -> None:
        panel.set(across, Scale(low=0, high=top), edges, ())
        panel.frame(values_up=False)
        for share, a, b in shown:
            panel.area([(a, 0), (a, share), (b, share), (b, 0)], color=COLOURS["data"], gid=TIPS)
        if mark is not None:
            panel.line((mark[0],) * 2, (0, top * 1.05), color=COLOURS["mark"], linewidth=2)
            low, high = panel.ends[0]
            place = (mark[0] - low) / (high - low)
            side = "left" if place < 0.2 else "right" if place > 0.8 else "center"
            panel.word(mark[1], *panel.spot(mark[0], top * 1.08), ha=side, va="bottom")

    tips = [f"{a:.2f} to {b:.2f}: {share:.1%}" for share, a, b in shown]
    return draw((360, 150), fill, says, tips, left=14, above=24, below=BELOW if across.name else 20)


def strip(values: Sequence[float], mine: float, low: float, high: float, says: str) -> str:
    """Draw one value among others on one line from `low` to `high`, in the height of a line of text.

    >>> strip([0.1, 0.3], 0.4, 0.0, 1.0, "the highest of three").count("<use")
    3
    """

    def fill(panel: Panel) -> None:
        panel.set(Scale(low=low, high=high), Scale(low=-1, high=1), (), ())
        panel.line((low, high), (0, 0), color=COLOURS["line"], linewidth=1)
        for x, colour, alpha in ((values, "ink", 0.35), ((mine,), "mark", 1.0)):
            panel.line(x, [0] * len(x), linestyle="", marker="o", markersize=10, color=COLOURS[colour], alpha=alpha)

    return draw((200, 20), fill, says, left=8, right=8, above=0, below=0)
