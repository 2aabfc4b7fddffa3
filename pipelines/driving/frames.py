"""A video VAE that decodes a single frame without the frames that are not there.

Qwen-Image and its kin decode images by causal 3D convolutions, which pad the time before the first frame with zeros.
Of a kernel over three frames two thirds then multiply zeros: with one frame the last slice of the kernel, as a 2D
convolution, gives the same up to rounding (3e-6 of 1, measured on the embedded model), in about a third of the time.
Images that are kept as results are decoded as the pipeline does it; what is looked at on the way takes this path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch.nn import functional


@contextmanager
def single_frames(pipe: DiffusionPipeline) -> Iterator[None]:
    """Let the causal 3D convolutions of a pipeline's VAE take single frames as 2D ones, while inside."""
    vae = pipe.components.get("vae")
    convs = [m for m in vae.modules() if _is_causal(m)] if isinstance(vae, torch.nn.Module) else []
    for conv in convs:
        vars(conv)["forward"] = partial(_forward, conv, conv.forward)
    try:
        yield
    finally:
        for conv in convs:
            del vars(conv)["forward"]


def _is_causal(module: torch.nn.Module) -> bool:
    """Whether a module is diffusers' causal convolution: all of the padding in time lies before the first frame."""
    padding = getattr(module, "_padding", None)
    return (
        isinstance(module, torch.nn.Conv3d)
        and isinstance(padding, tuple)
        and len(padding) == 6
        and padding[4:] == (module.kernel_size[0] - 1, 0)
        and module.stride[0] == module.dilation[0] == 1
    )


def _forward(
    conv: Any, original: Callable[..., torch.Tensor], x: torch.Tensor, *cache: Any, **more: Any
) -> torch.Tensor:
    if x.shape[2] != 1 or any(value is not None for value in (*cache, *more.values())):
        return original(x, *cache, **more)
    left, right, top, bottom, *_ = conv._padding
    frame = functional.pad(x[:, :, 0], (left, right, top, bottom))
    kernel = conv.weight[:, :, -1]
    out = functional.conv2d(frame, kernel, conv.bias, conv.stride[1:], 0, conv.dilation[1:], conv.groups)
    return out[:, :, None]
