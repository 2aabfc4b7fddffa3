"""What a method is asked for: which images of a round are trained on, and what each counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from ..config import FinetuneConfig


@dataclass(frozen=True)
class Part:
    """Images of one prompt that are trained on together.

    Attributes:
        group: the prompt's place in the round.
        rows: the images' places in the group; for "dpo" better and worse in turn.
        value: (len(rows),) what each counts: its weight, or how good it is.
    """

    group: int
    rows: tuple[int, ...]
    value: tuple[float, ...]


class Method(Protocol):
    """How a method learns from scored images. One file each; `methods.METHODS` is the list of them.

    Attributes:
        name: as in `FinetuneConfig.method`.
        needs_old: whether the loss asks what the model that drew the images predicts.
        needs_reference: whether the loss asks what the untrained model predicts.
    """

    name: str
    needs_old: bool
    needs_reference: bool

    def parts(self, gained: Tensor, config: FinetuneConfig) -> list[Part]:
        """Choose what a round learns from, by advantages (P, K) of K images of P prompts; NaN: leave out."""

    def loss(
        self, config: FinetuneConfig, value: Tensor, output: Tensor, target: Tensor,
        old: Tensor | None, reference: Tensor | None,
    ) -> Tensor:
        """Return the sum of the losses of B images (see `methods.part_loss`); `value` (B,) is what each counts."""


def in_parts(values: Tensor, counts: Tensor, size: int) -> list[Part]:
    """Return the images (P, K) that count, in parts of at most `size` of one prompt.

    >>> import torch
    >>> in_parts(torch.tensor([[0.5, 2.0]]), torch.tensor([[True, True]]), size=1)
    [Part(group=0, rows=(0,), value=(0.5,)), Part(group=0, rows=(1,), value=(2.0,))]
    """
    found = []
    for group in range(len(values)):
        rows = counts[group].nonzero().flatten().tolist()
        for i in range(0, len(rows), size):
            some = rows[i : i + size]
            found.append(Part(group, tuple(some), tuple(values[group, some].tolist())))
    return found
