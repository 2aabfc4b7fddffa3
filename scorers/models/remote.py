"""A judge on a server: what `cogguided serve` scores by, as a scorer like any other."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..._errors import InputError, unknown_name
from ..base import ImageInput, Scores, check_prompts
from ..dimensions import DIMENSIONS
from ..images import check_images, load_images
from .parts.service import VARIABLE, Client


class RemoteScorer:
    """One score of a service; higher is more of what it is named after, in the range that the service tells.

    Images are read here and sent as PNG, 8 bits a colour, so a score is the one that the judge would give here. An
    image for which no answer comes (after some tries), or which the service refuses, is NaN with the reason. Scores
    of one service's dimensions that a target asks for together are one request. Gradients do not pass.

    Make one with `connect`, or by `load_scorer("remote", url=...)`, or by name as "remote:http://host:port".
    """

    differentiable = False

    def __init__(self, client: Client, dimension: str) -> None:
        if dimension not in client.terms:
            raise unknown_name(f"score of {client.url}", dimension, client.terms)
        self.client, self.dimension = client, dimension
        self.name = dimension
        facts = client.terms[dimension]
        self.low, self.high = float(facts["low"]), float(facts["high"])
        self.needs_prompt = bool(facts["needs_prompt"])

    @classmethod
    def connect(
        cls,
        url: str,
        dimension: str | None = None,
        token: str | None = None,
        token_file: str | Path | None = None,
        batch_size: int = 16,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> RemoteScorer:
        """Ask a service what it scores, and return one of its scores.

        Args:
            url: ``http://host:8000``, or ``https://`` with a path.
            dimension: which of its scores; may be left out where there is one.
            token: None: that of `token_file`, or of the environment variable COGGUIDED_TOKEN.
            token_file: file with the token.
            batch_size: images of a request, at most what the service takes.
            timeout: seconds that one request may take.
            retries: further requests after a connection that failed, or "no room" (503); waits between them double,
                and are at least what the service asks for.

        Raises:
            InputError: no such URL, no token or a wrong one, or no score named although there are several.
            UnknownNameError: no score of that name.
            ModelError: nobody answers there, or something else does.
            MissingExtraError: httpx2 or tenacity is not installed.

        Executed in ``tests/scorers/test_remote.py``.
        """
        if token is None and token_file is not None:
            token = Path(token_file).read_text("utf-8").strip()
        client = Client(url, token or os.environ.get(VARIABLE), batch_size, timeout, retries)
        if dimension is None:
            if len(client.terms) > 1:
                raise InputError(f"{client.url} has several scores: pass dimension=, one of {list(client.terms)}")
            dimension = next(iter(client.terms))
        kind = RemoteDimensions if dimension in DIMENSIONS else RemoteScorer
        return kind(client, dimension)

    @property
    def batch_size(self) -> int:
        """Images of a request."""
        return self.client.batch_size

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images; what has no answer is NaN with the reason.

        Raises:
            InputError: not a batch of images, or `prompts` missing although `needs_prompt`.
        """
        return self._score(images, [self.dimension], prompts)[self.dimension]

    def _score(self, images: ImageInput, names: Sequence[str], prompts: Sequence[str] | None) -> dict[str, Scores]:
        check_images(images)
        texts = check_prompts(prompts, len(images), self.name) if self.needs_prompt else None
        pictures, errors = load_images(images, on_error="nan")
        rows: list[Mapping[str, Any] | str] = [error or "" for error in errors]
        good = [i for i, picture in enumerate(pictures) if picture is not None]
        for start in range(0, len(good), self.client.batch_size):
            part = good[start : start + self.client.batch_size]
            found = self.client.ask([as_png(pictures[i]) for i in part], texts and [texts[i] for i in part])
            for i, row in zip(part, found, strict=True):
                rows[i] = row
        return {name: scores_of(rows, name) for name in names}

    def to(self, device: torch.device | str) -> RemoteScorer:
        """Return itself: its weights are elsewhere."""
        return self


class RemoteDimensions(RemoteScorer):
    """One dimension of a service's judge; others of it are asked for in the same request."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Every dimension of the service."""
        return tuple(name for name in self.client.terms if name in DIMENSIONS)

    @property
    def core(self) -> object:
        """The connection; scorers with the very same one are asked together."""
        return self.client

    @property
    def options(self) -> object:
        """Nothing: the service knows how its judge reads."""
        return None

    def with_dimension(self, name: str) -> RemoteDimensions:
        """Return another dimension of the service.

        Raises:
            UnknownNameError: it has none of that name.
        """
        return RemoteDimensions(self.client, name)

    def score_all(self, images: ImageInput, dimensions: Sequence[str] | None = None) -> dict[str, Scores]:
        """Score B images in several dimensions at once (all, unless named)."""
        return self._score(images, self.dimensions if dimensions is None else list(dimensions), None)


def scores_of(rows: Sequence[Mapping[str, Any] | str], name: str) -> Scores:
    """Return one score out of what a service said of each image, or why it said nothing.

    >>> told = {"fake": {"value": 0.5, "std": None, "label": None, "mass": None, "error": None}}
    >>> scores_of([told, "no answer"], "fake").errors
    [None, 'no answer']
    """
    empty: dict[str, Any] = {"value": None, "std": None, "label": None, "mass": None}
    told: list[Mapping[str, Any]] = [{**empty, "error": row} if isinstance(row, str) else row[name] for row in rows]

    def tensor(key: str) -> torch.Tensor:
        return torch.tensor([torch.nan if facts[key] is None else float(facts[key]) for facts in told])

    def known(key: str) -> bool:
        return any(facts[key] is not None for facts in told)

    return Scores(
        tensor("value"),
        tensor("std") if known("std") else None,
        None,
        [facts["label"] for facts in told] if known("label") else None,
        tensor("mass") if known("mass") else None,
        [None if facts["value"] is not None else facts["error"] or "not valid" for facts in told],
    )


def as_png(picture: Image.Image | None) -> bytes:
    """Return a picture as PNG.

    >>> as_png(Image.new("RGB", (1, 1)))[:4]
    b'\\x89PNG'
    """
    assert picture is not None
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
