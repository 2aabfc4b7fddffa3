"""Writing on pictures in any script that a font on this machine has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

FALLBACKS = (
    "NotoColorEmoji.ttf",
    "Apple Color Emoji.ttc",
    "seguiemj.ttf",
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "DroidSansFallbackFull.ttf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "segoeui.ttf",
    "msyh.ttc",
    "unifont.otf",
)
"""File names of fonts with many scripts, as Linux, macOS and Windows bring them, which Pillow looks for where each
system keeps its fonts; the first that has a character draws it, after Pillow's own, which has Latin only."""

OWN = ""
"""Stands for the font that comes with Pillow."""
BITMAP_SIZES = (109, 160, 136, 128, 96, 64)
"""Sizes that fonts of pictures come in; what is drawn in one is scaled."""


@cache
def load(name: str, points: int) -> ImageFont.FreeTypeFont | None:
    """Return an installed font by its file name, at a size; None where it is not there or not in that size.

    >>> load("no such font.ttf", 20) is None
    True
    """
    try:
        if name == OWN:
            own = ImageFont.load_default(points)
            return own if isinstance(own, ImageFont.FreeTypeFont) else None
        return ImageFont.truetype(name, points)
    except OSError:
        return None


@cache
def size_of(name: str) -> int | None:
    """Return the one size that a font of pictures has, 0 for a font of any size, None if it is not installed."""
    if load(name, 20) is not None:
        return 0
    return next((size for size in BITMAP_SIZES if load(name, size) is not None), None)


@lru_cache(maxsize=65536)
def has(name: str, character: str) -> bool:
    """Whether a font draws a character as something else than its sign for unknown ones.

    >>> has(OWN, "a"), has(OWN, chr(0x4E2D))
    (True, False)
    """
    size = size_of(name)
    font = None if size is None else load(name, size or 20)
    if font is None:
        return False
    mode = "RGBA" if size else "L"
    drawn, unknown = font.getmask(character, mode), font.getmask("\U0010ffff", mode)
    return drawn.size != unknown.size or bytes(drawn) != bytes(unknown)


def is_silent(character: str) -> bool:
    """Whether a character only joins, marks or spaces others: it goes with the font of what stands before it."""
    return character.isspace() or unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc")


def font_for(character: str) -> str | None:
    """Return the first font that has a character; None if none has."""
    return next((name for name in (OWN, *FALLBACKS) if has(name, character)), None)


def undrawable(words: str) -> list[str]:
    """Return the characters that no font here can draw.

    >>> undrawable("plain text")
    []
    """
    return [c for c in dict.fromkeys(words) if not is_silent(c) and font_for(c) is None]


def runs(words: str) -> Iterator[tuple[str, str]]:
    """Yield pieces of a line, each with the font that draws it.

    >>> list(runs("a cat"))
    [('', 'a cat')]
    """
    piece, current = "", OWN
    for character in words:
        name = current if is_silent(character) else font_for(character) or OWN
        if name != current and piece:
            written = piece if current == OWN else piece.rstrip()
            yield current, written
            piece = piece[len(written) :]  # a space is as wide as in the rest of the line
            if piece and name != OWN:
                yield OWN, piece
                piece = ""
        piece, current = piece + character, name
    if piece:
        yield current, piece


def length(words: str, points: int) -> float:
    """Return how many pixels wide a line is."""
    return sum(_width(name, piece, points) for name, piece in runs(words))


def _width(name: str, piece: str, points: int) -> float:
    size = size_of(name)
    font = load(name, size or points)
    assert font is not None  # has() found a glyph in it
    return font.getlength(piece) * (points / size if size else 1)


def write(picture: Image.Image, at: tuple[int, int], words: str, points: int, colour: str) -> None:
    """Write one line, its upper left corner at a place; scripts that run from right to left do so piece by piece."""
    draw = ImageDraw.Draw(picture)
    x, y = at
    own = load(OWN, points)
    assert own is not None
    baseline = y + own.getmetrics()[0]
    for name, piece in runs(words):
        size = size_of(name)
        font = load(name, size or points)
        assert font is not None
        if not size:
            draw.text((x, baseline), piece, fill=colour, font=font, anchor="ls")
        else:
            wide = max(1, round(font.getlength(piece)))
            glyphs = Image.new("RGBA", (wide, size + size // 4))
            ImageDraw.Draw(glyphs).text((0, size), piece, font=font, embedded_color=True, anchor="ls")
            scaled = glyphs.resize((max(1, wide * points // size), max(1, glyphs.height * points // size)))
            picture.paste(scaled, (round(x), baseline - points), scaled)
        x += round(_width(name, piece, points))
