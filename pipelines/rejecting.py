"""Images that are black for a reason: flagged by the base's safety checker, or made of numbers that are not finite.

Both come out of a pipeline as ordinary black pictures. The reason is kept in the picture's own `info`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ..guidance.base import REJECTED

NOT_FINITE = "the generator gave pixels that are not finite (NaN or inf): black in the image"
FLAGGED = "flagged by the pipeline's safety checker (nsfw_content_detected): black in the image"


@contextmanager
def finite_watched(pipe: DiffusionPipeline) -> Iterator[list[bool]]:
    """Note, for each image of the call inside, whether its pixels were finite before they were rounded to 8 bits."""
    processor: Any = getattr(pipe, "image_processor", None) or getattr(pipe, "video_processor", None)
    found: list[bool] = []
    if processor is None or not hasattr(processor, "postprocess"):
        yield found
        return
    original = processor.postprocess

    def postprocess(image: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(image, torch.Tensor):
            found[:] = image.detach().flatten(1).isfinite().all(dim=1).tolist()
        return original(image, *args, **kwargs)

    vars(processor)["postprocess"] = postprocess
    try:
        yield found
    finally:
        del vars(processor)["postprocess"]


def mark_rejected(images: list[Any], output: Any, finite: list[bool]) -> None:
    """Put into each picture's `info` why it cannot be looked at, if so.

    >>> from PIL import Image
    >>> from types import SimpleNamespace
    >>> pictures = [Image.new("RGB", (1, 1)), Image.new("RGB", (1, 1))]
    >>> mark_rejected(pictures, SimpleNamespace(nsfw_content_detected=[False, True]), [True, True])
    >>> pictures[0].info, list(pictures[1].info)
    ({}, ['cogguided_rejected'])
    """
    flags = getattr(output, "nsfw_content_detected", None) or [False] * len(images)
    for place, image in enumerate(images):
        if place < len(flags) and flags[place]:
            image.info[REJECTED] = FLAGGED
        elif len(finite) == len(images) and not finite[place]:
            image.info[REJECTED] = NOT_FINITE
