"""From scores of several images of each prompt to what they count in training; unread scores (NaN) count nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def group_advantages(scores: Tensor, scale: str = "all") -> Tensor:
    """Return how much better each image is than its prompt's mean, in standard deviations.

    Args:
        scores: (P, K) of K images of each of P prompts; NaN where not read.
        scale: standard deviation "within" each prompt, or over "all" prompts (of the differences from their means),
            which does not blow up the noise of prompts whose images are all alike.

    Returns:
        (P, K), NaN where not read, 0 for a prompt with one image or without differences.

    >>> group_advantages(torch.tensor([[1.0, 3.0], [5.0, float("nan")]])).tolist()
    [[-1.0, 1.0], [0.0, nan]]
    """
    centred = scores - scores.nanmean(1, keepdim=True)
    read = centred.isfinite()
    counted = read & (read.sum(1, keepdim=True) > 1)
    squares = torch.where(counted, centred, 0.0).pow(2)
    if scale == "within":
        spread = (squares.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp_min(1)).sqrt()
    else:
        spread = (squares.sum() / counted.sum().clamp_min(1)).sqrt()
    return torch.where(read, torch.where(spread > 1e-8, centred / spread.clamp_min(1e-8), 0.0), torch.nan)


def optimality(advantages: Tensor, clip: float = 2.0) -> Tensor:
    """Return the probability that an image is a good one: 0.5 + A / (2 clip), within 0 and 1; NaN stays.

    Zheng et al. 2025 (arXiv:2509.16117), section 3.3, with `clip` standard deviations as their normaliser.

    >>> optimality(torch.tensor([-5.0, 0.0, 1.0])).tolist()
    [0.0, 0.5, 0.75]
    """
    return (0.5 + advantages / (2 * clip)).clamp(0, 1)


def exponential_weights(advantages: Tensor, temperature: float = 1.0) -> Tensor:
    """Return exp(A / temperature), scaled so that the mean over the images that were read is 1; NaN becomes 0.

    Peters & Schaal 2007 ("Reinforcement learning by reward-weighted regression"); Peng et al. 2019, arXiv:1910.00177.

    >>> exponential_weights(torch.tensor([[0.0, float("nan"), 0.0]])).tolist()
    [[1.0, 0.0, 1.0]]
    """
    read = advantages.isfinite()
    weights = torch.where(read, (advantages / temperature).clamp(max=20.0).exp(), 0.0)
    return weights / (weights.sum() / read.sum().clamp_min(1)).clamp_min(1e-8)


def top_weights(advantages: Tensor, share: float) -> Tensor:
    """Return weights of the best `share` of each prompt's images, mean 1 over those that were read; the others get 0.

    >>> top_weights(torch.tensor([[0.5, -1.0, 2.0, -1.5]]), 0.25).tolist()
    [[0.0, 0.0, 4.0, 0.0]]
    """
    read = advantages.isfinite()
    order = torch.where(read, advantages, -torch.inf).argsort(dim=1, stable=True, descending=True)
    place = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
    kept = (read & (place < (share * read.sum(1, keepdim=True)).ceil().clamp_min(1))).float()
    return kept * read.sum() / kept.sum().clamp_min(1)


def best_and_worst(advantages: Tensor, pairs: int = 1) -> list[tuple[int, int, int]]:
    """Return (prompt, better, worse) for the best with the worst image of each prompt, then the next ones.

    A prompt whose images are all alike gives none.

    >>> best_and_worst(torch.tensor([[0.5, -1.0, 2.0, float("nan")], [0.0, 0.0, 0.0, 0.0]]))
    [(0, 2, 1)]
    """
    found = []
    for prompt, row in enumerate(advantages):
        order = [i for i in row.argsort(stable=True, descending=True).tolist() if bool(row[i].isfinite())]
        for k in range(min(pairs, len(order) // 2)):
            better, worse = order[k], order[-1 - k]
            if row[better] > row[worse]:
                found.append((prompt, better, worse))
    return found
