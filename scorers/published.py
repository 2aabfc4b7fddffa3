"""Values that a judge's authors publish for their demo images, for a check with the real weights.

They were read in the authors' own repositories; a judge that is missing here has none that we could find.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import InputError, unknown_name
from .registry import list_scorers, load_scorer

_RAW = "https://raw.githubusercontent.com/{}/HEAD/{}"


@dataclass(frozen=True)
class Published:
    """What one judge's authors publish.

    Attributes:
        repository: of the authors, on GitHub.
        images: their paths in it.
        values: of the images, on this package's scale.
        allowed: how far a value may lie off: the authors computed in half precision, on another library's release.
        prompt: that the images were scored for, or None.
    """

    repository: str
    images: tuple[str, ...]
    values: tuple[float, ...]
    allowed: float
    prompt: str | None = None


PUBLISHED = {
    "imagereward": Published(
        "THUDM/ImageReward",
        tuple(f"assets/images/{number}.webp" for number in (1, 2, 3, 4)),
        (0.5811622738838196, 0.2745276093482971, -1.4131819009780884, -2.029569625854492),
        0.02,
        "a painting of an ocean with clouds and birds, day time, low depth field effect",
    ),
    "qalign": Published("Q-Future/Q-SiT", ("44009500.jpg",), (1 + 4 * 0.045549712192942585,), 0.05),
}
"""By name of the judge. Q-SiT's scale of 0 to 1 is 1 to 5 here."""


UNPUBLISHED = {
    "pickscore": "their demo has pairs of images and no values",
    "hpsv2": "their README has a demo image and no value",
    "vqascore": "their README has example images and no values",
}
"""Judges whose authors' pages were looked at, and what is there instead of values."""


def check(
    name: str, folder: Path | None = None, model: str | None = None
) -> tuple[list[tuple[str, float, float]], float]:
    """Score a judge's demo images; return (image, published value, value here) of each, and how far they may differ.

    Args:
        name: of a judge.
        folder: with the authors' images; default: fetched from their repository, kept in torch's cache.
        model: weights, if not the judge's own.

    Raises:
        UnknownNameError: there is no such judge.
        InputError: nothing is published for that judge, or an image is not in the folder.
        ModelError: judge or images cannot be fetched.

    Executed, with tiny weights, in ``tests/scorers/test_published.py``.
    """
    if name not in PUBLISHED and name in {info.name for info in list_scorers()}:
        there = UNPUBLISHED.get(name, "none were found")
        raise InputError(
            f"{name}: its authors publish no values of demo images to compare with ({there}); run their own code on "
            f"images of yours and compare. Published are those of: {', '.join(PUBLISHED)}"
        )
    if name not in PUBLISHED:
        raise unknown_name("scorer with published values", name, PUBLISHED)
    known = PUBLISHED[name]
    files = [_image(known.repository, path, folder) for path in known.images]
    options: dict[str, Any] = {} if model is None else {"model": model}
    scorer = load_scorer(name, **options)
    scores = scorer(files, None if known.prompt is None else [known.prompt] * len(files))
    rows = zip(files, known.values, scores.values.tolist(), strict=True)  # NaN where there is no score
    return [(file.name, value, here) for file, value, here in rows], known.allowed


def _image(repository: str, path: str, folder: Path | None) -> Path:
    if folder is None:
        from .models.parts.files import fetch_file

        return fetch_file(_RAW.format(repository, path))
    file = folder / Path(path).name
    if not file.is_file():
        raise InputError(f"{folder}: has no {file.name}, one of the demo images of github.com/{repository}")
    return file
