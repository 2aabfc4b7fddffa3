"""HTML reports in one look: one page, one style, nothing to fetch, and every text of a user's is text.

Templates are in `templates/`: each extends `base.html`, which has the style within it, for light and dark, phone and
paper. What `render` is given is escaped; only a drawing of `plots` goes in as it is.
"""

from __future__ import annotations

import base64
import functools
import math
from pathlib import Path
from typing import Any

from .._texts import visible

TEMPLATES = Path(__file__).with_name("templates")


@functools.cache
def environment() -> Any:
    """Return the templates, compiled once; a value that a template asks for and does not get is an error."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def render(template: str, **values: Any) -> str:
    """Return a page; control characters of users' texts are spelt out in it.

    >>> page = render("vote.html", study="s", asked="<b>joy</b>\\x1b", pairs=[])
    >>> "&lt;b&gt;joy&lt;/b&gt;\\\\x1b" in page, page.startswith("<!doctype html>"), page.endswith("</html>\\n")
    (True, True, True)
    """
    page: str = environment().get_template(template).render(**values)
    return visible(page)


def change(mean: float, low: float, high: float) -> str:
    """Return a difference and its interval as a cell of a table; without the interval where there is none.

    >>> change(0.5, 0.25, 0.75), change(0.5, -math.inf, math.inf)
    ('+0.500 [+0.250, +0.750]', '+0.500')
    """
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" if math.isfinite(high - low) else f"{mean:+.3f}"


def data_url(data: bytes, kind: str) -> str:
    """Return an address that is the picture itself, so that a page needs no other file.

    >>> data_url(b"abc", "image/png")
    'data:image/png;base64,YWJj'
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
