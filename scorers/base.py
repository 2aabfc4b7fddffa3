"""What a scorer is (`Scorer`) and what it answers (`Scores`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from PIL import Image
from typing_extensions import Self

from .._errors import InputError
from .._texts import html_table

ImageInput: TypeAlias = Sequence[Image.Image | str | Path] | torch.Tensor
"""A list of PIL images or paths, or a float tensor (B, 3, H, W), RGB, in [0, 1]."""


class TruncationWarning(UserWarning):
    """The end of a text lies beyond what a model reads; in a guided call it is one of the output's notes."""


_heard: ContextVar[list[str] | None] = ContextVar("truncations", default=None)


@contextmanager
def truncations() -> Iterator[list[str]]:
    """Gather what would be `TruncationWarning`s of this thread, while inside.

    >>> with truncations() as told:
    ...     warn_of_truncation("the end is not seen")
    >>> told
    ['the end is not seen']
    """
    told: list[str] = []
    before = _heard.set(told)
    try:
        yield told
    finally:
        _heard.reset(before)


def warn_of_truncation(message: str) -> None:
    """Warn that the end of a text is not read, or tell whoever gathers such warnings."""
    told = _heard.get()
    if told is None:
        warnings.warn(message, TruncationWarning, stacklevel=5)
    else:
        told.append(message)


@dataclass(frozen=True, eq=False, init=False)
class Scores:
    """The scores of B images, in the order of the images.

    What could not be scored is NaN and not valid; it is neither 0 nor left out.

    Attributes:
        values: (B,) float32, in the scorer's range, higher is more; NaN exactly where not valid.
        std: (B,) float32, spread of the scorer's own belief in the unit of `values`, or None.
        valid: (B,) bool.
        labels: per image the word for its value ("very high"), or None where there is none.
        mass: (B,) float32 in [0, 1], the probability that the model gave to well-formed answers, or None.
        errors: per image why it is not valid, None where it is valid.

    >>> scores = Scores(torch.tensor([0.5, float("nan")]), errors=[None, "broken.png: cannot identify"])
    >>> scores.valid.tolist(), scores.num_invalid, len(scores)
    ([True, False], 1, 2)
    """

    values: torch.Tensor
    std: torch.Tensor | None
    valid: torch.Tensor
    labels: list[str | None] | None
    mass: torch.Tensor | None
    errors: list[str | None] | None

    def __init__(
        self,
        values: torch.Tensor,
        std: torch.Tensor | None = None,
        valid: torch.Tensor | None = None,
        labels: Sequence[str | None] | None = None,
        mass: torch.Tensor | None = None,
        errors: Sequence[str | None] | None = None,
    ) -> None:
        """Check shapes and that NaN and not valid coincide; `valid` follows from `values` if not given.

        Raises:
            InputError: a shape or length differs, a value is infinite, or `valid` contradicts `values`.
        """
        if values.ndim != 1 or not values.is_floating_point():
            raise InputError(
                f"values: expected a float tensor (B,), got {values.dtype} {tuple(values.shape)}"
            )
        finite = values.detach().isfinite()
        if bool(values.detach().isinf().any()):
            raise InputError(f"values: a score is finite, or NaN where not valid; got {values.tolist()}")
        if valid is not None and not torch.equal(valid.to(finite.device), finite):
            raise InputError("valid: must be False exactly where values is NaN")
        for name, tensor in (("std", std), ("mass", mass)):
            if tensor is not None and tensor.shape != values.shape:
                raise InputError(f"{name}: expected {tuple(values.shape)}, got {tuple(tensor.shape)}")
        for name, items in (("labels", labels), ("errors", errors)):
            if items is not None and len(items) != len(values):
                raise InputError(f"{name}: expected {len(values)} entries, got {len(items)}")
        if errors is not None and any(
            (e is None) != ok for e, ok in zip(errors, finite.tolist(), strict=True)
        ):
            raise InputError("errors: must hold a reason exactly where the score is not valid")
        fields = {
            "values": values.float(),
            "std": None if std is None else std.float(),
            "valid": finite,
            "labels": None if labels is None else list(labels),
            "mass": None if mass is None else mass.float(),
            "errors": None if errors is None else list(errors),
        }
        for name, field in fields.items():
            object.__setattr__(self, name, field)

    def __len__(self) -> int:
        """Number of images, valid or not."""
        return len(self.values)

    def _repr_html_(self) -> str:
        """What a notebook shows: a row an image."""
        columns = {
            "image": list(range(len(self))), "score": self.values.tolist(),
            "±": None if self.std is None else self.std.tolist(), "label": self.labels, "why not": self.errors,
        }  # fmt: skip
        shown = {name: column for name, column in columns.items() if column and any(v is not None for v in column)}
        return html_table(list(shown), list(zip(*shown.values(), strict=True)))

    @property
    def num_invalid(self) -> int:
        """How many images have no score."""
        return int((~self.valid).sum())

    def to(self, device: torch.device | str) -> Scores:
        """Return the same scores with their tensors on `device`; gradients are kept."""
        return Scores(
            self.values.to(device),
            None if self.std is None else self.std.to(device),
            None,
            self.labels,
            None if self.mass is None else self.mass.to(device),
            self.errors,
        )

    def cpu(self) -> Scores:
        """Return the same scores with their tensors in main memory; gradients are kept."""
        return self.to("cpu")

    @staticmethod
    def cat(parts: Sequence[Scores]) -> Scores:
        """Join scores of the same scorer, in order.

        A field is None in the whole only where it is None in every part.

        >>> Scores.cat([Scores(torch.zeros(2)), Scores(torch.ones(1))]).values.tolist()
        [0.0, 0.0, 1.0]
        """
        if not parts:
            return Scores(torch.empty(0))

        def tensors(values: list[torch.Tensor | None]) -> torch.Tensor | None:
            if all(value is None for value in values):
                return None
            blank = [torch.full_like(part.values.detach(), torch.nan) for part in parts]
            return torch.cat([b if v is None else v for v, b in zip(values, blank, strict=True)])

        def lists(values: list[list[str | None] | None]) -> list[str | None] | None:
            if all(value is None for value in values):
                return None
            blank: list[list[str | None]] = [
                ["not valid" if not ok else None for ok in part.valid.tolist()] for part in parts
            ]
            return [x for v, b in zip(values, blank, strict=True) for x in (b if v is None else v)]

        labels = [p.labels if p.labels is not None else [None] * len(p) for p in parts]
        return Scores(
            torch.cat([part.values for part in parts]),
            tensors([part.std for part in parts]),
            None,
            [x for part in labels for x in part] if any(p.labels is not None for p in parts) else None,
            tensors([part.mass for part in parts]),
            lists([part.errors for part in parts]),
        )


@runtime_checkable
class Scorer(Protocol):
    """Says what images are worth: any object with this method and these facts is a scorer.

    Higher means more of the named property. A scorer batches itself, and an image's score does not depend
    on its batch. `prompts` may be None unless `needs_prompt`.
    """

    @property
    def name(self) -> str:
        """Name of the property or model, as shown beside the score."""
        ...

    @property
    def low(self) -> float:
        """Lowest value of the scale."""
        ...

    @property
    def high(self) -> float:
        """Highest value of the scale."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach an image tensor."""
        ...

    @property
    def needs_prompt(self) -> bool:
        """Whether one prompt per image must be given."""
        ...

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move the weights and return the scorer itself."""
        ...


@runtime_checkable
class DimensionScorer(Scorer, Protocol):
    """A scorer whose model knows several dimensions and can answer them in one pass over the images."""

    @property
    def dimension(self) -> str:
        """The dimension that a plain call scores."""
        ...

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Every dimension this scorer can be asked for."""
        ...

    @property
    def core(self) -> object:
        """The loaded model; scorers with the very same core share their weights."""
        ...

    @property
    def options(self) -> object:
        """How answers are read: scorers of one core whose options are equal can be asked in one pass."""
        ...

    def with_dimension(self, name: str) -> Self:
        """Return a scorer of another dimension on the same weights."""
        ...

    def score_all(
        self, images: ImageInput, dimensions: Sequence[str] | None = None, prompts: Sequence[str] | None = None
    ) -> dict[str, Scores]:
        """Score the images in several dimensions at once (all, unless named).

        `prompts` are given only where a dimension needs them; a scorer of none that does need not take them.
        """
        ...


@runtime_checkable
class ReadoutScorer(DimensionScorer, Protocol):
    """A scorer of dimensions whose model can be read in several ways."""

    def score_readouts(
        self,
        images: ImageInput,
        dimensions: Sequence[str] | None = None,
        readouts: Sequence[str] = ("expected", "greedy"),
    ) -> dict[str, dict[str, Scores]]:
        """Score the images by several read-outs at once: scores by read-out, then by dimension."""
        ...


@runtime_checkable
class ComparingScorer(Scorer, Protocol):
    """A scorer that can say which of two images is better; where `compares`, it says nothing of a single one."""

    @property
    def compares(self) -> bool:
        """Whether it does."""
        ...

    def compare(self, first: ImageInput, second: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Probability in [0, 1] that the first image of each of B pairs is better."""
        ...


def check_prompts(prompts: Sequence[str] | None, num_images: int, scorer: str) -> list[str]:
    """Return the prompts of a scorer that needs them, one per image.

    Raises:
        InputError: none given, a bare string, or another number than images.

    >>> check_prompts(["a cat"], 1, "clip")
    ['a cat']
    """
    if prompts is None:
        raise InputError(f"scorer '{scorer}' compares images with prompts: pass prompts=[...], one per image")
    if isinstance(prompts, str):
        raise InputError(f"prompts: expected a list, one per image, got the string {prompts!r}")
    if len(prompts) != num_images:
        raise InputError(f"prompts: expected one per image ({num_images}), got {len(prompts)}")
    return list(prompts)
