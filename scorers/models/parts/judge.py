"""The frame of a judge: batches, images that cannot be read, gradients, and the caller's settings of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from tqdm import tqdm
from typing_extensions import Self

from ...._errors import CogGuidedError, InputError
from ...base import ImageInput, Scores, check_prompts
from ...images import check_images, load_images, name_of
from ...precision import own_precision

Pictures = list[Image.Image] | list[torch.Tensor]
"""Readable images of a batch: all PIL, or all tensors (3, H, W) in [0, 1], which may have a graph."""


class Judged(NamedTuple):
    """What a network makes of B images: values (B,), their spread (B,) or None, and why a value is NaN, or None."""

    values: torch.Tensor
    std: torch.Tensor | None = None
    errors: Sequence[str | None] | None = None


class Judge(ABC):
    """A scorer of which a subclass says two things: what the network is given, and what it makes of that.

    Tensors with a graph keep it where `differentiable`. An image that cannot be read, or that the model's
    preprocessing refuses, is NaN with its reason; the others of its batch go on.

    An executed example is every judge's test in ``tests/scorers/``.
    """

    name: str
    low: float
    high: float
    differentiable = True
    needs_prompt = False

    def __init__(self, model: Any, batch_size: int) -> None:
        """Take the network, which is set to evaluation and frozen.

        Raises:
            InputError: a batch size below 1.
        """
        if batch_size < 1:
            raise InputError(f"expected batch_size >= 1, got {batch_size}")
        self.model = model.eval().requires_grad_(False)
        self.batch_size = batch_size
        self.progress: bool | None = None

    @abstractmethod
    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Turn readable images and their texts into the network's inputs; a ValueError refuses an image."""

    @abstractmethod
    def judge(self, inputs: Any) -> Judged:
        """Score what `prepare` made."""

    def check_texts(self, texts: Sequence[str]) -> None:  # noqa: B027
        """Look at a call's prompts once, before the first batch: the place for `warn_of_truncation`."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        place: torch.device = next(iter(self.model.parameters())).device
        return place

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are kept in."""
        kind: torch.dtype = next(iter(self.model.parameters())).dtype
        return kind

    def to(self, device: torch.device | str) -> Self:
        """Move the weights and return the scorer itself."""
        self.model.to(device)
        return self

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images; `prompts` are looked at only if `needs_prompt`.

        Raises:
            InputError: not a batch of images, or not one prompt per image.
        """
        check_images(images)
        texts = check_prompts(prompts, len(images), self.name) if self.needs_prompt else [""] * len(images)
        tracked = isinstance(images, torch.Tensor) and images.requires_grad and self.differentiable
        parts = []
        with own_precision(self.device), torch.set_grad_enabled(torch.is_grad_enabled() and tracked):
            if self.needs_prompt:
                self.check_texts(list(dict.fromkeys(texts)))
            for rows in self._batches(len(images)):
                parts.append(self._score(images[rows], texts[rows]))
        return Scores.cat(parts)

    def _batches(self, count: int) -> Iterator[slice]:
        starts = range(0, count, self.batch_size)
        hidden = True if len(starts) < 2 else (None if self.progress is None else not self.progress)
        for start in tqdm(starts, desc="scoring", unit="batch", disable=hidden, leave=False):
            yield slice(start, start + self.batch_size)

    def _score(self, images: ImageInput, texts: Sequence[str]) -> Scores:
        pictures, errors = _readable(images)
        groups = [list(pictures)] if pictures else []
        found: list[tuple[list[int], Judged]] = []
        while groups:
            group = groups.pop(0)
            try:
                chosen: Any = [pictures[row] for row in group]
                inputs = self.prepare(chosen, [texts[row] for row in group])
            except CogGuidedError:
                raise
            except (ValueError, ZeroDivisionError) as error:
                if len(group) > 1:
                    groups = [[row] for row in group] + groups  # find out which one it is
                else:
                    errors[group[0]] = f"{name_of(images[group[0]], group[0])}: refused by the model ({error})"
                continue
            found.append((group, self.judge(inputs)))
        return _scattered(found, errors, self.device)


def _readable(images: ImageInput) -> tuple[dict[int, Any], list[str | None]]:
    """Images by row that can be read, and why the others cannot."""
    if not isinstance(images, torch.Tensor):
        pictures, errors = load_images(images, on_error="nan")
        return {row: picture for row, picture in enumerate(pictures) if picture is not None}, errors
    finite = images.detach().isfinite().flatten(1).all(dim=1).tolist()
    reasons = [None if ok else f"image {row}: has pixels that are not finite" for row, ok in enumerate(finite)]
    return {row: image.float() for row, image in enumerate(images) if finite[row]}, reasons


def _scattered(found: list[tuple[list[int], Judged]], errors: list[str | None], place: torch.device) -> Scores:
    """Scores of a whole batch from those of groups of its rows."""
    values = torch.full((len(errors),), torch.nan, device=place)
    spreads = torch.full((len(errors),), torch.nan, device=place)
    for group, judged in found:
        rows = torch.tensor(group, device=place)
        values = values.index_copy(0, rows, judged.values.float())
        if judged.std is not None:
            spreads = spreads.index_copy(0, rows, judged.std.float())
        reasons = judged.errors or [None] * len(group)
        for row, ok, why in zip(group, judged.values.detach().isfinite().tolist(), reasons, strict=True):
            errors[row] = None if ok else why or f"image {row}: its score is not finite"
    if values.detach().isinf().any():
        values = values.masked_fill(values.detach().isinf(), torch.nan)
    told = any(judged.std is not None for _, judged in found)
    return Scores(values, spreads if told else None, errors=errors)
