"""Human ratings of images: read from any format they come in, and checked before a model is loaded."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from ..._errors import InputError, unknown_name
from ..dimensions import DIMENSIONS
from .formats import Problem, Row, canonical_dimension, read_rows

SHOWN = 5
"""How many offenders an error lists."""


@dataclass(frozen=True)
class Rating:
    """What people felt about one image in one dimension.

    Attributes:
        image: a file; images out of parquet are written once to a cache folder.
        dimension: a name of `DIMENSIONS`.
        score: mean of the people asked, in the dimension's range.
        key: identity of the item, "aesthetics/000800.jpg": the same whatever the format, order or seed.
        prompt: the wording that came with the data, if any, without a placeholder for the image.
        split: "train", "test", ..., or None where the data do not say.
    """

    image: Path
    dimension: str
    score: float
    key: str
    prompt: str | None = None
    split: str | None = None


def read_ratings(
    data: str | Path,
    *,
    images: str | Path | None = None,
    dimensions: Sequence[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Rating]:
    """Read ratings and check them all; sorted by dimension and key, whatever the order in the files.

    Formats: a Hub dataset ("foolen/CogIP-Bench"), a parquet file or a folder of them, ``metadata_*.jsonl``
    in a folder, the official ``*_messages.json`` + ``*_scores.json`` (one dimension's folder or the one that
    holds them), ``cognition_training.json``, ``*_scores.txt``, or a CSV, TSV or JSONL file with ``image,
    dimension, score`` and, if you like, ``prompt`` and ``split``; without a dimension column, name one in
    `dimensions`. A folder with several is read as the first it has of: parquet, metadata, official files,
    score lists.

    Args:
        data: file, folder, or Hub name.
        images: folder that image paths start from; default: the folder of the data file, or up to two above.
        dimensions: only these.
        split: only this one.
        limit: at most so many ratings a dimension, chosen by `pick_stratified`.
        seed: which of them `limit` chooses.

    Raises:
        InputError: nothing there or not to be read; or ratings that cannot be used, whose first few and
            number it lists: no image, an unknown dimension, a score that is no number or out of range,
            messages and scores of different length, an item rated twice.
        UnknownNameError: a name in `dimensions`, or a split, that there is not.
        MissingExtraError: parquet or the Hub, without the extra "bench".

    Executed examples are in ``tests/scorers/test_benchmark_data.py``.
    """
    for name in dimensions or ():
        if name not in DIMENSIONS:
            raise unknown_name("dimension", name, DIMENSIONS)
    if limit is not None and limit < 1:
        raise InputError(f"limit: expected at least 1, got {limit}")
    splits: set[str] = set()

    only = dimensions[0] if dimensions and len(set(dimensions)) == 1 else ""

    def wanted(dim: str, of_split: str | None) -> bool:
        splits.add(str(of_split))
        asked = not dimensions or dim in dimensions or dim not in DIMENSIONS  # what is unknown is an error
        return asked and (split is None or of_split == split)

    root = None if images is None else Path(images).expanduser()
    if root is not None and not root.is_dir():
        raise InputError(f"images: no folder {root}")
    ratings: list[Rating] = []
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for row in read_rows(data, wanted):
        if isinstance(row, Row):
            row = replace(row, dimension=row.dimension or only)
            if not wanted(row.dimension, row.split):
                continue
        rating = row if isinstance(row, Problem) else _check(row, root, seen)
        if isinstance(rating, Problem):
            problems.append(rating)
        else:
            ratings.append(rating)
    if problems:
        raise _unusable(data, problems, len(ratings) + len(problems))
    if not ratings:
        if split is not None and split not in splits:
            raise unknown_name(f"split of {data}", split, splits - {"None"})
        raise InputError(f"{data}: no ratings of {', '.join(dimensions or DIMENSIONS)}")
    order = {name: index for index, name in enumerate(DIMENSIONS)}
    ratings.sort(key=lambda rating: (order[rating.dimension], rating.key))
    return ratings if limit is None else pick_stratified(ratings, limit, seed)


def read_scores(
    data: str | Path, dimensions: Sequence[str] | None = None, split: str | None = None
) -> dict[str, list[float]]:
    """Read the human scores of each dimension without a look at the images.

    For figures about a training split: rows with other problems are passed over; `read_ratings` is what checks.

    Raises:
        InputError: nothing there or not to be read; or scores out of range, with file and row.

    An executed example is in ``tests/scorers/test_benchmark_data.py``.
    """
    found: dict[str, list[float]] = {}
    problems: list[Problem] = []
    count = 0
    for row in read_rows(data, lambda dim, of_split: split is None or of_split == split, with_images=False):
        if isinstance(row, Problem) or row.dimension not in (dimensions or DIMENSIONS):
            continue
        if (split is None or row.split == split) and not math.isnan(row.score):
            count += 1
            problem = _out_of_range(row)
            if problem is not None:
                problems.append(problem)
            found.setdefault(row.dimension, []).append(row.score)
    if problems:
        raise _unusable(data, problems, count)
    return found


def pick_stratified(ratings: Sequence[Rating], limit: int, seed: int = 0) -> list[Rating]:
    """Choose at most `limit` ratings of each dimension that are spread like the whole.

    The ratings of a dimension are sorted by score (ties by a hash of key and seed) and cut into `limit`
    strata of equal size, as nearly as they can be; of each stratum the rating with the lowest hash is taken.
    The choice depends on the set of keys and scores and on the seed alone, not on order or machine.

    Returns:
        the chosen ratings in the order in which they came.

    Raises:
        InputError: `limit` below 1.

    >>> items = [Rating(Path(f"{i}.png"), "funniness", float(i % 10), f"funniness/{i}") for i in range(100)]
    >>> [rating.score for rating in pick_stratified(items, 5)] == [
    ...     rating.score for rating in sorted(pick_stratified(items[::-1], 5), key=items.index)
    ... ]
    True
    >>> sorted(int(rating.score) // 2 for rating in pick_stratified(items, 5))
    [0, 1, 2, 3, 4]
    """
    if limit < 1:
        raise InputError(f"limit: expected at least 1, got {limit}")
    chosen: set[str] = set()
    for name in {rating.dimension for rating in ratings}:
        ranked = sorted(
            (rating.score, hashlib.sha256(os.fsencode(f"{seed}\n{rating.key}")).digest(), rating.key)
            for rating in ratings
            if rating.dimension == name
        )
        count = min(limit, len(ranked))
        ends = [len(ranked) * stratum // count for stratum in range(count + 1)]
        for start, end in pairwise(ends):
            chosen.add(min(ranked[start:end], key=lambda entry: entry[1])[2])
    return [rating for rating in ratings if rating.key in chosen]


def _check(row: Row, root: Path | None, seen: dict[str, str]) -> Rating | Problem:
    """Make a rating of a row, or say what is wrong with it; `seen` holds where each key was met."""
    if row.dimension not in DIMENSIONS:
        what = f"{row.dimension!r}; known: {', '.join(DIMENSIONS)}" if row.dimension else "none is named"
        return Problem("unknown dimension", f"{row.where}: dimension {what}")
    problem = _out_of_range(row)
    if problem is not None:
        return problem
    if row.blob is not None:
        image = _cached(row.blob)
    elif row.image:
        image = (root or row.base) / Path(row.image).expanduser()
        if not image.is_file():
            hint = "; the folder that paths start from: --images ROOT" if root is None else ""
            return Problem("missing image", f"{row.where}: no image {image}{hint}")
    else:
        return Problem("missing image", f"{row.where}: names no image")
    key = _key(row)
    if key in seen:
        return Problem(
            "rated twice",
            f"{row.where}: {key} was rated in {seen[key]} already; give the mean, or choose a split",
        )
    seen[key] = row.where
    return Rating(image, row.dimension, row.score, key, row.prompt, row.split)


def _out_of_range(row: Row) -> Problem | None:
    dim = DIMENSIONS[row.dimension]
    if dim.low <= row.score <= dim.high:
        return None
    what = "is no number" if math.isnan(row.score) else f"{row.score:g} is out of range"
    return Problem("unusable score", f"{row.where}: score {what}; {dim.name} runs from {dim.low:g} to {dim.high:g}")


def _key(row: Row) -> str:
    """Our dimension's name, and the path below the folder of that name if there is one."""
    path = Path(row.image or row.id)
    parts = path.relative_to(path.anchor).parts
    below = [index + 1 for index, part in enumerate(parts[:-1]) if canonical_dimension(part) == row.dimension]
    return "/".join((row.dimension, *(parts[below[-1] :] if below else parts)))


def _unusable(data: str | Path, problems: Sequence[Problem], total: int) -> InputError:
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(p.kind for p in problems).most_common())
    lines = [f"  {problem.text}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    head = f"{data}: {len(problems)} of {total} ratings cannot be used ({kinds}):"
    return InputError("\n".join([head, *lines]))


def _cached(blob: bytes) -> Path:
    """Write an encoded image once, under a name made from its content."""
    from huggingface_hub import constants

    digest = hashlib.sha256(blob).hexdigest()
    folder = Path(constants.HF_HOME) / "cogguided" / "images" / digest[:2]
    file = folder / digest
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as out:
            out.write(blob)
        os.replace(temporary, file)  # whole or not at all, also with several processes
    return file
