"""The methods by name, and what all of them have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .advantages import group_advantages
from .dpo import Preferences
from .losses import denoising_error
from .nft import NegativeAware
from .parts import Method, Part
from .rwr import RewardWeighted

if TYPE_CHECKING:
    from ..config import FinetuneConfig

METHODS: dict[str, Method] = {method.name: method for method in (RewardWeighted(), NegativeAware(), Preferences())}
"""Methods that learn from scores; a new one is a file beside those, and its name here."""


def differing(scores: Tensor) -> Tensor:
    """Which of P prompts have scores (P, K) that are not all the same, those not read left out.

    >>> differing(torch.tensor([[0.5, 0.5], [0.5, 0.6], [0.5, float("nan")]]))
    tensor([False,  True, False])
    """
    read = scores.isfinite()
    highest = scores.masked_fill(~read, -torch.inf).amax(dim=1)
    found: Tensor = highest > scores.masked_fill(~read, torch.inf).amin(dim=1)
    return found


def parts_of(scores: Tensor, config: FinetuneConfig) -> list[Part]:
    """Choose what a round learns from: images without a score, and those that count nothing, are left out.

    So is a prompt whose images all score alike: nothing of it is better than the rest.

    Args:
        scores: (P, K) target scores of K images of each of P prompts; NaN where not read.
        config: says how.

    >>> from ..config import FinetuneConfig
    >>> scores = torch.tensor([[0.1, 0.9, float("nan"), 0.2]])
    >>> parts_of(scores, FinetuneConfig(method="rwr", top=0.3))
    [Part(group=0, rows=(1,), value=(3.0,))]
    >>> [part.rows for part in parts_of(scores, FinetuneConfig(method="dpo", pairs=1))]
    [(1, 0)]
    """
    gained = group_advantages(scores, config.advantage).clone()
    gained[~differing(scores)] = torch.nan
    return METHODS[config.method].parts(gained, config)


def needs_old(config: FinetuneConfig) -> bool:
    """Whether the loss asks what the model that drew the images predicts."""
    return METHODS[config.method].needs_old


def needs_reference(config: FinetuneConfig) -> bool:
    """Whether the loss asks what the untrained model predicts."""
    return METHODS[config.method].needs_reference or config.reference_weight > 0


def part_loss(
    config: FinetuneConfig, part: Part, output: Tensor, target: Tensor, old: Tensor | None, reference: Tensor | None
) -> Tensor:
    """Return the sum of the losses of a part's images; of a pair it counts twice, once for each image.

    Args:
        config: the method.
        part: what the images count.
        output: (B, ...) predictions of the model in training.
        target: (B, ...) what the denoising loss asks for.
        old: (B, ...) predictions of the model that drew the images, if needed.
        reference: (B, ...) those of the untrained model, if needed.

    >>> from ..config import FinetuneConfig
    >>> part = Part(0, (0, 1), (1.0, 0.5))
    >>> part_loss(FinetuneConfig(method="rwr"), part, torch.zeros(2, 1), torch.ones(2, 1), None, None)
    tensor(1.5000)
    """
    value = torch.tensor(part.value, device=output.device)
    loss = METHODS[config.method].loss(config, value, output, target, old, reference)
    if config.reference_weight > 0:
        assert reference is not None
        loss = loss + config.reference_weight * denoising_error(output, reference.to(output.device)).sum()
    return loss
