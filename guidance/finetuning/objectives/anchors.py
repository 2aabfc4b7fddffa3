"""What should stay as it is: prompts on which the generator in training is held to the untrained one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..base import Learner
from ..config import FinetuneConfig
from ..drawing import generator, seed_of

IMAGES = 2
"""Images of each anchor prompt."""


class Anchors:
    """Keeps images of some prompts in place.

    Prior preservation (Ruiz et al. 2022, arXiv:2208.12242, eq. 2), with the untrained model's prediction as the
    target in place of the noise: latents of the untrained model's own images are noised, and the loss is the squared
    distance of the two models' predictions.

    Args:
        learner: the generator with its adapter.
        prompts: whose images should stay; none: no loss.
        config: settings.
    """

    def __init__(self, learner: Learner, prompts: Sequence[str], config: FinetuneConfig) -> None:
        self.learner, self.config = learner, config
        self.places = [(text, k) for text in prompts for k in range(IMAGES)] if config.anchor_weight > 0 else []
        self._latents: torch.Tensor | None = None

    def backward(
        self, number: int, update: int, places: slice, autocast: torch.autocast, scaler: torch.amp.GradScaler
    ) -> float:
        """Add this process's share of the loss's gradient for an optimiser step; return its share of the loss."""
        config, total = self.config, 0.0
        if not self.places:
            return total
        seed = seed_of(config.seed, "anchors", number, update)
        chosen = torch.randint(len(self.places), (config.anchors_per_update,), generator=generator(seed)).tolist()
        levels = self.learner.levels(self.places[0][0], config.num_inference_steps)
        step = seed_of(config.seed, "anchor level", number, update) % len(levels)
        mine = range(len(chosen))[places]
        for first in range(0, len(mine), config.per_denoiser_call):
            some = mine[first : first + config.per_denoiser_call]
            clean = self._clean()[[chosen[k] for k in some]]
            seeds = [seed_of(config.seed, "anchor noise", number, update, k) for k in some]
            noise = torch.stack([torch.randn(clean.shape[1:], generator=generator(seed)) for seed in seeds])
            asked = ([self.places[chosen[k]][0] for k in some], clean, noise, step, config.num_inference_steps)
            with torch.no_grad(), self.learner.reference(), autocast:
                untrained, _ = self.learner.predict(*asked)
            with autocast:
                output, _ = self.learner.predict(*asked)
            distance = (output.float() - untrained.float()).pow(2).flatten(1).mean(1).sum()
            loss = config.anchor_weight * distance / config.anchors_per_update
            scaled: torch.Tensor = scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _clean(self) -> torch.Tensor:
        """Latents (N, ...) of the untrained model's images, drawn when first asked for."""
        if self._latents is None:
            config, parts = self.config, []
            with torch.no_grad(), self.learner.reference():
                for first in range(0, len(self.places), config.batch_size):
                    some = self.places[first : first + config.batch_size]
                    seeds = [seed_of(config.seed, "anchor", text, k) for text, k in some]
                    texts = [text for text, _ in some]
                    parts.append(self.learner.sample(texts, seeds, config.num_inference_steps)[1].cpu())
            self._latents = torch.cat(parts)
        return self._latents
