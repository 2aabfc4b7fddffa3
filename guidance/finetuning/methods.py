"""The methods: which images of a round count how much, and the loss of a batch of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._errors import InputError
from .advantages import best_and_worst, exponential_weights, group_advantages, optimality, top_weights
from .config import FinetuneConfig
from .losses import denoising_error, dpo_loss, nft_loss, weighted_loss


@dataclass(frozen=True)
class Part:
    """Images of one prompt that are trained on together.

    Attributes:
        group: the prompt's place in the round.
        rows: the images' places in the group; for "dpo" better and worse in turn.
        value: (len(rows),) what each counts: its weight, or how good it is.
    """

    group: int
    rows: tuple[int, ...]
    value: tuple[float, ...]


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

    >>> scores = torch.tensor([[0.1, 0.9, float("nan"), 0.2]])
    >>> parts_of(scores, FinetuneConfig(method="rwr", top=0.3))
    [Part(group=0, rows=(1,), value=(3.0,))]
    >>> [part.rows for part in parts_of(scores, FinetuneConfig(method="dpo", pairs=1))]
    [(1, 0)]
    """
    gained = group_advantages(scores, config.advantage)
    size = config.per_denoiser_call
    if config.method == "dpo":
        by_group: dict[int, list[int]] = {}
        for group, better, worse in best_and_worst(gained, config.pairs):
            by_group.setdefault(group, []).extend((better, worse))
        size = max(2, size - size % 2)
        return [
            Part(group, tuple(rows[i : i + size]), (1.0,) * len(rows[i : i + size]))
            for group, rows in by_group.items()
            for i in range(0, len(rows), size)
        ]
    if config.method == "nft":
        values = optimality(gained)
        counts = values.isfinite() & (gained != 0)
    elif config.method == "rwr":
        weighed = config.top is None
        values = exponential_weights(gained, config.temperature) if weighed else top_weights(gained, config.top or 1)
        counts = values > 0
    else:
        raise InputError(f"no parts for method {config.method!r}")
    counts &= differing(scores)[:, None]
    found = []
    for group in range(len(scores)):
        rows = counts[group].nonzero().flatten().tolist()
        for i in range(0, len(rows), size):
            some = rows[i : i + size]
            found.append(Part(group, tuple(some), tuple(values[group, some].tolist())))
    return found


def needs_old(config: FinetuneConfig) -> bool:
    """Whether the loss asks what the model that drew the images predicts."""
    return config.method == "nft"


def needs_reference(config: FinetuneConfig) -> bool:
    """Whether the loss asks what the untrained model predicts."""
    return config.method == "dpo" or config.reference_weight > 0


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

    >>> part = Part(0, (0, 1), (1.0, 0.5))
    >>> part_loss(FinetuneConfig(method="rwr"), part, torch.zeros(2, 1), torch.ones(2, 1), None, None)
    tensor(1.5000)
    """
    value = torch.tensor(part.value, device=output.device)
    if config.method == "rwr":
        loss = weighted_loss(output, target, value).sum()
    elif config.method == "nft":
        assert old is not None
        loss = nft_loss(output, old.to(output.device), target, value, config.mixture).sum()
    else:
        assert reference is not None
        error = denoising_error(output, target)
        anchor = denoising_error(reference.to(output.device), target)
        loss = 2 * dpo_loss(error[::2], error[1::2], anchor[::2], anchor[1::2], config.mixture).sum()
    if config.reference_weight > 0:
        assert reference is not None
        loss = loss + config.reference_weight * denoising_error(output, reference.to(output.device)).sum()
    return loss
