"""Records that grow: a folder of many prompts, group by group, and any record read from wherever it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..._errors import RecordError
from ...scorers.bulk.lines import read_json_lines
from .record import FILE, Record, read_single

RUN_FORMAT, RUN_VERSION = "cogguided run", 1
LOG, ROWS = "run.jsonl", "candidates.jsonl"
"""The log (settings, then a line for each group of prompts that is done), and the candidates, one a line."""


def read_record(path: str | Path, index: int | None = None) -> Record:
    """Read a record: `candidates.json` or `candidates.jsonl`, the folder it is in, or a PNG that was saved with one.

    Of a folder of many prompts, the record of one group is read: that of the candidate `index`, or the first.

    Raises:
        RecordError: there is none, or not one of this format.
    """
    path = Path(path)
    folder = path.parent if path.name in (LOG, ROWS) else path
    if path.name in (LOG, ROWS) or (is_run(folder) and not (folder / FILE).exists()):
        return read_group(folder, index)
    return read_single(path)


def is_run(folder: Path) -> bool:
    """Whether a folder has a record of many prompts.

    >>> is_run(Path("no/such/folder"))
    False
    """
    return (folder / LOG).is_file()


def read_run(folder: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the settings of a run, and its groups as they are read.

    Raises:
        RecordError: it cannot be read, or is none.
    """
    lines = read_json_lines(folder / LOG)
    settings = next(lines, {})
    if settings and (settings.get("format") != RUN_FORMAT or settings.get("version") != RUN_VERSION):
        raise RecordError(f"{folder / LOG}: expected {RUN_FORMAT!r} of version {RUN_VERSION}")
    return settings, lines


def read_group(folder: Path, index: int | None) -> Record:
    """Return the record of the group that has a candidate, or of the first.

    Raises:
        RecordError: none has it.
    """
    known = 0
    for group in read_run(folder)[1]:
        known = group["first"] + group["count"]
        if group["count"] and (index is None or group["first"] <= index < known):
            rows = read_json_lines(folder / ROWS, group["start"], group["end"])
            return Record(folder / ROWS, {**group["record"], "candidates": list(rows)})
    has = f"it has 0 to {known - 1}" if known else "it has none yet"
    raise RecordError(f"{folder / ROWS}: no candidate {0 if index is None else index}; {has}")


def read_candidates(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a folder of many prompts, one a candidate; those of groups that are done.

    Raises:
        RecordError: it has no such record.

    >>> list(read_candidates("no/such/folder"))
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: cannot read no/such/folder/run.jsonl: No such file or directory
    """
    folder = Path(folder)
    end = 0
    for group in read_run(folder)[1]:
        end = group["end"]
    if end:
        yield from read_json_lines(folder / ROWS, 0, end)
