"""Any no-reference metric of the package pyiqa (MUSIQ, NIMA, TOPIQ, ...) as a scorer: ``load_scorer("pyiqa:musiq")``.

Chen and Mo, "IQA-PyTorch: PyTorch Toolbox for Image Quality Assessment" (github.com/chaofengc/IQA-PyTorch); each
metric has a paper of its own. `pip install "cogguided[iqa]"` brings the code; weights are fetched by it when a metric
is first made. Licence: **PolyForm Noncommercial 1.0.0**, parts of it under the NTU S-Lab License: no commercial use.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from typing_extensions import Self

from ..._errors import InputError, ModelError, missing_extra, unknown_name
from .parts.files import place_for
from .parts.judge import Judge, Judged, Pictures
from .parts.pixels import as_tensor

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class PyIQAScorer(Judge):
    """A metric's value; of a metric of which less is better, the negative, so that higher is better always.

    `low` and `high` are the range that pyiqa tells, which it calls a rough estimate; where it tells none they have to
    be given. Images are not resized but by the metric; those of one size are computed together. Whether gradients
    reach image tensors is found out when it is made.

    Make one with `from_pretrained`.
    """

    def __init__(
        self, metric: Any, name: str, low: float | None = None, high: float | None = None, batch_size: int = 8
    ) -> None:
        """Take a metric that `pyiqa.create_metric` made with ``as_loss=True, loss_reduction="none"``.

        Raises:
            ModelError: it compares with a reference image.
            InputError: no range told or given, or an empty one.
        """
        if metric.metric_mode != "NR":
            raise ModelError(f"pyiqa:{name} compares an image with a reference, which a scorer has not")
        super().__init__(metric, batch_size)
        self.name = f"pyiqa:{name}"
        self.sign = -1.0 if metric.lower_better else 1.0
        told = [float("nan") if end is None else self.sign * end for end in _range(metric.score_range)]
        told = told if self.sign > 0 else told[::-1]
        ends = [told[0] if low is None else low, told[1] if high is None else high]
        if not ends[0] < ends[1] or not all(abs(end) < float("inf") for end in ends):
            raise InputError(
                f"{self.name}: pyiqa tells the range {metric.score_range!r}; pass low= and high="
                f"{', of the negatives, since less is better' if self.sign < 0 else ''}"
            )
        self.low, self.high = ends
        self.differentiable = _passes_gradients(metric, self.device)

    @classmethod
    def from_pretrained(
        cls,
        metric: str,
        low: float | None = None,
        high: float | None = None,
        batch_size: int = 8,
        device: torch.device | str | None = None,
        trust_pickles: bool = False,
    ) -> PyIQAScorer:
        """Make a metric; its weights are fetched by pyiqa.

        Args:
            metric: its name in pyiqa.
            low: lowest value of the scale, default: what pyiqa tells.
            high: highest value.
            batch_size: images of one size a pass.
            device: default: the GPU if there is one.
            trust_pickles: let pyiqa read its files of weights in full, which can run code that is in them; by
                default torch reads tensors only, and some metrics cannot be made so.

        Raises:
            MissingExtraError: pyiqa is not installed.
            UnknownNameError: it has no such metric that needs no reference.
            ModelError: the metric cannot be made.
            InputError: it has no range, and none is given.

        Executed examples are in ``tests/scorers/test_pyiqa.py``.
        """
        try:
            import pyiqa
        except ImportError:
            raise missing_extra("pyiqa", "iqa") from None
        if metric not in pyiqa.list_models():
            raise unknown_name("metric of pyiqa", metric, pyiqa.list_models("NR"))
        try:
            with torch.inference_mode(False), _tensors_only(not trust_pickles):
                made = pyiqa.create_metric(
                    metric, as_loss=True, loss_reduction="none", device=place_for(device), check_input_range=False
                )
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, pickle.UnpicklingError) as error:
            more = "" if trust_pickles else "; if it reads more than tensors and you trust it: trust_pickles=True"
            first = str(error).strip().partition("\n")[0]
            raise ModelError(f"pyiqa:{metric}: cannot be made ({type(error).__name__}: {first}){more}") from error
        return cls(made, metric, low, high, batch_size)

    @property
    def device(self) -> torch.device:
        """Where the metric takes images to; some have no weights that could tell."""
        place: torch.device = self.model.dummy_param.device
        return place

    def to(self, device: torch.device | str) -> Self:
        """Move the metric, and where it takes images to, and return the scorer itself."""
        self.model.to(device)
        self.model.dummy_param = torch.nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        return self

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Return pixels by size, with the rows that they are of."""
        by_size: dict[torch.Size, list[tuple[int, torch.Tensor]]] = {}
        for row, picture in enumerate(pictures):
            tensor = as_tensor(picture).clamp(0, 1)
            by_size.setdefault(tensor.shape, []).append((row, tensor))
        return list(by_size.values())

    def judge(self, inputs: Any) -> Judged:
        """Run the metric, images of one size at a time; one that it refuses spoils no other."""
        groups = list(inputs)
        values: dict[int, torch.Tensor] = {}
        errors: dict[int, str] = {}
        while groups:
            group = groups.pop(0)
            pixels = torch.stack([tensor for _, tensor in group]).to(self.device)
            try:
                found = self.model(pixels).reshape(len(group)) * self.sign
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, AssertionError, IndexError) as error:
                if len(group) > 1:
                    groups = [[one] for one in group] + groups
                    continue
                size, first = f"{pixels.shape[3]}x{pixels.shape[2]}", str(error).partition("\n")[0]
                errors[group[0][0]] = f"{self.name}: refused at {size} ({first})"
                found = torch.full((1,), torch.nan, device=self.device)
            values |= {row: value for (row, _), value in zip(group, found, strict=True)}
        rows = sorted(values)
        return Judged(torch.stack([values[row] for row in rows]), None, [errors.get(row) for row in rows])


def _range(told: str | None) -> tuple[float | None, float | None]:
    """The two ends of a range as pyiqa writes it, "~0, ~100"; None for an end that it leaves out.

    >>> _range("~0, ~100"), _range("0, ~"), _range(None)
    ((0.0, 100.0), (0.0, None), (None, None))
    """
    ends = [end.strip().lstrip("~") for end in (told or ",").split(",")]
    return (float(ends[0]) if ends[0] else None, float(ends[1]) if ends[1] else None)


def _passes_gradients(metric: Any, device: torch.device) -> bool:
    pixels = torch.full((1, 3, 256, 256), 0.5, device=device, requires_grad=True)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return bool(metric(pixels).requires_grad)
    except (RuntimeError, ValueError, AssertionError):
        return False


@contextmanager
def _tensors_only(wanted: bool) -> Iterator[None]:
    """Let `torch.load` read tensors only, whatever it is told, while inside."""
    before = os.environ.get(_FORCE)
    if wanted:
        os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_FORCE, None)
        else:
            os.environ[_FORCE] = before
