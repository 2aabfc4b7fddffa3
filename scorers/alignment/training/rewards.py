"""What an answer is worth, for training by reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...dimensions import Dimension
from ...mllm.parsing import parse_answer

UNREADABLE = -0.5
"""Reward of an answer without a number that can be read."""


def closeness(text: str, score: float, dim: Dimension) -> float:
    """Reward of an answer: 1 - |prediction - truth| / range, within [-1, 1]; -0.5 where none can be read.

    The range is the dimension's own, as in CogIP-Bench (arXiv 2511.22805) but for its 10 throughout.

    Args:
        text: the answer in words.
        score: what people felt.
        dim: its dimension.

    >>> from ...dimensions import dimension
    >>> closeness("high 0.700", 0.5, dimension("memorability"))
    0.8
    >>> closeness("I cannot say.", 0.5, dimension("memorability"))
    -0.5
    """
    try:
        value, _ = parse_answer(text, dim)
    except ValueError:
        return UNREADABLE
    reward = 1 - abs(value - score) / (dim.high - dim.low)
    return round(min(max(reward, -1.0), 1.0), 6)


class ClosenessReward:
    """`closeness` as a TRL reward function, over columns "dimension" and "score" of the data set.

    >>> from ...dimensions import DIMENSIONS
    >>> reward = ClosenessReward(DIMENSIONS)
    >>> said = [[{"role": "assistant", "content": text}] for text in ("negative -3.000", "?")]
    >>> reward(completions=said, dimension=["emotional_valence"] * 2, score=[3.0, 3.0])
    [0.0, -0.5]
    """

    __name__ = "closeness"  # TRL reports rewards under this name

    def __init__(self, dims: Mapping[str, Dimension]) -> None:
        self.dims = dict(dims)

    def __call__(
        self,
        completions: Sequence[Sequence[Mapping[str, Any]]],
        dimension: Sequence[str],
        score: Sequence[float],
        **_: Any,
    ) -> list[float]:
        """Reward of each completion, a chat of one message; TRL passes more than is looked at."""
        said = [_text(completion[-1]["content"]) for completion in completions]
        rows = zip(said, dimension, score, strict=True)
        return [closeness(text, truth, self.dims[name]) for text, name, truth in rows]


def _text(content: Any) -> str:
    """Words of a message's content, which may come in parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
