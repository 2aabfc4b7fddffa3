"""Matplotlib's SVG as a part of a page, or as a file.

Colours are Okabe and Ito's, which those who see few colours tell apart too, as variables: a page sets others in the
dark (`templates/style.css`, `ui/style.css`); where it sets none they are those of a light page.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from xml.etree import ElementTree

from .._texts import visible

COLOURS = {
    "data": "#0072b2", "mark": "#d55e00", "third": "#009e73", "fourth": "#cc79a7",
    "ink": "#5c6470", "line": "#a4acb8", "grid": "#e3e6eb",
}  # fmt: skip
"""Of a light page: blue, vermilion, green and purple for what is shown; for words; for axes; for what lies behind."""
FONT_SIZE = 10
TIPS = "tips"
NAMES = {colour: name for name, colour in COLOURS.items()}
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
COLOUR = re.compile("|".join(COLOURS.values()))
VARIABLE = re.compile(r"var\(--plot-\w+, (#\w+)\)")
MARKER = re.compile("m[0-9a-f]+")
FONT = re.compile(r"font(?:-\w+)?: [^;]*;? ?")


def for_a_page(raw: str, size: tuple[int, int], says: str, tips: Iterable[str]) -> str:
    """Return matplotlib's file as a part of a page: small, with variables for colours, and names of its own.

    Args:
        raw: the file; what is drawn in groups called `TIPS` tells a tip each, in that order.
        size: width and height, in pixels of the page.
        says: the words for it.
        tips: what each tells when it is pointed at; empty: nothing.
    """
    words = iter(tips)
    root = ElementTree.fromstring(raw)
    for group in root.findall("*"):  # what it is made by, and a style that would be that of the whole page
        if group.tag != f"{SVG}g":
            root.remove(group)
    for group in root.iter(f"{SVG}g"):
        if group.get("id") == TIPS:
            for part in (p for p in group.iter() if p.tag in (f"{SVG}use", f"{SVG}path") and not p.get("id")):
                if tip := next(words):
                    ElementTree.SubElement(part, "title").text = visible(tip)
        _share_style(group)
    digest = hashlib.sha256(f"{says}{raw}".encode()).hexdigest()[:8]
    for part in root.iter():
        part.tag = part.tag.removeprefix(SVG)
        _rename(part, digest)
    root.attrib = {
        "class": "plot", "xmlns": SVG[1:-1], "viewBox": f"0 0 {size[0]} {size[1]}", "width": str(size[0]),
        "height": str(size[1]), "role": "img", "aria-label": visible(says), "font-size": str(FONT_SIZE),
        "font-family": "system-ui, sans-serif", "stroke-linejoin": "round",
    }  # fmt: skip
    return ElementTree.tostring(root, "unicode")


def _share_style(group: ElementTree.Element) -> None:
    """Say once what all points of a group look like: there may be thousands."""
    points = group.findall(f"{SVG}use")
    styles = {point.get("style", "") for point in points}
    if len(styles) == 1:
        group.set("style", styles.pop())
        for point in points:
            del point.attrib["style"]


def _rename(part: ElementTree.Element, digest: str) -> None:
    """Keep of an element's attributes what a page needs; only what is used again has a name, unlike any other's."""
    name, link = part.attrib.pop("id", ""), part.attrib.pop(LINK, "")
    if part.tag == "path" and MARKER.fullmatch(name):
        part.set("id", f"plot-{digest}-{name}")
    if link:
        part.set("href", f"#plot-{digest}-{link[1:]}")
    for key in ("d", "x", "y", "transform"):
        if key in part.attrib:
            part.set(key, NUMBER.sub(_rounded, " ".join(part.attrib[key].split())))
    if part.get("transform", "").startswith("rotate(-0 "):
        del part.attrib["transform"]
    if "style" in part.attrib:
        style = COLOUR.sub(lambda found: f"var(--plot-{NAMES[found[0]]}, {found[0]})", part.attrib["style"])
        part.set("style", FONT.sub("", style) if part.tag == "text" else style)
    if part.text and not part.text.strip():
        part.text = None
    part.tail = None


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.1f}".removesuffix(".0")


def standalone(drawings: Sequence[str], says: str) -> str:
    """Return drawings side by side as the content of one SVG file, in the colours of a light page, on white.

    >>> drawing = '<svg class="plot" width="20" height="10"><path style="fill: var(--plot-data, #0072b2)"/></svg>'
    >>> file = standalone([drawing, drawing], "two")
    >>> 'width="40"' in file, "var(" in file, file.count("fill: #0072b2"), "<title>two</title>" in file
    (True, False, 2, True)
    """
    heads = [drawing[: drawing.index(">")] for drawing in drawings]
    sizes = [[int(size) for size in re.findall(r'(?:width|height)="(\d+)"', head)] for head in heads]
    wide, tall = sum(width for width, _ in sizes), max(height for _, height in sizes)
    parts, at = [], 0
    for drawing, (width, _) in zip(drawings, sizes, strict=True):
        parts.append(VARIABLE.sub(r"\1", drawing).replace("<svg ", f'<svg x="{at}" ', 1))
        at += width
    head = f'<svg xmlns="{SVG[1:-1]}" width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}">'
    title = f"<title>{escape(visible(says))}</title>"
    return f'{head}{title}<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
