"""Which candidates are returned: the best, or several that are good and different."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from ..scorers import ImageInput
from .types import Candidate


@runtime_checkable
class ImageEncoder(Protocol):
    """What images are told apart by, such as the CLIP scorer."""

    def encode_images(self, images: ImageInput) -> torch.Tensor:
        """Return unit vectors (B, D)."""
        ...


def choose(candidates: Sequence[Candidate], keep: int = 1) -> list[Candidate]:
    """Return the best `keep` valid candidates that are not held back, best first; of equals, the one made first.

    >>> from PIL import Image
    >>> image = Image.new("RGB", (1, 1))
    >>> made = [Candidate(image, "a", seed, score=score) for seed, score in enumerate([0.1, 0.7, 0.7])]
    >>> [c.seed for c in choose(made, keep=2)]
    [1, 2]
    """
    return sorted((c for c in candidates if c.valid and c.held_back is None), key=lambda c: c.rank)[:keep]


def ties(candidates: Sequence[Candidate], chosen: Sequence[Candidate]) -> list[Candidate]:
    """Return all candidates with the very score of the last one chosen, if some of them were left out.

    >>> from PIL import Image
    >>> image = Image.new("RGB", (1, 1))
    >>> made = [Candidate(image, "a", seed, score=0.5) for seed in range(3)]
    >>> [c.seed for c in ties(made, made[:1])]
    [0, 1, 2]
    """
    if not chosen or not math.isfinite(chosen[-1].score):
        return []
    equal = [c for c in candidates if c.valid and c.held_back is None and c.score == chosen[-1].score]
    return equal if len(equal) > sum(c in chosen for c in equal) else []


def keep_different(scores: Sequence[float], features: torch.Tensor, keep: int, weight: float = 1.0) -> list[int]:
    """Return `keep` rows that are good and differ: greedily the one with the most of score + weight x distance.

    Maximal marginal relevance (Carbonell & Goldstein 1998). The score counts in standard deviations of all scores;
    the distance, 1 - cosine to the nearest row taken so far, in means of all pairwise distances. The first is the
    best.

    Args:
        scores: (N,), higher is better.
        features: (N, D) unit vectors; a row that is not finite has no distance from any other.
        keep: at most N.
        weight: 0: the best alone.

    >>> scores, features = [0.9, 0.8, 0.5], torch.eye(2)[[0, 0, 1]]
    >>> keep_different(scores, features, 2, weight=2), keep_different(scores, features, 2, weight=0)
    ([0, 2], [0, 1])
    """
    values = torch.tensor(scores, dtype=torch.float64)
    apart = distances(features)
    scale = apart.sum() / max(1, len(apart) * (len(apart) - 1))
    gain = (values - values.mean()) / values.std(correction=0).clamp_min(1e-12)
    taken = [int(values.argmax())]
    while len(taken) < min(keep, len(values)):
        nearest = apart[:, taken].amin(1) / scale.clamp_min(1e-12)
        total = gain + weight * nearest
        total[taken] = -math.inf
        taken.append(int(total.argmax()))
    return taken


def distances(features: torch.Tensor) -> torch.Tensor:
    """Return the pairwise distances 1 - cosine (N, N) of unit vectors (N, D), float64; 0 where not finite."""
    rows = torch.nan_to_num(features.detach().double().cpu(), nan=0.0)
    apart: torch.Tensor = (1 - rows @ rows.T).clamp_min(0)
    blind = rows.square().sum(1) == 0
    apart[blind] = 0
    apart[:, blind] = 0
    apart.fill_diagonal_(0)
    return apart


def mean_distance(features: torch.Tensor) -> float | None:
    """Return the mean of all pairwise distances of unit vectors (N, D); None of fewer than two.

    >>> mean_distance(torch.eye(3))
    1.0
    """
    count = len(features)
    return float(distances(features).sum()) / (count * (count - 1)) if count > 1 else None
