"""Images that are black for a reason: flagged by the base's safety checker, or made of numbers that are not finite.

Both come out of a pipeline as ordinary black pictures. The reason is kept in the picture's own `info`, and so is
whatever else the base's output says of each picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from ...guidance.types import REJECTED, SAID

NOT_FINITE = "the generator gave pixels that are not finite (NaN or inf): black in the image"


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
    """Put into each picture's `info` what the base's output says of it, and why it cannot be looked at, if so.

    >>> from PIL import Image
    >>> pictures = [Image.new("RGB", (1, 1)), Image.new("RGB", (1, 1))]
    >>> mark_rejected(pictures, {"images": pictures, "nsfw_content_detected": [False, True]}, [True, True])
    >>> pictures[0].info
    {'cogguided_base_output': {'nsfw_content_detected': False}}
    >>> list(pictures[1].info)
    ['cogguided_base_output', 'cogguided_rejected']
    """
    for place, image in enumerate(images):
        said = said_of(output, place, len(images))
        if said:
            image.info[SAID] = said
        flags = [name for name, value in said.items() if name.startswith("nsfw") and value is not None and value]
        if flags:
            image.info[REJECTED] = f"flagged by the pipeline's safety checker ({flags[0]}): black in the image"
        elif len(finite) == len(images) and not finite[place]:
            image.info[REJECTED] = NOT_FINITE


def said_of(output: Any, place: int, count: int) -> dict[str, Any]:
    """Return what a base pipeline's output says of one of its `count` images, or of all of them, beside the images.

    >>> said_of({"images": "ab", "nsfw_detected": [True, False], "applied_safety_concept": "none"}, 1, 2)
    {'nsfw_detected': False, 'applied_safety_concept': 'none'}
    """
    if not isinstance(output, Mapping):
        return {}
    found = {}
    for name, value in list(output.items())[1:]:  # the first are the images
        each = isinstance(value, Sequence | torch.Tensor | np.ndarray) and not isinstance(value, str)
        found[name] = value[place] if each and len(value) == count else value
    return found
