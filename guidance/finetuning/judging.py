"""Sampling and judging the held-out prompts: the target, other judges, CLIP, and how different the images are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...scorers import Scorer, Target
from ..choosing import ImageEncoder, mean_distance
from .base import Learner
from .config import FinetuneConfig
from .panel import DIVERSITY, FAITHFULNESS, TARGET, Alarm, Evaluation


@dataclass(frozen=True)
class Panel:
    """Who judges held-out images beside the target.

    Attributes:
        target: what is trained on.
        judges: others, which training never asks, by name; higher is better.
        faithfulness: scorer of images against their prompts; its image embeddings tell how different images are.
    """

    target: Target
    judges: Mapping[str, Target] = field(default_factory=dict)
    faithfulness: Scorer | None = None

    def look(
        self, images: Sequence[Image.Image], prompts: Sequence[str], whole: Sequence[bool]
    ) -> dict[str, torch.Tensor]:
        """Return what each says of B images, (B,), NaN of those not `whole`; and perhaps "features" (B, D)."""
        found = {TARGET: self.target(images, prompts).total.float().cpu()}
        for name, judge in self.judges.items():
            found[name] = judge(images, prompts).total.float().cpu()
        if self.faithfulness is not None:
            found[FAITHFULNESS] = self.faithfulness(images, prompts).values.float().cpu()
        found = {name: of.where(torch.tensor(list(whole)), torch.nan) for name, of in found.items()}
        encoder: object = self.faithfulness
        if isinstance(encoder, ImageEncoder):
            found["features"] = encoder.encode_images(images).float().cpu()
        return found

    def scorers(self) -> list[Scorer]:
        """Every scorer of the panel."""
        targets = (self.target, *self.judges.values())
        own = [] if self.faithfulness is None else [self.faithfulness]
        return [*(term.scorer for target in targets for term in target.terms), *own]

    def alarm(self, config: FinetuneConfig, start: Evaluation) -> Alarm:
        """The alarm, with tolerances in each member's own unit."""
        tolerances = {name: config.judge_tolerance * (t.high - t.low) for name, t in self.judges.items()}
        shares = {FAITHFULNESS: config.faithfulness_tolerance, DIVERSITY: config.diversity_tolerance}
        tolerances |= {n: share * abs(start.mean(n)) for n, share in shares.items() if n in start.values}
        return Alarm(tolerances, config.patience)


def judge(
    learner: Learner,
    panel: Panel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    config: FinetuneConfig,
    mine: Sequence[int],
    progress: Callable[[int], None],
) -> tuple[dict[int, dict[str, float]], dict[int, list[Image.Image]], int]:
    """Sample and judge some of the held-out prompts (`mine`, their places), each with the same seeds.

    Returns:
        per prompt the mean of each member's values, the images, and how many images had no target score.
    """
    values: dict[int, dict[str, float]] = {}
    shown: dict[int, list[Image.Image]] = {}
    unread = 0
    for place in mine:
        images: list[Image.Image] = []
        whole: list[bool] = []
        for first in range(0, len(seeds), config.batch_size):
            some = seeds[first : first + config.batch_size]
            made, latents = learner.sample([prompts[place]] * len(some), some)
            images += made
            whole += [bool(row.isfinite().all()) for row in latents]
        looked = panel.look(images, [prompts[place]] * len(images), whole)
        features = looked.pop("features", None)
        unread += int((~looked[TARGET].isfinite()).sum())
        values[place] = {name: _mean(of) for name, of in looked.items()}
        distance = None if features is None else mean_distance(features)
        if distance is not None:
            values[place][DIVERSITY] = distance
        shown[place] = images
        progress(len(images))
    return values, shown, unread


def gathered(
    parts: Sequence[Mapping[int, Mapping[str, float]]], count: int, round_: int, seconds: float, unread: int
) -> Evaluation:
    """Make an evaluation of what the processes found, prompts in order."""
    rows: dict[int, Mapping[str, float]] = {place: of for part in parts for place, of in part.items()}
    names = list(rows[0])
    values: dict[str, Any] = {n: np.array([rows[i][n] for i in range(count)], dtype=float) for n in names}
    return Evaluation(round_, seconds, values, unread)


def _mean(values: torch.Tensor) -> float:
    read = values[values.isfinite()]
    return float(read.mean()) if len(read) else float("nan")
