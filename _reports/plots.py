"""Every drawing of the reports, the page and the benchmarks, in one style: SVG by matplotlib, light or dark.

A drawing is a text `<svg class="plot" …>` to put into a page; `svg.standalone` makes a file of several. Words stay
words, the same values give the same text, and `says` is what a screen reader says.

Matplotlib is loaded when the first one is drawn; its settings, and those of whoever else uses it, stay as they are.
"""

from __future__ import annotations

import functools
import io
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .._texts import visible
from .svg import COLOURS, FONT_SIZE, TIPS, for_a_page

SERIES = ("mark", "third", "fourth", "data")
SHAPES = "sD^vPX"
MOST_POINTS = 3000
"""More points than this are thinned evenly: a page would become slow."""
CROWD = 100
"""From so many points on they are drawn fainter, so that one sees where most lie."""
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "cogguided", "text.parse_math": False}
"""Of matplotlib: texts as they are, dollars too, and names that are the same every time."""
_drawing = threading.Lock()


@dataclass(frozen=True)
class Scale:
    """What an axis shows, from where to where.

    Attributes:
        name: of what is shown, with its unit; may be empty.
        low: the lower end; None: as far as what is drawn.
        high: the upper end; None: likewise.
        log: whether twice as much is one step.
    """

    name: str = ""
    low: float | None = None
    high: float | None = None
    log: bool = False

    def ends(self, values: Sequence[float]) -> tuple[float, float]:
        """Return where the axis begins and ends, a twentieth further than the values if nothing else is said.

        >>> Scale().ends([1.0, 3.0]), Scale(low=0.0, high=10.0).ends([1.0]), Scale().ends([])
        ((0.9, 3.1), (0.0, 10.0), (0.0, 1.0))
        """
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if self.log:
            return self.low or low / 1.2, self.high or high * 1.2
        pad = (high - low) / 20 if high > low else abs(high) / 10 or 0.5
        pad *= bool(values)
        return low - pad if self.low is None else self.low, high + pad if self.high is None else self.high


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

    def fill(axes: Any) -> None:
        ends = _frame(axes, across, up, [x for x, _, _ in shown], [y for _, y, _ in shown])
        if equal:
            both = (max(ends[0][0], ends[1][0]), min(ends[0][1], ends[1][1]))
            axes.plot(both, both, "--", color=COLOURS["line"], linewidth=1.2, clip_on=False)
        if shown:
            axes.plot(
                [x for x, _, _ in shown], [y for _, y, _ in shown], "o", color=COLOURS["data"], markersize=5.5,
                markeredgewidth=0, alpha=0.45 if len(shown) > CROWD else 0.8, clip_on=False, gid=TIPS,
            )  # fmt: skip

    return _draw((260, 250), fill, says, [name for _, _, name in shown])


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
    shown = [(line, line.finite()) for line in lines]
    every = [point for _, of in shown for point in of]
    if not every:
        return "<p>no values</p>"
    legend = any(line.name for line in lines)

    def fill(axes: Any) -> None:
        heights = [value for point in every for value in point[1:]] + ([] if level is None else [level])
        ends = _frame(axes, across, up, [point[0] for point in every], heights, title)
        if level is not None:
            axes.plot(ends[0], (level, level), ":", color=COLOURS["line"], linewidth=1.2, clip_on=False)
        styles = iter(range(len(lines)))
        for line, of in shown:
            if line.joined:
                _line(axes, line, of)
            elif of:
                _points(axes, line, of, next(styles))
        if legend:
            axes.legend(
                loc="upper left", bbox_to_anchor=(0, -38 / axes.bbox.height), borderaxespad=0, ncols=2, frameon=False,
                fontsize=FONT_SIZE, labelcolor=COLOURS["ink"],
            )  # fmt: skip

    rows = -(-sum(bool(line.name) for line in lines) // 2)
    return _draw((380, 260), fill, says, below=18 * rows) if legend else _draw((340, 200), fill, says)


def _line(axes: Any, line: Line, of: Sequence[tuple[float, float, float, float]]) -> None:
    across, values, lows, highs = zip(*of, strict=True) if of else ((), (), (), ())
    if line.within and of:
        round_it = across + across[::-1], highs + lows[::-1]
        axes.fill(*round_it, color=COLOURS["data"], alpha=0.15, linewidth=0, clip_on=False)
    axes.plot(
        across, values, "o-", color=COLOURS["data"], markersize=4, markeredgewidth=0, linewidth=1.5, clip_on=False,
        label=line.name or None,
    )  # fmt: skip


def _points(axes: Any, line: Line, of: Sequence[tuple[float, float, float, float]], number: int) -> None:
    across, values, _, _ = zip(*of, strict=True)
    reach = [[y - low for _, y, low, _ in of], [high - y for _, y, _, high in of]]
    axes.errorbar(
        across, values, reach, fmt=SHAPES[number // len(SERIES) % len(SHAPES)], markersize=5, linewidth=1.2,
        color=COLOURS[SERIES[number % len(SERIES)]], clip_on=False, label=line.name or None,
    )  # fmt: skip


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

    def fill(axes: Any) -> None:
        (low, high), _ = _frame(axes, across, Scale(low=0, high=top), list(edges), [], ticks_up=False)
        heights, starts, widths = ([s for s, _, _ in shown], [a for _, a, _ in shown], [b - a for _, a, b in shown])
        for bar in axes.bar(starts, heights, widths, align="edge", color=COLOURS["data"], clip_on=False):
            bar.set_gid(TIPS)
        if mark is not None:
            axes.plot((mark[0],) * 2, (0, top * 1.05), color=COLOURS["mark"], linewidth=2, clip_on=False)
            place = (mark[0] - low) / (high - low)
            side = "left" if place < 0.2 else "right" if place > 0.8 else "center"
            axes.text(mark[0], top * 1.08, visible(mark[1]), ha=side, color=COLOURS["ink"], fontsize=FONT_SIZE)

    tips = [f"{a:.2f} to {b:.2f}: {share:.1%}" for share, a, b in shown]
    return _draw((360, 150), fill, says, tips, left=14, above=24, below=0 if across.name else -14)


def strip(values: Sequence[float], mine: float, low: float, high: float, says: str) -> str:
    """Draw one value among others on one line from `low` to `high`, in the height of a line of text.

    >>> strip([0.1, 0.3], 0.4, 0.0, 1.0, "the highest of three").count("<use")
    3
    """

    def fill(axes: Any) -> None:
        axes.set(xlim=(low, high), ylim=(-1, 1))
        axes.plot((low, high), (0, 0), color=COLOURS["line"], linewidth=1, clip_on=False)
        for x, colour, alpha in ((values, "ink", 0.35), ((mine,), "mark", 1.0)):
            axes.plot(x, [0] * len(x), "o", color=COLOURS[colour], alpha=alpha, markersize=10, markeredgewidth=0,
                      clip_on=False)  # fmt: skip

    return _draw((200, 20), fill, says, left=8, right=8, above=0, below=-34)


def _frame(
    axes: Any, across: Scale, up: Scale, x_values: Sequence[float], y_values: Sequence[float], title: str = "",
    ticks_up: bool = True,
) -> tuple[tuple[float, float], tuple[float, float]]:  # fmt: skip
    """Set the ends of both axes, and write and rule them: matplotlib's own ticks take most of its time."""
    ends = across.ends(x_values), up.ends(y_values)
    if across.log:
        axes.set_xscale("log", base=2)
        axes.set_xticks([], minor=True)
        axes.set_xticks([])
    axes.set(xlim=ends[0], ylim=ends[1])
    word = functools.partial(axes.text, color=COLOURS["ink"], fontsize=FONT_SIZE)
    beside, below = axes.get_yaxis_transform(), axes.get_xaxis_transform()
    for value in _ticks(across, *ends[0]):
        word(value, -4 / axes.bbox.height, f"{value:.6g}", ha="center", va="top", transform=below)
    if ticks_up:
        levels = _ticks(up, *ends[1])
        axes.hlines(levels, *ends[0], colors=COLOURS["grid"], linewidth=1, zorder=0, clip_on=False)
        for value in levels:
            word(-0.02, value, f"{value:.6g}", ha="right", va="center", transform=beside)
    axes.plot((0, 1), (0, 0), color=COLOURS["line"], linewidth=1, transform=axes.transAxes, clip_on=False)
    figure = axes.figure
    if across.name:
        word(0.5, -18 / axes.bbox.height, visible(across.name), ha="center", va="top", transform=axes.transAxes)
    if up.name:
        middle = (axes.bbox.y0 + axes.bbox.y1) / 2 / figure.bbox.height
        word(4 / figure.bbox.width, middle, visible(up.name), rotation=90, ha="left", va="center",
             transform=figure.transFigure)  # fmt: skip
    if title:
        word(0.5, 1 + 6 / axes.bbox.height, visible(title), ha="center", va="bottom", transform=axes.transAxes)
    return ends


def _ticks(scale: Scale, low: float, high: float) -> list[float]:
    from matplotlib.ticker import LogLocator, MaxNLocator

    locator = LogLocator(2) if scale.log else MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])
    slack = (high - low) * 1e-9
    return [float(value) for value in locator.tick_values(low, high) if low - slack <= value <= high + slack]


def _draw(
    size: tuple[int, int], fill: Callable[[Any], None], says: str, tips: Iterable[str] = (), *, left: int = 50,
    right: int = 12, above: int = 20, below: int = 0,
) -> str:  # fmt: skip
    """Let `fill` draw on axes within margins; all in pixels of the page, which are matplotlib's points."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    wide, tall = size[0], size[1] + max(0, below)
    # what these set is of the whole process: one drawing at a time
    with _drawing, matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # only widths are taken from it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(wide / 72, tall / 72), dpi=72)
        canvas: Any = FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        foot = 34 + below
        axes = figure.add_axes((left / wide, foot / tall, (wide - left - right) / wide, (tall - foot - above) / tall))
        axes.set_axis_off()
        fill(axes)
        raw = io.StringIO()
        canvas.print_svg(raw, metadata={"Date": None})
    return for_a_page(raw.getvalue(), (wide, tall), says, tips)
