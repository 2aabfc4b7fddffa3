"""The arguments of a pipeline's call: which it takes, which are texts or pictures, and what it must be given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from .._errors import InputError, ModelError, unknown_name

PICTURES = ("image", "mask_image", "control_image", "control_mask", "ip_adapter_image")
"""Arguments that are pictures, by diffusers' naming: one for all prompts of a call is given once for each image."""
TEXT_ARGUMENTS = ("prompt_", "negative_prompt")


def call_parameters(base_class: type[DiffusionPipeline]) -> dict[str, inspect.Parameter]:
    """Return the arguments that a pipeline class takes in its call, by name.

    >>> from diffusers import FluxPipeline
    >>> "true_cfg_scale" in call_parameters(FluxPipeline)
    True
    """
    parameters = inspect.signature(base_class.__call__).parameters
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in parameters.items() if name != "self" and p.kind not in kinds}


def check_text_to_image(base_class: type[DiffusionPipeline]) -> None:
    """Check that a pipeline class makes images from a prompt, a generator and at most pictures to work on.

    Raises:
        ModelError: it does not.

    >>> from diffusers import StableDiffusionXLPipeline
    >>> check_text_to_image(StableDiffusionXLPipeline)
    """
    parameters = call_parameters(base_class)
    missing = [name for name in ("prompt", "generator") if name not in parameters]
    if not any(name.endswith("num_inference_steps") for name in parameters):  # one for each stage in some
        missing.append("num_inference_steps")
    needed = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n != "prompt"]
    needed = [n for n in needed if n not in PICTURES]
    moving = [n for n in parameters if any(part in n for part in ("video", "frame", "audio"))]
    if missing:
        why = f"its call lacks {missing}"
    elif moving:
        why = f"its call is about video or sound, by {sorted(moving)}"
    elif needed:
        why = f"its call works on {sorted(set(needed))}"
    elif not {"height", "num_images_per_prompt"} & parameters.keys():
        why = "its call has neither height nor num_images_per_prompt, as those that make images have"
    else:
        return
    raise ModelError(f"{base_class.__name__} is not a text-to-image pipeline: {why}")


def needed_pictures(base_class: type[DiffusionPipeline]) -> list[str]:
    """Return the pictures that a pipeline's call cannot do without: to draw over, to fill in, to follow.

    >>> from diffusers import FluxPipeline, StableDiffusionInpaintPipeline
    >>> needed_pictures(FluxPipeline), needed_pictures(StableDiffusionInpaintPipeline)
    ([], ['image', 'mask_image'])
    """
    parameters = call_parameters(base_class)
    needed = [n for n in ("image", "mask_image") if n in parameters and not _may_be_none(parameters[n])]
    return needed + [n for n in ("control_image", "control_mask") if n in parameters]


def check_pictures(base_class: type[DiffusionPipeline], arguments: Mapping[str, Any]) -> None:
    """Check that a call has the pictures that its pipeline works on.

    Raises:
        InputError: it has not.

    >>> from diffusers import StableDiffusionImg2ImgPipeline
    >>> check_pictures(StableDiffusionImg2ImgPipeline, {})
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: StableDiffusionImg2ImgPipeline works on pictures: give image=
    """
    missing = [name for name in needed_pictures(base_class) if arguments.get(name) is None]
    if missing:
        raise InputError(f"{base_class.__name__} works on pictures: give {', '.join(f'{n}=' for n in missing)}")


def _may_be_none(parameter: inspect.Parameter) -> bool:
    """Whether an argument is one to leave out; images to work on have None as a default too, but not as a type."""
    return "None" in str(parameter.annotation)


def check_arguments(base_class: type[DiffusionPipeline], arguments: dict[str, Any]) -> None:
    """Check that every argument is one that the base pipeline takes.

    Raises:
        UnknownNameError: with the nearest names.

    >>> from diffusers import FluxPipeline
    >>> check_arguments(FluxPipeline, {"num_inference_step": 20})
    Traceback (most recent call last):
    ...
    cogguided._errors.UnknownNameError: unknown argument of FluxPipeline 'num_inference_step': did you ...
    """
    own = ("target", "guidance", "seed", "budget", "diversity")
    parameters = call_parameters(base_class)
    for name in arguments:
        if name not in parameters:
            raise unknown_name(f"argument of {base_class.__name__}", name, [*parameters, *own])


def spread_texts(arguments: dict[str, Any], prompt: str | list[str] | None) -> dict[str, Any]:
    """Return the arguments with each single text or picture repeated for several prompts, as some pipelines need it.

    >>> spread_texts({"negative_prompt": " ", "eta": 0.0}, ["a cat", "a dog"])
    {'negative_prompt': [' ', ' '], 'eta': 0.0}
    """
    if not isinstance(prompt, list) or len(prompt) < 2:
        return dict(arguments)

    def each(name: str, value: Any) -> Any:
        single = isinstance(value, str) if is_text_argument(name) else name in PICTURES[:4] and _is_picture(value)
        return [value] * len(prompt) if single else value

    return {name: each(name, value) for name, value in arguments.items()}


def _is_picture(value: Any) -> bool:
    """Whether an argument is one picture, and not several."""
    return isinstance(value, Image.Image) or (isinstance(value, torch.Tensor | np.ndarray) and value.ndim < 4)


def is_text_argument(name: str) -> bool:
    """Whether an argument is a text that goes with the prompt, by diffusers' naming.

    >>> [n for n in ("negative_prompt", "prompt_2", "prompt_embeds", "eta") if is_text_argument(n)]
    ['negative_prompt', 'prompt_2']
    """
    return name.startswith(TEXT_ARGUMENTS) and not name.endswith(("embeds", "mask"))
