"""A figure of matplotlib with one pair of axes, in the style of all drawings.

Lines, areas and words are placed by their values without matplotlib's own Axes, whose making takes as long as all
that is drawn. Matplotlib is loaded when the first figure is.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .._texts import visible
from .svg import COLOURS, FONT_SIZE, for_a_page

SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "cogguided", "text.parse_math": False}
"""Of matplotlib: texts as they are, dollars too, and names that are the same every time."""
LEFT, RIGHT, ABOVE, BELOW = 50, 12, 20, 34
"""Margins round the axes, in pixels: for numbers and words."""
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

    def ticks(self, low: float, high: float) -> list[float]:
        """Return round values between the ends.

        >>> Scale().ticks(0.0, 9.0), Scale(log=True).ticks(0.3, 5.0)
        ([0.0, 2.5, 5.0, 7.5], [0.5, 1.0, 2.0, 4.0])
        """
        from matplotlib.ticker import MaxNLocator

        if self.log:
            return [2.0**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
        slack = (high - low) * 1e-9
        values = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        return [float(value) for value in values if low - slack <= value <= high + slack]

    def at(self, value: float) -> float:
        """Return where a value is, on an axis whose steps are equal."""
        return math.log2(value) if self.log else value


class Panel:
    """What a drawing is drawn on; positions and sizes are in pixels of the page, which are matplotlib's points.

    Args:
        figure: of matplotlib.
        box: left, lower, right and upper end of the axes.

    Attributes:
        ends: of the values on both axes, once they are set.
    """

    def __init__(self, figure: Any, box: tuple[float, float, float, float]) -> None:
        self.figure, self.box = figure, box
        self.across, self.up, self.ends = Scale(), Scale(), ((0.0, 1.0), (0.0, 1.0))
        self.place: Any = None

    def set(self, across: Scale, up: Scale, x_values: Sequence[float], y_values: Sequence[float]) -> None:
        """Place all that follows by its values; the axes reach as far as these."""
        from matplotlib.transforms import Bbox, BboxTransform

        self.across, self.up, self.ends = across, up, (across.ends(x_values), up.ends(y_values))
        (left, low), (right, high) = ((across.at(x), up.at(y)) for x, y in zip(*self.ends, strict=True))
        self.place = BboxTransform(Bbox.from_extents(left, low, right, high), Bbox.from_extents(*self.box))

    def frame(self, title: str = "", values_up: bool = True) -> None:
        """Write and rule the axes."""
        ends = self.ends
        left, low, right, high = self.box
        for value in self.across.ticks(*ends[0]):
            self.word(f"{value:.6g}", self.spot(value, ends[1][0])[0], low - 4, va="top")
        for value in self.up.ticks(*ends[1]) if values_up else ():
            self.line(ends[0], (value, value), color=COLOURS["grid"], linewidth=1, zorder=0)
            self.word(f"{value:.6g}", left - 6, self.spot(ends[0][0], value)[1], ha="right")
        self.line(ends[0], (ends[1][0],) * 2, color=COLOURS["line"], linewidth=1)
        self.word(self.across.name, (left + right) / 2, low - 18, va="top")
        self.word(self.up.name, 4, (low + high) / 2, ha="left", rotation=90)
        self.word(title, (left + right) / 2, high + 6, va="bottom")

    def spot(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixels of a pair of values."""
        across, up = self.place.transform((self.across.at(x), self.up.at(y)))
        return float(across), float(up)

    def line(self, x: Sequence[float], y: Sequence[float], **style: Any) -> Any:
        """Draw a line or markers through values; returns it, for a legend."""
        from matplotlib.lines import Line2D

        across, up = [self.across.at(value) for value in x], [self.up.at(value) for value in y]
        return self.figure.add_artist(Line2D(across, up, transform=self.place, markeredgewidth=0, **style))

    def area(self, corners: Sequence[tuple[float, float]], **style: Any) -> None:
        """Fill what lies between corners."""
        from matplotlib.patches import Polygon

        placed = [(self.across.at(x), self.up.at(y)) for x, y in corners]
        self.figure.add_artist(Polygon(placed, transform=self.place, linewidth=0, **style))

    def word(
        self, text: str, x: float, y: float, ha: str = "center", va: str = "center", rotation: float = 0
    ) -> None:
        """Write words at a pixel."""
        from matplotlib.text import Text
        from matplotlib.transforms import IdentityTransform

        if text:
            style: Any = {"color": COLOURS["ink"], "fontsize": FONT_SIZE, "rotation": rotation, "ha": ha, "va": va}
            self.figure.add_artist(Text(x, y, visible(text), transform=IdentityTransform(), **style))

    def legend(self, lines: Sequence[Any], names: Sequence[str]) -> None:
        """Tell the names of lines below the axes, two a row."""
        from matplotlib.transforms import IdentityTransform

        self.figure.legend(
            lines, [visible(name) for name in names], loc="upper left", ncols=2, frameon=False, borderaxespad=0,
            bbox_to_anchor=(self.box[0], self.box[1] - 38), bbox_transform=IdentityTransform(), fontsize=FONT_SIZE,
            labelcolor=COLOURS["ink"],
        )  # fmt: skip


def draw(
    size: tuple[int, int], fill: Callable[[Panel], None], says: str, tips: Iterable[str] = (), *, left: int = LEFT,
    right: int = RIGHT, above: int = ABOVE, below: int = BELOW,
) -> str:  # fmt: skip
    """Let `fill` draw on a panel within margins; returns the drawing, for a page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    wide, tall = size
    # what these set is of the whole process: one drawing at a time
    with _drawing, matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # only widths are taken from it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(wide / 72, tall / 72), dpi=72)
        figure.patch.set_visible(False)
        canvas: Any = FigureCanvasSVG(figure)
        fill(Panel(figure, (left, below, wide - right, tall - above)))
        raw = io.StringIO()
        canvas.print_svg(raw, metadata={"Date": None})
    return for_a_page(raw.getvalue(), size, says, tips)
