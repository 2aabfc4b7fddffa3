"""Contact sheets: all candidates at a glance, best first, each with its score and seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ...guidance import Candidate
from .fonts import length, write

PAPER, INK, FAINT = "#fbfaf7", "#1d1d1f", "#77767c"
GOLD, EDGE, ALARM = "#e0a100", "#dedcd5", "#b3261e"
GAP, BORDER, HEADER, TITLE, LINE = 14, 4, 46, 23, 17


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet: a title, faint lines below it, and a frame in gold if it is marked."""

    image: Image.Image
    title: str
    lines: tuple[str, ...] = ()
    marked: bool = False
    alarm: bool = False


def contact_sheet(
    candidates: Sequence[Candidate],
    prompts: Sequence[str] | None = None,
    columns: int = 8,
    size: int = 192,
) -> Image.Image:
    """Draw all candidates on one sheet, grouped by prompt, best first; the chosen are framed in gold.

    Args:
        candidates: in any order; those without a valid score come last.
        prompts: the user's prompts, as headings; None: the wordings of the candidates.
        columns: pictures in a row, at most.
        size: pixels of a picture's longer side, about: small ones are enlarged by a whole factor.

    >>> red = Candidate(Image.new("RGB", (64, 64), "red"), "a heart", seed=0, score=0.7, chosen=True)
    >>> contact_sheet([red]).size
    (228, 297)
    """
    groups: list[tuple[str, list[Tile]]] = []
    for request in sorted({c.request for c in candidates}):
        mine = [c for c in candidates if c.request == request]
        ranked = sorted(mine, key=lambda c: (not c.chosen, *c.rank))
        heading = prompts[request] if prompts is not None and request < len(prompts) else mine[0].prompt
        groups.append((heading, [tile(c, heading) for c in ranked]))
    return draw_sheet(groups, columns, size)


def tile(candidate: Candidate, heading: str | None = None) -> Tile:
    """Return how a candidate looks on a sheet; its wording is shown where it differs from the heading.

    >>> tile(Candidate(Image.new("RGB", (1, 1)), "a", 3, score=0.7, scores={"valence": 1.2})).title
    'valence 1.200'
    """
    seed = "" if candidate.seed is None else f"seed {candidate.seed}"
    seed = seed if candidate.finished else f"draft · {seed}"
    more: tuple[str, ...] = () if heading in (None, candidate.prompt) else (candidate.prompt,)
    more += () if candidate.held_back is None else (f"out: {candidate.held_back}",)
    if not candidate.valid:
        lines = (candidate.error or "", seed, *more)
        return Tile(candidate.image, "not valid", lines, candidate.chosen, alarm=True)
    terms = tuple(f"{name.replace('_', ' ')} {value:.3f}" for name, value in candidate.scores.items())
    if not terms:
        return Tile(candidate.image, seed, more, candidate.chosen)
    if len(terms) == 1:
        return Tile(candidate.image, terms[0], (seed, *more), candidate.chosen)
    return Tile(candidate.image, f"total {candidate.score:.3f} · {seed}", (*terms, *more), candidate.chosen)


def draw_sheet(groups: Sequence[tuple[str, Sequence[Tile]]], columns: int = 8, size: int = 192) -> Image.Image:
    """Draw groups of tiles under their headings.

    >>> draw_sheet([("squares", [Tile(Image.new("RGB", (8, 8)), "black")])], size=64).size
    (100, 169)
    """
    scaled = [(heading, [(t, scale(t.image, size)) for t in tiles]) for heading, tiles in groups]
    pictures = [image for _, tiles in scaled for _, image in tiles]
    cell_w = max(image.width for image in pictures) + 2 * BORDER + GAP
    caption = TITLE + LINE * max(len(t.lines) for _, tiles in groups for t in tiles)
    cell_h = max(image.height for image in pictures) + 2 * BORDER + caption + GAP
    across = min(columns, max(len(tiles) for _, tiles in scaled))
    rows = sum(math.ceil(len(tiles) / across) for _, tiles in scaled)
    sheet = Image.new("RGB", (GAP + across * cell_w, GAP + len(scaled) * HEADER + rows * cell_h), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = GAP
    for heading, tiles in scaled:
        text(sheet, (GAP, y + 4), heading, 24, INK, sheet.width - 2 * GAP)
        y += HEADER
        for start in range(0, len(tiles), across):
            for column, (facts, image) in enumerate(tiles[start : start + across]):
                draw_tile(sheet, draw, (GAP + column * cell_w, y), facts, image)
            y += cell_h
    return sheet


def draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], facts: Tile, image: Image.Image
) -> None:
    """Draw one framed picture with its lines."""
    x, y = at
    right, bottom = x + image.width + 2 * BORDER - 1, y + image.height + 2 * BORDER - 1
    if facts.marked:
        draw.rounded_rectangle((x, y, right, bottom), radius=BORDER, fill=GOLD)
    else:
        draw.rectangle((x + BORDER - 1, y + BORDER - 1, right - BORDER + 1, bottom - BORDER + 1), fill=EDGE)
    sheet.paste(image.convert("RGB"), (x + BORDER, y + BORDER))
    width = image.width + 2 * BORDER
    colour = ALARM if facts.alarm else INK
    text(sheet, (x + BORDER, bottom + 5), facts.title, 15, colour, width)
    for i, line in enumerate(facts.lines):
        text(sheet, (x + BORDER, bottom + TITLE + i * LINE), line, 13, FAINT, width)


def scale(image: Image.Image, size: int) -> Image.Image:
    """Bring an image to about `size` pixels: up by a whole factor, or down to fit.

    >>> scale(Image.new("RGB", (64, 64)), 192).size, scale(Image.new("RGB", (1024, 512)), 192).size
    ((192, 192), (192, 96))
    """
    longer = max(image.size)
    factor = size / longer if longer > size else max(1, round(size / longer))
    shape = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(shape, Image.Resampling.LANCZOS)


def text(sheet: Image.Image, at: tuple[int, int], words: str, points: int, colour: str, width: int) -> None:
    """Write one line, cut off with an ellipsis where it would not fit."""
    write(sheet, at, fitted(words, lambda line: length(line, points) <= width), points, colour)


def fitted(words: str, fits: Callable[[str], bool]) -> str:
    """Return one line that fits: the words, or as many of their characters as do with an ellipsis.

    A beginning is looked for that is known not to fit, by doubling, and then halved: a long text is never measured.

    >>> fitted("a  long heading", lambda line: len(line) <= 8), fitted("short", lambda line: len(line) <= 8)
    ('a long…', 'short')
    """
    size = 16
    while True:
        words_seen = " ".join(words[: 4 * size].split())
        if len(words) <= 4 * size and fits(words_seen):
            return words_seen
        if not fits(words_seen[:size]) or len(words) <= 4 * size:
            break
        size *= 2
    low, high = 0, len(words_seen)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(words_seen[:middle].rstrip() + "…") else (low, middle - 1)
    return words_seen[:low].rstrip() + "…"
