"""The file that scores are written to as they come: JSON lines, CSV or Parquet; a killed run goes on with it."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._errors import InputError, RecordError, missing_extra
from ..._texts import cell
from .lines import append, append_json, cut, cut_unfinished, differing, json_line, read_json_lines

FORMAT, VERSION = "cogguided scores", 1
KINDS = (".jsonl", ".csv", ".parquet")
ROW_GROUP = 10_000


@dataclass(frozen=True)
class FileScore:
    """What one file got.

    Attributes:
        file: as it was named.
        values: of each term in its scorer's own range; NaN where there is none.
        error: the first reason why there is none, or None.
    """

    file: Path
    values: Mapping[str, float]
    error: str | None = None

    @property
    def valid(self) -> bool:
        """Whether every term has a value."""
        return all(math.isfinite(value) for value in self.values.values())

    def to_row(self) -> dict[str, Any]:
        """Return the row of a table: the file's name, a number or None for each term, the reason or None.

        >>> FileScore(Path("a.png"), {"fake": 0.25}).to_row()
        {'file': 'a.png', 'fake': 0.25, 'error': None}
        """
        values = {n: round(v, 6) if math.isfinite(v) else None for n, v in self.values.items()}
        return {"file": str(self.file), **values, "error": self.error}


class ScoreTable:
    """A file of scores that grows chunk by chunk and knows which files are in it.

    Beside it lies a hidden log, `.NAME.cogguided`: the settings, then a line for each chunk that is all on the disk.
    What a kill left behind a chunk's end is cut off when the table is opened again. A Parquet file cannot grow: its
    rows are kept in `.NAME.rows` and it is written, whole, at the end.

    Args:
        file: `.jsonl`, `.csv` or `.parquet`.
        terms: names of the columns with scores.
        settings: all that scores depend on, in JSON's types.
        overwrite: drop another table of that name.

    Raises:
        InputError: another kind of file.
        MissingExtraError: Parquet without pyarrow.
        RecordError: the file holds something else, or scores by other settings.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = ScoreTable(Path(folder) / "scores.csv", ["fake"], {})
    ...     table.append([FileScore(Path("a.png"), {"fake": 0.25})])
    ...     again = ScoreTable(Path(folder) / "scores.csv", ["fake"], {})
    ...     again.rows, Path("a.png") in again, Path("b.png") in again
    (1, True, False)
    """

    def __init__(
        self, file: str | Path, terms: Sequence[str], settings: Mapping[str, Any], overwrite: bool = False
    ) -> None:
        self.file = Path(file)
        self.kind = self.file.suffix.lower()
        if self.kind not in KINDS:
            raise InputError(f"{self.file}: expected a name that ends in {', '.join(KINDS)}")
        if self.kind == ".parquet" and importlib.util.find_spec("pyarrow") is None:
            raise missing_extra("pyarrow", "bench")
        self.terms = list(terms)
        self.log = self.file.with_name(f".{self.file.name}.cogguided")
        self.data = self.file.with_name(f".{self.file.name}.rows") if self.kind == ".parquet" else self.file
        wanted = {"format": FORMAT, "version": VERSION, "terms": self.terms, "settings": dict(settings)}
        wanted = json.loads(json.dumps(wanted))
        self.rows = self.invalid = 0
        self._complete = False
        self._seen: set[int] = set()
        if overwrite:
            self.file.unlink(missing_ok=True)
            self._drop()
        if self.log.exists() and self.data.exists():
            self._open(wanted)
        elif self.file.exists() and self.file.stat().st_size:
            lost = self.data if self.log.exists() else self.log
            raise RecordError(f"{self.file}: is there already, and {lost.name}, part of it, is not: {OTHERWISE}")
        else:
            self._begin(wanted)

    def _drop(self) -> None:
        self.data.unlink(missing_ok=True)
        self.log.unlink(missing_ok=True)  # last: rows without their log count as somebody else's

    def _begin(self, wanted: dict[str, Any]) -> None:
        self._drop()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        head = self._csv([{n: n for n in self._columns()}]) if self.kind == ".csv" else b""
        append_json(self.log, {**wanted, "end": len(head)})
        append(self.data, head)

    def _open(self, wanted: dict[str, Any]) -> None:
        cut_unfinished(self.log)
        first: dict[str, Any] = {}
        last: dict[str, Any] = {}
        for last in read_json_lines(self.log):
            first = first or last
        if "rows" not in last and not last.get("complete"):  # killed before the first chunk: nothing to lose
            self._begin(wanted)
            return
        changed = differing({n: v for n, v in first.items() if n != "end"}, wanted)
        if changed:
            raise RecordError(f"{self.file}: holds scores by other settings ({changed}): {OTHERWISE}")
        if last.get("complete") and self.data.stat().st_size > last["end"]:
            raise RecordError(f"{self.file}: was added to since: {OTHERWISE}")
        cut(self.data, last["end"])
        self._complete = bool(last.get("complete"))
        self.rows, self.invalid = last.get("rows", 0), last.get("invalid", 0)
        self._seen = {key_of(name) for name in self._names()}

    def __contains__(self, file: Path) -> bool:
        """Whether a file has its row, by the name it was given by."""
        return key_of(self._written(str(file))) in self._seen

    def _written(self, name: str) -> str:
        return cell(name) if self.kind == ".csv" else name

    def append(self, scores: Sequence[FileScore]) -> None:
        """Add rows; they are on the disk when this returns, all of them or none."""
        rows = [score.to_row() for score in scores]
        data = self._csv(rows) if self.kind == ".csv" else b"".join(map(json_line, rows))
        if self._complete:  # more files came: what a kill leaves behind the end is to be cut off again
            self._log(self.data.stat().st_size)
            self._complete = False
        size = append(self.data, data)
        rows_now, invalid = self.rows + len(rows), self.invalid + sum(not score.valid for score in scores)
        self.rows, self.invalid = rows_now, invalid
        self._log(size)
        self._seen.update(key_of(self._written(row["file"])) for row in rows)

    def finish(self) -> None:
        """Say that all is there; a Parquet file is written now."""
        if self.kind == ".parquet":
            write_parquet(self.data, self.file, self.terms)
        self._log(self.data.stat().st_size, complete=True)
        self._complete = True

    def _log(self, end: int, **more: Any) -> None:
        append_json(self.log, {"end": end, "rows": self.rows, "invalid": self.invalid, **more})

    def _columns(self) -> list[str]:
        return ["file", *self.terms, "error"]

    def _csv(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self._columns(), lineterminator="\n").writerows(
            {n: cell(v) if isinstance(v, str) else v for n, v in row.items()} for row in rows
        )
        return text.getvalue().encode()

    def _names(self) -> Iterator[str]:
        """The names in the file, as they are written."""
        if self.kind == ".csv":
            with self.data.open(encoding="utf-8", newline="") as stream:
                yield from (row["file"] for row in csv.DictReader(stream))
        else:
            yield from (row["file"] for row in read_json_lines(self.data))


OTHERWISE = "choose another file, or replace it (overwrite=True, --overwrite)"


def key_of(name: str) -> int:
    """Return 8 bytes that stand for a file's name.

    >>> key_of("a.png") == key_of("b.png")
    False
    """
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "big")


def write_parquet(rows: Path, file: Path, terms: Sequence[str]) -> None:
    """Write a Parquet file of rows kept as JSON lines, whole or not at all: file, terms as float32, error.

    An executed example is in ``tests/scorers/test_score_files.py``.
    """
    import pyarrow
    import pyarrow.parquet

    fields = [("file", pyarrow.string()), *((term, pyarrow.float32()) for term in terms), ("error", pyarrow.string())]
    schema = pyarrow.schema(fields)
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with pyarrow.parquet.ParquetWriter(str(temporary), schema) as writer:
            waiting: list[dict[str, Any]] = []
            for row in read_json_lines(rows):
                texts = {n: _utf8(v) if isinstance(v, str) else v for n, v in row.items()}
                waiting.append(texts)
                if len(waiting) == ROW_GROUP:
                    writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
                    waiting = []
            if waiting:
                writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordError(f"cannot write {file}: {error.strerror or error}") from error


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
