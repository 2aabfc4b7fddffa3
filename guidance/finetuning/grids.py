"""Grids of held-out images, one row a prompt, so that one sees what numbers hide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

CELL = 128
"""Longest side of a picture in a grid, in pixels."""
MOST_ROWS = 24
GAP = 4


def save_grid(file: Path, prompts: Sequence[str], images: Mapping[int, Sequence[Image.Image]]) -> None:
    """Write a PNG with the images of each prompt in a row; only the first `MOST_ROWS` prompts.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_grid(Path(folder) / "grid.png", ["a", "b"], {0: [Image.new("RGB", (64, 64))] * 3, 1: []})
    ...     with Image.open(Path(folder) / "grid.png") as grid:
    ...         grid.size
    (208, 140)
    """
    rows = [images.get(place, ()) for place in range(min(len(prompts), MOST_ROWS))]
    first = next(image for row in rows for image in row)
    scale = min(1.0, CELL / max(first.size))
    size = (max(1, round(first.width * scale)), max(1, round(first.height * scale)))
    wide = max(len(row) for row in rows)
    grid = Image.new("RGB", (wide * (size[0] + GAP) + GAP, len(rows) * (size[1] + GAP) + GAP), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            grid.paste(image.convert("RGB").resize(size), (GAP + x * (size[0] + GAP), GAP + y * (size[1] + GAP)))
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    grid.save(temporary, format="PNG")
    temporary.replace(file)
