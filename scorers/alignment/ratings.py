"""The ratings of a run: read, checked to the last image, and shared out between training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..._errors import ImageError, InputError, unknown_name
from ..benchmark.data import SHOWN, Rating, read_ratings
from ..dimensions import DIMENSIONS
from ..images import as_pil
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

    Raises:
        InputError: ratings or images that cannot be used, with the first few; or an image on both sides.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    everything = _read(data, images, dimensions)
    if stds is not None and (len(stds) != len(everything) or not all(std > 0 for std in stds)):
        raise InputError(f"stds: expected {len(everything)} numbers above 0, one a rating, got {len(stds)}")
    chosen = _of_split(everything, split, "train")
    ratings = [everything[index] for index in chosen]
    ranges = [DIMENSIONS[rating.dimension].high - DIMENSIONS[rating.dimension].low for rating in ratings]
    widths = [config.width * size for size in ranges] if stds is None else [float(stds[i]) for i in chosen]
    if evaluation is None:
        kept, out = split_by_image(ratings, config.held_out, config.seed)
        held = [ratings[index] for index in out]
        ratings, widths = [ratings[index] for index in kept], [widths[index] for index in kept]
    elif config.held_out:
        raise InputError("give ratings to evaluate on, or held_out, not both")
    else:
        others = _read(evaluation, images, dimensions)
        held = [others[index] for index in _of_split(others, None, "test")]
        both = {rating.image.resolve() for rating in ratings} & {rating.image.resolve() for rating in held}
        if both:
            raise InputError(f"{len(both)} images are in training and in evaluation, such as {min(both)}")
    check_images([*ratings, *held])
    return ratings, held, widths


def _read(
    data: str | Path | Sequence[Rating], images: str | Path | None, dimensions: Sequence[str] | None
) -> list[Rating]:
    if isinstance(data, str | Path):
        return read_ratings(data, images=images, dimensions=dimensions)
    problems = list(filter(None, map(_problem, data)))
    if problems or not data:
        raise unusable(problems or ["there is none"], len(data))
    return [rating for rating in data if dimensions is None or rating.dimension in dimensions]


def _of_split(ratings: Sequence[Rating], split: str | None, usual: str) -> list[int]:
    """Indices of the ratings of a split; by default of the usual one, or of all where there is none such."""
    known = {rating.split for rating in ratings}
    if split is not None and split not in known:
        raise unknown_name("split", split, {str(name) for name in known} - {"None"})
    wanted = usual if split is None and usual in known else split
    return [i for i, rating in enumerate(ratings) if wanted is None or rating.split == wanted]


def _problem(rating: Rating) -> str | None:
    """What is wrong with a rating that did not come through `read_ratings`."""
    dim = DIMENSIONS.get(rating.dimension)
    if dim is None:
        return f"{rating.key}: unknown dimension {rating.dimension!r}"
    if not dim.low <= rating.score <= dim.high:
        return f"{rating.key}: score {rating.score} is not in {dim.low:g}..{dim.high:g}"
    return None


def check_images(ratings: Sequence[Rating]) -> None:
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
