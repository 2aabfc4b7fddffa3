"""The ratings of a run: read, checked to the last image, and shared out between training and evaluation."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..._errors import ImageError, InputError, unknown_name
from ..._texts import read_text
from ..dimensions import DIMENSIONS
from ..images import as_pil
from ..ratings.formats import Row, read_rows
from ..ratings.reading import SHOWN, Rating, read_ratings
from .config import AlignmentConfig
from .data import split_by_image


def prepare_ratings(
    data: str | Path | Sequence[Rating],
    config: AlignmentConfig,
    stds: Sequence[float] | None = None,
    evaluation: str | Path | Sequence[Rating] | None = None,
    images: str | Path | None = None,
    dimensions: Sequence[str] | None = None,
    split: str | None = None,
) -> tuple[list[Rating], list[Rating], list[float]]:
    """Read and check ratings: those to train on, those held out, and how sure each of the first is.

    How sure they are is `stds`, one a rating of a list, or the column "std" of a CSV, TSV or JSONL file;
    where there is none, `config.width` of the range.

    Raises:
        InputError: ratings or images that cannot be used, with the first few; or an image on both sides.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    if isinstance(data, str | Path):
        if stds is not None:
            raise InputError("stds go with a list of ratings; a file has them in a column, std")
        ratings = _read(data, images, dimensions, split, "train")
        known = read_stds(data, ratings, images, dimensions)
    else:
        if stds is not None and (len(stds) != len(data) or not all(std > 0 for std in stds)):
            raise InputError(f"stds: expected {len(data)} numbers above 0, one a rating, got {len(stds)}")
        chosen = _choose(data, dimensions, split, "train")
        ratings = [data[index] for index in chosen]
        known = [None if stds is None else float(stds[index]) for index in chosen]
    ranges = [DIMENSIONS[rating.dimension].high - DIMENSIONS[rating.dimension].low for rating in ratings]
    widths = [config.width * r if std is None else std for r, std in zip(ranges, known, strict=True)]
    held: list[Rating] = []
    if evaluation is None and config.held_out:
        check_pictures(ratings)
        kept, out = split_by_image(ratings, config.held_out, config.seed)
        held = [ratings[index] for index in out]
        ratings, widths = [ratings[index] for index in kept], [widths[index] for index in kept]
        return ratings, held, widths
    if config.held_out:
        raise InputError("give ratings to evaluate on, or held_out, not both")
    if evaluation is not None:
        held = _read(evaluation, images, dimensions, None, "test")
        both = {rating.image.resolve() for rating in ratings} & {rating.image.resolve() for rating in held}
        if both:
            raise InputError(f"{len(both)} images are in training and in evaluation, such as {min(both)}")
    check_pictures([*ratings, *held])
    return ratings, held, widths


def _read(
    data: str | Path | Sequence[Rating],
    images: str | Path | None,
    dimensions: Sequence[str] | None,
    split: str | None,
    usual: str,
) -> list[Rating]:
    """Read ratings of a split; by default of the usual one, or all where there is none such."""
    if not isinstance(data, str | Path):
        return [data[index] for index in _choose(data, dimensions, split, usual)]
    if split is None:  # names may be the same in several splits, so they are not to be read together
        rows = read_rows(data, lambda _dimension, _split: True, with_images=False)
        split = usual if any(isinstance(row, Row) and row.split == usual for row in rows) else None
    return read_ratings(data, images=images, dimensions=dimensions, split=split)


def _choose(
    ratings: Sequence[Rating], dimensions: Sequence[str] | None, split: str | None, usual: str
) -> list[int]:
    """Check a list of ratings; return the indices of those asked for."""
    problems = list(filter(None, map(_problem, ratings)))
    if problems or not ratings:
        raise unusable(problems or ["there is none"], len(ratings))
    for name in dimensions or ():
        if name not in DIMENSIONS:
            raise unknown_name("dimension", name, DIMENSIONS)
    known = {rating.split for rating in ratings}
    if split is not None and split not in known:
        raise unknown_name("split", split, {str(name) for name in known} - {"None"})
    wanted = usual if split is None and usual in known else split
    found = [
        index
        for index, rating in enumerate(ratings)
        if (wanted is None or rating.split == wanted) and (not dimensions or rating.dimension in dimensions)
    ]
    if not found:
        raise InputError(f"no ratings of {', '.join(dimensions or ())} in the split {wanted}")
    return found


def read_stds(
    data: str | Path,
    ratings: Sequence[Rating],
    images: str | Path | None = None,
    dimensions: Sequence[str] | None = None,
) -> list[float | None]:
    """Standard deviation of each rating, out of the column "std" of the CSV, TSV or JSONL that they are from.

    None where the file is of another kind, has no such column, or nothing in it.

    Raises:
        InputError: something else than numbers above 0, with the first few.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    path = Path(data).expanduser()
    cells = _cells(path)
    if not any(cells):
        return [None] * len(ratings)
    only = dimensions[0] if dimensions and len(set(dimensions)) == 1 else ""
    root = None if images is None else Path(images).expanduser()
    wanted = {(r.image, r.dimension, r.split): index for index, r in enumerate(ratings)}
    found: list[float | None] = [None] * len(ratings)
    problems = []
    # the reader gives one row for each record, in the order of the file
    for cell, row in zip(cells, read_rows(path, lambda _dimension, _split: True), strict=True):
        if not isinstance(row, Row) or not cell:
            continue
        image = (root or row.base) / Path(row.image).expanduser()
        index = wanted.get((image, row.dimension or only, row.split))
        if index is None:
            continue
        try:
            found[index] = float(cell)
        except ValueError:
            problems.append(f"{row.where}: std {cell!r} is no number")
            continue
        if not 0 < float(cell) < math.inf:
            problems.append(f"{row.where}: std {cell} is not above 0")
    if problems:
        raise unusable(problems, len(ratings))
    return found


def _cells(path: Path) -> list[str]:
    """What the records of a CSV, TSV or JSONL file have in their column "std", "" where nothing is there."""
    kind = path.suffix.lower()
    if not path.is_file() or kind not in (".csv", ".tsv", ".jsonl"):
        return []
    text = read_text(path)
    records: list[dict[str | None, Any]]
    if kind == ".jsonl":
        records = [json.loads(line) for line in text.split("\n") if line.strip()]
    else:
        delimiter = "\t" if kind == ".tsv" else ","
        lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        lines.fieldnames = [str(name).strip() for name in lines.fieldnames or ()]
        records = [*lines]
    return ["" if r.get("std") is None else str(r["std"]).strip() for r in records]


def _problem(rating: Rating) -> str | None:
    """What is wrong with a rating that did not come through `read_ratings`."""
    dim = DIMENSIONS.get(rating.dimension)
    if dim is None:
        return f"{rating.key}: unknown dimension {rating.dimension!r}"
    if not dim.low <= rating.score <= dim.high:
        return f"{rating.key}: score {rating.score} is not in {dim.low:g}..{dim.high:g}"
    return None


def check_pictures(ratings: Sequence[Rating]) -> None:
    """Decode every image once, so that a broken one is told before training and not in the course of it.

    Raises:
        InputError: images that cannot be read, with the first few and their number.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """

    def reason(path: Path) -> str | None:
        try:
            as_pil(path)
        except ImageError as error:
            return str(error)
        return None

    paths = list(dict.fromkeys(rating.image for rating in ratings))
    with ThreadPoolExecutor() as threads:
        problems = list(filter(None, threads.map(reason, paths)))
    if problems:
        raise unusable(problems, len(paths), "images")


def unusable(problems: Sequence[str], total: int, what: str = "ratings") -> InputError:
    """Build the error that lists the first things that cannot be used.

    >>> print(unusable(["a.png: no such file"], 8, "images"))
    1 of 8 images cannot be used:
      a.png: no such file
    """
    more = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return InputError(
        "\n  ".join([f"{len(problems)} of {total} {what} cannot be used:", *problems[:SHOWN], *more])
    )
