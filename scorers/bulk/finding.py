"""Finding image files, one after the other: no list of all of them is ever made."""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

from PIL import Image

NO_DECODER = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows by their ending and cannot read by itself."""


@cache
def picture_endings() -> frozenset[str]:
    """Return the endings, in lower case, of the files that count as pictures in a folder: all that Pillow here reads.

    >>> {".png", ".jfif", ".ppm", ".webp"} <= picture_endings(), ".txt" in picture_endings()
    (True, False)
    """
    known = Image.registered_extensions()  # which loads every plug-in of Pillow
    return frozenset(ending for ending, kind in known.items() if kind in Image.OPEN and kind not in NO_DECODER)


@dataclass
class PassedOver:
    """What was in folders and not taken for a picture.

    Attributes:
        endings: how many files of each ending.
        dangling: links to nowhere, with an ending of pictures.
    """

    endings: Counter[str] = field(default_factory=Counter)
    dangling: list[Path] = field(default_factory=list)

    def told(self) -> list[str]:
        """Return a sentence for each kind.

        >>> PassedOver(Counter({".txt": 2, "": 1})).told()
        ['3 files of the folders were not taken for pictures: 2 .txt, 1 without an ending']
        """
        lines = []
        if self.endings:
            kinds = ", ".join(f"{n} {ending or 'without an ending'}" for ending, n in self.endings.most_common(8))
            more = ", ..." if len(self.endings) > 8 else ""
            lines.append(f"{self.endings.total()} files of the folders were not taken for pictures: {kinds}{more}")
        if self.dangling:
            shown = ", ".join(map(str, self.dangling[:3])) + (", ..." if len(self.dangling) > 3 else "")
            lines.append(f"{len(self.dangling)} links lead nowhere: {shown}")
        return lines


def find_images(paths: Iterable[Path], passed: PassedOver | None = None) -> Iterator[Path]:
    """Yield image files: those named, and those in folders and below, sorted; one folder's names at a time are held.

    Args:
        paths: files, taken as they are, and folders.
        passed: is told what of the folders is left out.

    >>> [file.name for file in find_images([Path("a.png"), Path("notes.txt")])]
    ['a.png', 'notes.txt']
    """
    passed = PassedOver() if passed is None else passed
    for path in paths:
        if path.is_dir():
            yield from _below(path, passed)
        else:
            yield path


def _below(folder: Path, passed: PassedOver) -> Iterator[Path]:
    with os.scandir(folder) as found:
        names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    for name, is_folder in names:
        path = folder / name
        if is_folder:
            yield from _below(path, passed)
        elif path.suffix.lower() not in picture_endings():
            passed.endings[path.suffix.lower()] += 1
        elif path.is_file():
            yield path
        elif path.is_symlink() and not path.exists():
            passed.dangling.append(path)


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
