"""How a multimodal LLM's answer is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..._defaults import MAX_NEW_TOKENS as MAX_NEW_TOKENS
from ..._defaults import MIN_MASS as MIN_MASS
from ..._errors import InputError, unknown_name

T = TypeVar("T")
READOUTS = ("expected", "greedy", "levels", "yes_no", "pairwise")
NUMBERED = READOUTS[:3]
"""Those that give a value on the scale of a dimension."""

@dataclass(frozen=True)
class ReadOptions:
    """How an answer is read; scorers on one model with equal options can be asked in one pass.

    Args:
        readout: "expected", "greedy", "levels", "yes_no" or "pairwise"; of dimensions that cannot be read so, the way
            they are meant to be.
        batch_size: images a pass.
        min_mass: probability of valid answers below which a score is not valid; greedy ones have none.
        max_new_tokens: where a greedy answer that does not end is cut.
        progress: show a bar over the batches: True, False, or None for only on a terminal.

    >>> ReadOptions("greedy").batch_size
    16
    """

    readout: str = "expected"
    batch_size: int = 16
    min_mass: float = MIN_MASS
    max_new_tokens: int = MAX_NEW_TOKENS
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.readout not in READOUTS:
            raise unknown_name("readout", self.readout, READOUTS)
        if self.batch_size < 1 or self.max_new_tokens < 1 or not 0 <= self.min_mass <= 1:
            raise InputError(
                "expected batch_size >= 1, max_new_tokens >= 1 and min_mass in [0, 1], "
                f"got {self.batch_size}, {self.max_new_tokens} and {self.min_mass}"
            )


class Option(Generic[T]):
    """A field of a scorer's `options` as an attribute of the scorer itself.

    >>> class Reader:
    ...     options = ReadOptions()
    ...     min_mass = Option[float]()
    >>> reader = Reader()
    >>> reader.min_mass = 0.5
    >>> reader.options.min_mass
    0.5
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, scorer: Any, owner: type | None = None) -> T:
        value: T = getattr(ReadOptions if scorer is None else scorer.options, self.name)
        return value

    def __set__(self, scorer: Any, value: T) -> None:
        scorer.options = replace(scorer.options, **{self.name: value})
