"""Each prompt through the text encoder once: in a batch of one prompt, and in all the batches of a call."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline

Rows = tuple[tuple[Any, ...], ...]


@dataclass
class Encodings:
    """What `encode_prompt` gave for the different rows of a batch; kept for one call of the user's.

    Attributes:
        kept: outputs by arguments, the latest `limit` of them.
    """

    limit: int = 16
    kept: dict[Any, Any] = field(default_factory=dict)

    def put(self, key: Any, value: Any) -> None:
        """Keep an output, and forget the oldest beyond the limit."""
        self.kept[key] = value
        while len(self.kept) > self.limit:
            del self.kept[next(iter(self.kept))]


@contextmanager
def encoded_once(pipe: DiffusionPipeline, encodings: Encodings) -> Iterator[None]:
    """Let `pipe.encode_prompt` work on each different row of a batch once, and on the same call once, while inside.

    A pipeline without that method, and a call of it that holds anything but texts and plain values, are left alone.
    """
    original = getattr(pipe, "encode_prompt", None)
    if original is None:
        yield
        return

    @torch.no_grad()
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(original).bind(*args, **kwargs)
        texts = {k: v for k, v in bound.arguments.items() if isinstance(v, list)}
        count = len(next(iter(texts.values()))) if texts else 0
        rest = {k: v for k, v in bound.arguments.items() if k not in texts}
        plain = all(isinstance(v, str | int | float | bool | None | torch.device) for v in rest.values())
        whole = all(len(v) == count and all(isinstance(t, str) for t in v) for v in texts.values())
        if not plain or not whole:
            return original(*args, **kwargs)
        if count < 2:
            key: Any = ("alone", repr(texts), tuple((k, str(v)) for k, v in rest.items()))
            if key not in encodings.kept:
                encodings.put(key, original(*args, **kwargs))
            return _copy(encodings.kept[key])
        rows: Rows = tuple(zip(*texts.values(), strict=True))
        different = tuple(dict.fromkeys(rows))
        key = (different, tuple(texts), tuple((k, str(v)) for k, v in rest.items()))
        if key not in encodings.kept:
            if len(different) == count:
                encodings.put(key, original(*args, **kwargs))
            else:
                for place, name in enumerate(texts):
                    bound.arguments[name] = [row[place] for row in different]
                if bound.arguments.get("batch_size") == count:
                    bound.arguments["batch_size"] = len(different)
                encodings.put(key, original(*bound.args, **bound.kwargs))
        if rows == different:
            return _copy(encodings.kept[key])
        places = [different.index(row) for row in rows]
        try:
            return _take(encodings.kept[key], places, len(different))
        except _CannotTell:
            return original(*args, **kwargs)

    pipe.__dict__["encode_prompt"] = encode_prompt
    try:
        yield
    finally:
        del pipe.__dict__["encode_prompt"]


def _copy(encoded: Any) -> Any:
    """An encoder's output again, which its caller may write to."""
    if isinstance(encoded, tuple | list):
        return type(encoded)(_copy(part) for part in encoded)
    return encoded.clone() if isinstance(encoded, torch.Tensor) else encoded


class _CannotTell(Exception):
    """An output whose rows are not to be told from its other parts."""


def _take(encoded: Any, places: Sequence[int], count: int) -> Any:
    """Rows of an encoder's output: tensors (count, ...), lists of `count`, tuples of those, and None.

    A list of tensors (count, ...), as of hidden layers, is taken from each. What is not of the batch passes as it is:
    plain values, and positions (T, 3) or (T, 4), which are the same for every text.

    Raises:
        _CannotTell: neither, or both.

    >>> both = torch.arange(4.0).view(2, 2)
    >>> [t.tolist() for t in _take((both, [both + 10, both + 20, both + 30]), [1, 1, 0], 2)[1]][0]
    [[12.0, 13.0], [12.0, 13.0], [10.0, 11.0]]
    """
    if isinstance(encoded, tuple):
        return tuple(_take(part, places, count) for part in encoded)
    if isinstance(encoded, list):
        batched = [isinstance(part, torch.Tensor) and part.ndim > 0 and part.shape[0] == count for part in encoded]
        if len(encoded) == count and not any(batched):
            return [encoded[place] for place in places]
        if len(encoded) != count and all(batched):
            return [part[list(places)] for part in encoded]
        raise _CannotTell
    if isinstance(encoded, torch.Tensor):
        if encoded.ndim == 2 and encoded.shape[1] in (3, 4):
            return encoded.clone()
        axes = [size == count for size in encoded.shape]
        if axes[:1] != [True] or (encoded.ndim > 3 and axes[1]):  # as of hidden layers: (layers, count, T, D)
            raise _CannotTell
        return encoded[list(places)]
    return encoded
