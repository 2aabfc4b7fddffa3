"""The files that human ratings come in, read to rows; nothing is checked here but the files' own form.

CogIP-Bench (arXiv 2511.22805) is spread as a Hub dataset, its parquet, ``metadata_*.jsonl``, and the
official repository's ``*_messages.json`` + ``*_scores.json``, ``cognition_training.json`` and
``*_scores.txt``. People's own ratings come as CSV, TSV or JSONL of ``image, dimension, score``.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..._errors import InputError, missing_extra
from ..dimensions import DIMENSIONS
from ..mllm.parsing import parse_answer
from .files import check_list, read_json, read_json_lines, read_text

EXTRA = "bench"
"""The extra that brings what parquet and the Hub need."""
NUM_TRAIN = 800
"""In the official score lists, indices below this are training data."""

_ALIASES = {"aesthetic": "aesthetics", "emotion": "emotional_valence", "valence": "emotional_valence"}
_IMAGE_KEYS = ("image", "file_name", "image_path")


@dataclass(frozen=True)
class Row:
    """One rating as a file has it.

    Attributes:
        where: file and line, for messages.
        image: path as written, "" where the file names none.
        dimension: one of ours, or the file's own word if it is not known.
        score: NaN if there is no number.
        base: folder that a relative path starts from, unless another is given.
        prompt: the question that came with it, without the image's placeholder.
        split: "train", "test", ..., or None.
        blob: the encoded image where the file holds it.
        id: the record's own identifier.
    """

    where: str
    image: str
    dimension: str
    score: float
    base: Path
    prompt: str | None = None
    split: str | None = None
    blob: bytes | None = None
    id: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that makes the data unusable, of a kind that is counted."""

    kind: str
    text: str


Found: TypeAlias = Iterator[Row | Problem]
Wanted: TypeAlias = Callable[[str, str | None], bool]


def canonical_dimension(name: str) -> str | None:
    """Return our name of a dimension in anyone's spelling, None if it is not one of the four.

    >>> canonical_dimension("Emotional Valence"), canonical_dimension("blue")
    ('emotional_valence', None)
    """
    folded = re.sub(r"[\s-]+", "_", name.strip().casefold())
    folded = _ALIASES.get(folded, folded)
    return folded if folded in DIMENSIONS else None


def read_rows(data: str | Path, wanted: Wanted, with_images: bool = True) -> Found:
    """Read a file, a folder or a Hub dataset, whichever it is.

    Args:
        data: a path, or a Hub name with one slash.
        wanted: whether rows of a dimension and split are asked for; others may be left out early.
        with_images: also read images out of parquet.

    Raises:
        InputError: nothing there, an unknown format, or a file that is not what its name says.
        MissingExtraError: parquet or the Hub without the packages for it.

    >>> next(read_rows("ratings.csv", lambda dimension, split: True))
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: data: no file or folder 'ratings.csv'; a dataset on the Hub is 'owner/name'
    """
    path = Path(data).expanduser()
    if path.is_file():
        yield from _read_file(path, wanted, with_images)
    elif path.is_dir():
        yield from _read_folder(path, wanted, with_images)
    elif isinstance(data, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", data):
        yield from _read_hub(data, wanted, with_images)
    else:
        raise InputError(f"data: no file or folder '{data}'; a dataset on the Hub is 'owner/name'")


def _read_file(path: Path, wanted: Wanted, with_images: bool) -> Found:
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _read_parquet(path, wanted, with_images)
    elif kind in (".csv", ".tsv"):
        yield from _read_csv(path)
    elif kind == ".jsonl":
        yield from _read_records(path, read_json_lines(path))
    elif kind == ".txt":
        yield from _read_score_list(path)
    elif kind == ".json":
        content = read_json(path)
        if path.name.endswith(("_messages.json", "_scores.json")):
            yield from _read_messages(path.with_name(path.name.rpartition("_")[0] + "_messages.json"))
        elif isinstance(content, list) and content and _is_training(content[0]):
            yield from _read_training(path, content)
        else:
            yield from _read_records(path, ((f"record {i}", r) for i, r in enumerate(check_list(path, content))))
    else:
        raise InputError(f"{path}: expected .csv, .tsv, .jsonl, .json, .txt or .parquet")


def _read_folder(folder: Path, wanted: Wanted, with_images: bool) -> Found:
    """Read the first of these that the folder has: parquet, metadata_*.jsonl, official files, score lists."""
    parquet = sorted(folder.rglob("*.parquet"))
    metadata = sorted(folder.glob("metadata*.jsonl"))
    messages = sorted([*folder.glob("*_messages.json"), *folder.glob("*/*_messages.json")])
    messages += sorted(folder.glob("*/*/*_messages.json"))
    training = sorted(folder.glob("*training*.json"))
    scores = sorted([*folder.glob("*_scores.txt"), *folder.glob("*/*_scores.txt")])
    if parquet:
        for file in parquet:
            yield from _read_parquet(file, wanted, with_images)
    elif metadata:
        for file in metadata:
            yield from _read_records(file, read_json_lines(file))
    elif messages or training:
        for file in messages:
            yield from _read_messages(file)
        for file in training:
            yield from _read_training(file, check_list(file, read_json(file)))
    elif scores:
        for file in scores:
            yield from _read_score_list(file)
    else:
        raise InputError(
            f"{folder}: holds no *.parquet, metadata*.jsonl, *_messages.json, *training*.json or "
            "*_scores.txt; ratings of your own go in a CSV or JSONL file: give its name"
        )


def _read_messages(file: Path) -> Found:
    """Read the official test data: chats in one file, answers in the same order in another."""
    name = file.name.removesuffix("_messages.json")
    scores_file = file.with_name(f"{name}_scores.json")
    for part in (file, scores_file):
        if not part.is_file():
            yield Problem("length mismatch", f"{part}: missing; messages and scores come in pairs")
            return
    chats, answers = check_list(file, read_json(file)), check_list(scores_file, read_json(scores_file))
    if len(chats) != len(answers):
        yield Problem("length mismatch", f"{file}: {len(chats)} messages but {len(answers)} scores")
        return
    for index, (chat, answer) in enumerate(zip(chats, answers, strict=True)):
        where = f"{file.name}, record {index}"
        try:
            parts = chat[0]["content"]
            image = next(str(part["image"]) for part in parts if part["type"] == "image")
            prompt = next((str(part["text"]) for part in parts if part["type"] == "text"), None)
        except (LookupError, TypeError, StopIteration):
            yield Problem("malformed record", f"{where}: no image in {str(chat)[:60]!r}")
            continue
        dim = canonical_dimension(name) or _dimension_in(image) or name
        yield Row(where, image, dim, _score(answer, dim), _base(file, image), _clean(prompt), "test")


def _is_training(record: Any) -> bool:
    return isinstance(record, Mapping) and "conversations" in record


def _read_training(file: Path, records: Iterable[Any]) -> Found:
    """Read the official training data: records of a human turn and an answer."""
    for index, record in enumerate(records):
        where = f"{file.name}, record {index}"
        try:
            image = _image_path(record["image"])
            turns = {str(turn["from"]): str(turn["value"]) for turn in record["conversations"]}
            prompt, answer = turns["human"], turns["gpt"]
        except (LookupError, TypeError) as error:
            yield Problem("malformed record", f"{where}: {type(error).__name__} {error}")
            continue
        dim = canonical_dimension(str(record.get("dimension", ""))) or _dimension_in(image) or "?"
        split = _split_of(file) or "train"
        yield Row(where, image, dim, _score(answer, dim), _base(file, image), _clean(prompt), split)


def _read_score_list(file: Path) -> Found:
    """Read an official ``DIM_scores.txt``: image, tab, score."""
    name = file.name.removesuffix("_scores.txt")
    dim = canonical_dimension(name) or name
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        image, _, score = line.strip().partition("\t")
        index = re.search(r"(\d+)\.\w+$", image)
        split = None if index is None else ("train" if int(index[1]) < NUM_TRAIN else "test")
        image = f"{name}/{image}"
        yield Row(f"{file.name}:{number}", image, dim, _score(score, dim), _base(file, image), None, split)


def _read_csv(file: Path) -> Found:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    text = io.StringIO(read_text(file), newline="")
    lines = csv.DictReader(text, delimiter=delimiter, skipinitialspace=True)
    columns = [str(name).strip() for name in lines.fieldnames or ()]
    lines.fieldnames = columns
    if "score" not in columns or not set(_IMAGE_KEYS) & set(columns):
        raise InputError(f"{file}: expected the columns image, dimension, score; got {', '.join(columns)}")
    try:
        records = [(f"line {lines.line_num}", record) for record in lines]
    except csv.Error as error:
        raise InputError(f"{file}, after line {lines.line_num}: is not CSV ({error})") from error
    yield from _read_records(file, records)


def _read_records(file: Path, records: Iterable[tuple[str, Any]]) -> Found:
    """Read records of image, dimension and score; prompt, split and id if they are there."""
    for place, record in records:
        where = f"{file.name}, {place}"
        if not isinstance(record, Mapping):
            yield Problem("malformed record", f"{where}: expected an object, got {str(record)[:60]!r}")
        elif _is_training(record):
            yield from _read_training(file, [record])
        else:
            image = next((_image_path(record[key]) for key in _IMAGE_KEYS if record.get(key)), "")
            own = str(record.get("dimension") or "").strip() or _dimension_in(image) or ""
            dim = canonical_dimension(own) or own
            split = str(record.get("split") or "").strip() or _split_of(file)
            prompt = str(record["prompt"]) if record.get("prompt") else None
            score = _score(record.get("score"), dim)
            identity = str(record.get("id") or "")
            yield Row(where, image, dim, score, _base(file, image), _clean(prompt), split, None, identity)


def _read_parquet(file: Path, wanted: Wanted, with_images: bool) -> Found:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise missing_extra("pyarrow", EXTRA) from None
    try:
        table = pq.ParquetFile(file)
        names = set(table.schema_arrow.names)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as parquet ({error})") from error
    _check_columns(file, names)
    columns = [name for name in ("id", "image", "dimension", "prompt", "score", "split") if name in names]
    if not with_images:
        columns.remove("image")
    index = 0
    for batch in table.iter_batches(batch_size=32, columns=columns):
        for record in batch.to_pylist():
            found = _from_table(record, f"{file.name}, row {index}", _split_of(file), file.parent, wanted)
            yield from found
            index += 1


def _read_hub(name: str, wanted: Wanted, with_images: bool) -> Found:
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", EXTRA) from None
    try:
        splits = datasets.load_dataset(name)
    except Exception as error:  # whatever network, cache and builders can raise
        raise InputError(
            f"data: no file or folder '{name}', and as a dataset on the Hub it cannot be loaded "
            f"({type(error).__name__}: {str(error).strip()[:300]})"
        ) from error
    for split, table in splits.items():
        _check_columns(f"{name}, split {split}", table.column_names)
        if not with_images:
            rows = table.remove_columns("image")
        elif isinstance(table.features["image"], datasets.Image):
            rows = table.cast_column("image", datasets.Image(decode=False))
        else:
            rows = table
        for index, record in enumerate(rows):
            yield from _from_table(record, f"{name}, {split} row {index}", str(split), Path(), wanted)


def _check_columns(where: object, names: Iterable[str]) -> None:
    if not {"image", "dimension", "score"} <= set(names):
        raise InputError(f"{where}: expected the columns image, dimension, score; got {', '.join(names)}")


def _from_table(record: Mapping[str, Any], where: str, split: str | None, base: Path, wanted: Wanted) -> Found:
    own = str(record["dimension"] or "")
    dim = canonical_dimension(own) or own
    split = record.get("split") or split
    if not wanted(dim, split):
        return
    stored = record.get("image")
    picture: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {"path": stored}
    score = round(_score(record["score"], dim), 6)  # float32 has no more: 5.577, not 5.5770001
    identity = str(record.get("id") or "")
    yield Row(
        where,
        str(picture.get("path") or ""),
        dim,
        score,
        base,
        _clean(record.get("prompt")),
        split,
        picture.get("bytes"),
        identity,
    )


def _score(value: Any, dim: str) -> float:
    """Read a number, or the number of an answer such as "low 4.105"; NaN if there is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return parse_answer(str(value), DIMENSIONS[dim])[0] if isinstance(value, str) else math.nan
    except (ValueError, KeyError):
        return math.nan


def _image_path(value: Any) -> str:
    """Path in a string, a list of one, or a struct."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):
        value = value.get("path") or ""
    return value if isinstance(value, str) else ""


def _dimension_in(image: str) -> str | None:
    """Dimension named by a folder of the path, the innermost if there are several."""
    folders = (canonical_dimension(part) for part in reversed(Path(image).parts[:-1]))
    return next((name for name in folders if name is not None), None)


def _split_of(file: Path) -> str | None:
    found = re.search(r"(?:^|[_-])(train|test|validation|dev)(?:ing)?(?=[._-]|$)", file.name.casefold())
    return found[1] if found else None


def _base(file: Path, image: str) -> Path:
    """Folder above the file, up to two levels, in which the image lies; the file's own if in none."""
    for folder in (file.parent, file.parent.parent, file.parent.parent.parent):
        if (folder / image).is_file():
            return folder
    return file.parent


def _clean(prompt: str | None) -> str | None:
    return None if prompt is None else prompt.replace("<image>", "").strip()
