"""Finding image files, one after the other: no list of all of them is ever made."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Endings, in lower case, of the files that count as images in a folder."""


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield image files: those named, and those in folders and below, sorted; one folder's names at a time are held.

    >>> [file.name for file in find_images([Path("a.png"), Path("notes.txt")])]
    ['a.png', 'notes.txt']
    """
    for path in paths:
        if path.is_dir():
            yield from _below(path)
        else:
            yield path


def _below(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    for name, is_folder in names:
        path = folder / name
        if is_folder:
            yield from _below(path)
        elif path.suffix.lower() in IMAGES and path.is_file():
            yield path


def listed(stream: IO[bytes]) -> Iterator[Path]:
    r"""Yield the paths of a list, one a line, or with NUL between them (`find -print0`), as they come.

    >>> import io
    >>> [str(path) for path in listed(io.BytesIO(b"a.png\r\n\nb c.png"))]
    ['a.png', 'b c.png']
    >>> [str(path) for path in listed(io.BytesIO(b"a\nb.png\0c.png\0"))]
    ['a\nb.png', 'c.png']
    """
    rest = b""
    separator: bytes | None = None
    first = True
    while block := stream.read1(2**16) if hasattr(stream, "read1") else stream.read(2**16):
        if first:
            block, first = block.removeprefix(codecs.BOM_UTF8), False
        if separator is None and (b"\0" in block or b"\n" in block):
            separator = b"\0" if b"\0" in block else b"\n"
        rest += block
        if separator is not None:
            *whole, rest = rest.split(separator)
            yield from _paths(whole, separator)
    yield from _paths([rest], separator)


def _paths(names: Iterable[bytes], separator: bytes | None) -> Iterator[Path]:
    for name in names:
        name = name if separator == b"\0" else name.rstrip(b"\r")
        if name:
            yield Path(os.fsdecode(name))
