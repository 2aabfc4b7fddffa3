"""Tiny text-to-image pipelines by class name: how each is built, and what makes a call of it small.

>>> pipe = build("FluxPipeline")
>>> image = pipe(prompt="a cat", **FAMILIES["FluxPipeline"].call)[0][0]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DiffusionPipeline
from tiny_diffusion import SMALL
from tiny_listeners import wake
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

LEFT_OUT = object()
"""In place of an argument that most classes take."""


@dataclass(frozen=True)
class Family:
    """A pipeline class at tiny size.

    Attributes:
        make: builds it, weights from torch's global state.
        call: arguments that make a call small.
        refused: abilities that it cannot have, and a part of the sentence which says so.
        skipped: abilities that are not tried, and why.
        quick: among the few that the default tests take through everything.
    """

    make: Callable[[], DiffusionPipeline]
    call: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    quick: bool = False
    skipped: dict[str, str] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {}


def family(
    name: str,
    call: dict[str, Any] | None = None,
    refused: dict[str, str] | None = None,
    quick: bool = False,
    skipped: dict[str, str] | None = None,
) -> Callable[[Any], Any]:
    """Register a builder under its class's name; what follows a space tells two builders of one class apart.

    `call` goes with what is small for most classes.
    """

    def register(make: Callable[[], DiffusionPipeline]) -> Callable[[], DiffusionPipeline]:
        assert name not in FAMILIES, name
        small = {key: value for key, value in {**SMALL, **(call or {})}.items() if value is not LEFT_OUT}
        FAMILIES[name] = Family(make, small, refused or {}, quick, skipped or {})
        return make

    return register


def framed(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same with a token before and after each text."""
    special = [("<bos>", 1), ("<eos>", 2)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<bos> $A <eos>", special_tokens=special)
    return tokenizer


def build(name: str, seed: int = 0) -> DiffusionPipeline:
    """The pipeline of a class with random weights from `seed`, on the CPU, without progress bars."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = FAMILIES[name].make()
        assert type(pipe).__name__ == name.split()[0]
        for part, module in pipe.components.items():
            if isinstance(module, torch.nn.Module):
                module.eval()
                if part.removeprefix("prior_") in ("transformer", "unet", "prior", "decoder"):
                    wake(module)
                    for key, parameter in module.named_parameters():
                        if key.endswith("gate") and not parameter.any():
                            torch.nn.init.normal_(parameter)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def like(loaded: DiffusionPipeline, built: DiffusionPipeline) -> None:
    """Give a loaded pipeline the plain settings that a builder made for its tiny tokenizer, which no folder holds."""
    plain = (bool, int, float, str, list, tuple)
    for name, value in vars(built).items():
        if isinstance(value, plain) and not name.startswith("_") and vars(loaded).get(name) != value:
            setattr(loaded, name, value)
