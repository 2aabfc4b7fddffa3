"""Files that only grow, line by line, and survive a kill at any moment.

What is written is on the disk when a function returns, all of it or nothing; a last line that a kill left without its
end is no line. A log of JSON lines (settings first, then one line for each piece of work that is done) says how much
of the files beside it counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..._errors import RecordError
from ..._texts import to_json_text


def append(file: Path, data: bytes) -> int:
    """Add bytes at a file's end, all of them or none, and return its new size.

    Raises:
        RecordError: it cannot be written, e.g. the disk is full; the file is as long as before.

    >>> append(Path("/proc/nowhere/x"), b"a")
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: cannot write /proc/nowhere/x: No such file or directory
    """
    try:
        with file.open("ab") as stream:
            before = stream.tell()
            try:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            except BaseException:  # Ctrl-C too
                os.ftruncate(stream.fileno(), before)
                raise
            return before + len(data)
    except OSError as error:
        raise RecordError(f"cannot write {file}: {error.strerror or error}") from error


def append_json(file: Path, entry: Mapping[str, Any]) -> int:
    """Add one line of JSON (see `append`)."""
    return append(file, json_line(entry))


def json_line(entry: Mapping[str, Any]) -> bytes:
    r"""Return one line of JSON.

    >>> json_line({"file": "a.png"})
    b'{"file": "a.png"}\n'
    """
    return (to_json_text(entry, allow_nan=False) + "\n").encode()


def cut(file: Path, size: int) -> None:
    """Drop what lies beyond a size: what was begun and not finished.

    Raises:
        RecordError: the file is shorter than that, or cannot be written.
    """
    try:
        found = file.stat().st_size if file.exists() else 0
        if found > size:
            with file.open("rb+") as stream:
                stream.truncate(size)
    except OSError as error:
        raise RecordError(f"cannot write {file}: {error.strerror or error}") from error
    if found < size:
        raise RecordError(f"{file}: is shorter ({found} bytes) than when it was written ({size}); it was changed")


def cut_unfinished(file: Path) -> None:
    """Drop a last line without its end."""
    size = 0
    with file.open("rb") as stream:
        for line in stream:
            size += len(line) if line.endswith(b"\n") else 0
    cut(file, size)


def read_json_lines(file: Path, start: int = 0, end: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines, from one byte to another; a last line without its end is left out.

    Raises:
        RecordError: it cannot be read, or a line is no JSON object.
    """
    try:
        with file.open("rb") as stream:
            stream.seek(start)
            for line in stream:
                if (end is not None and start >= end) or not line.endswith(b"\n"):
                    return
                start += len(line)
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError("expected an object")
                yield entry
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{file}: the line that ends at byte {start} cannot be read ({error})") from error


def differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in which settings two runs differ; "" if in none.

    >>> differing({"prompt": None, "call": {"steps": 1}}, {"prompt": None, "call": {"steps": 2}})
    'call.steps is 1 there, 2 now'
    """
    return "; ".join(_differing(there, now))


def _differing(there: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for key in dict.fromkeys([*now, *there]):
        old, new = there.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict) and "sha256" not in old:
            yield from _differing(old, new, f"{within}{key}.")
        elif old != new:
            if isinstance(old, dict) and isinstance(new, dict):
                yield f"{within}{key} differ ({old.get('count')} there, {new.get('count')} now)"
            else:
                yield f"{within}{key} is {short(old)} there, {short(new)} now"


def short(value: Any) -> str:
    """Return a value's JSON, cut after 80 characters."""
    text = to_json_text(value)
    return text if len(text) <= 80 else text[:77] + "..."
