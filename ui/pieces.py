"""Pieces of HTML that the tabs share: pictures with what is known of them, the state of work, sentences."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from ..guidance import Candidate
from ..pipelines.records.record import write_whole
from ..pipelines.records.sheet import tile

SHOWN = 768
"""Longest side of a picture on the page, in pixels."""
PICK = """
let last = null;
element.addEventListener('click', e => {
  const button = e.target.closest('[data-index]');
  if (button) trigger('select', {index: Number(button.dataset.index)});
});
element.addEventListener('focusin', e => { last = e.target.closest('[data-index]')?.dataset.index ?? null; });
watch('value', () => {
  if (last !== null && document.activeElement === document.body)
    element.querySelector(`[data-index="${last}"]`)?.focus({preventScroll: true});
});
"""
"""Script of a component with pictures to choose from: tells which, and keeps the keyboard's place when it changes."""

SHOW = """
watch('value', () => {
  if (props.value) element.scrollIntoView({block: 'nearest', behavior: 'smooth'});
});
"""
"""Script of a component that comes into view when there is something in it."""


class Pictures:
    """Writes pictures to where the page may fetch them; each once, under a name that tells nothing of it.

    Args:
        folder: inside the output folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, image: Image.Image) -> str:
        """Return an address of a picture, relative to the page."""
        digest = hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()[:32]
        file = self.folder / f"{digest}.webp"
        if not file.exists():
            small = image.convert("RGB")
            small.thumbnail((SHOWN, SHOWN))
            write_whole(file, lambda opened: small.save(opened, "WEBP", quality=92))
        return address(file)


def address(file: Path) -> str:
    """Return a file's address, relative to the page.

    >>> address(Path("/out/a b.png"))
    'gradio_api/file=/out/a%20b.png'
    """
    return f"gradio_api/file={quote(str(file))}"


def tiles(candidates: Sequence[Candidate], pictures: Pictures, heading: str, picked: int | None = None) -> str:
    """Return candidates as buttons, in the order given, each with its scores in words and its seed."""
    parts = []
    for index, candidate in enumerate(candidates):
        waits = not candidate.valid and (candidate.error or "").startswith("not scored")
        facts = tile(candidate, heading)
        title = "being judged" if waits else facts.title
        lines = [] if waits else facts.lines
        kind = " cg-chosen" if candidate.chosen else ""
        alarm = " cg-alarm" if facts.alarm and not waits else ""
        said = f"{'Chosen, c' if candidate.chosen else 'C'}andidate {index + 1}: {title}"
        below = "".join(f"<span>{escape(line)}</span>" for line in lines)
        parts.append(
            f'<li><button type="button" class="cg-tile{kind}" data-index="{index}" '
            f'aria-pressed="{"true" if index == picked else "false"}">'
            f'<img src="{pictures.url(candidate.image)}" alt="{escape(said)}" width="{candidate.image.width}" '
            f'height="{candidate.image.height}"><b class="cg-title{alarm}">{escape(title)}</b>{below}</button></li>'
        )
    return f'<ul class="cg-tiles">{"".join(parts)}</ul>' if parts else ""


def status(text: str, done: float | None = None, busy: bool = False) -> str:
    """Return the state of work: a sentence, and while it runs a bar, without an end where that is not known.

    >>> status("2 of 4 candidates", 0.5, busy=True)
    '<div class="cg-status"><progress aria-label="Progress" max="1" value="0.500"></progress>2 of 4 candidates</div>'
    """
    value = "" if done is None else f' value="{min(max(done, 0.0), 1.0):.3f}"'
    bar = f'<progress aria-label="Progress" max="1"{value}></progress>' if busy else ""
    return f'<div class="cg-status">{bar}{escape(text)}</div>'


def problem(text: str) -> str:
    """Return a sentence on what went wrong, which a screen reader tells at once.

    >>> problem("prompt: <empty>")
    '<div class="cg-problem" role="alert">prompt: &lt;empty&gt;</div>'
    """
    return f'<div class="cg-problem" role="alert">{escape(text)}</div>'


def notes(lines: Sequence[str]) -> str:
    """Return sentences as a list."""
    return f'<ul class="cg-notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def number(value: float | None) -> str:
    """Return a score as it is shown.

    >>> number(0.12345), number(None)
    ('0.123', '–')
    """
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def empty(text: str) -> str:
    """Return what stands where there is nothing yet."""
    return f'<div class="cg-empty">{escape(text)}</div>'
