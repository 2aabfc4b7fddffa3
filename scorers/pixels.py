"""How many pixels of an image a model is shown, for processors that count them (Qwen2-VL and its kin)."""

from __future__ import annotations

from typing import Any

from transformers import ProcessorMixin

from .._errors import InputError, ModelError


def set_pixels(processor: ProcessorMixin, fewest: int, most: int) -> None:
    """Let the processor scale every image to between `fewest` and `most` pixels, keeping its aspect ratio.

    Models can be compared only at one resolution: Qwen2.5-VL's own upper limit is 16,384 tokens of 28 x 28
    pixels, that of an adapter trained by the paper's recipe 1,280.

    Raises:
        InputError: not 0 < fewest <= most.
        ModelError: the image processor does not count pixels.

    Executed examples are in ``tests/scorers/test_registry.py``.
    """
    if not 0 < fewest <= most:
        raise InputError(f"pixels: expected 0 < fewest <= most, got {fewest} and {most}")
    images: Any = getattr(processor, "image_processor", None)
    if not counts_pixels(images):
        raise no_limits(images)
    images.size = {"shortest_edge": fewest, "longest_edge": most}


def counts_pixels(images: Any) -> bool:
    """Whether an image processor scales by number of pixels.

    >>> counts_pixels(None)
    False
    """
    return "min_pixels" in getattr(getattr(images, "valid_kwargs", None), "__annotations__", {})


def no_limits(images: Any) -> ModelError:
    """Return the error for a processor that does not.

    >>> str(no_limits(object()))
    'object has no limits in pixels: it scales images in a way of its own; leave pixels (--pixels) out'
    """
    return ModelError(
        f"{type(images).__name__} has no limits in pixels: it scales images in a way of its own; "
        "leave pixels (--pixels) out"
    )
