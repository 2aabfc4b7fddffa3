"""Rounds that follow the target's own gradient through the image, in place of learning from scored samples."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object

from ..drawing import generator, round_prompts, seed_of
from ..rounds import Rounds

Place = tuple[int, int]
"""Prompt and image of a round."""


class GradientRounds(Rounds):
    """Takes rounds by DRTune (Wu et al. 2024, arXiv:2405.00760), for targets that have a gradient.

    A round draws as many images as with the other methods, each optimiser step its own share: images are drawn with
    a graph through `timesteps` steps of the denoiser, spread over the trajectory, and the loss of an image is

        -target(image) + reference_weight * mean |output - untrained output|^2

    over those steps. See `Rounds` for the rest.
    """

    def take(self, prompts: Sequence[str], number: int) -> dict[str, Any]:
        """Take a round and return what is to be told of it."""
        started = time.monotonic()
        config = self.config
        texts = round_prompts(prompts, config.prompts_per_round, number, config.seed)
        places = [(g, k) for g in range(len(texts)) for k in range(config.images_per_prompt)]
        order = torch.randperm(len(places), generator=generator(seed_of(config.seed, "order", number)))
        losses, norms, scores = [], [], []
        with self.scorers_near():
            for update, share in enumerate(order.tensor_split(config.updates)):
                some = [places[i] for i in share.tolist()]
                if not some:
                    continue
                loss, found = self._backward(some, texts, number, update)
                loss += self.hold(number, update)
                losses.append(float(self.accelerator.reduce(loss, "sum")))
                norms.append(self._update())
                self._check(number, losses[-1], norms[-1])
                scores += [value for of in gather_object([found]) for value in of]
        mean = sum(losses) / len(losses)
        self.first_loss = mean if self.first_loss is None else self.first_loss
        self.average()
        known = [value for value in scores if math.isfinite(value)]
        return {
            "round": number + 1, "duration": time.monotonic() - started, "loss": mean,
            "grad_norm": sum(norms) / len(norms), "score": sum(known) / len(known) if known else math.nan,
            "unread": len(scores) - len(known), "images": len(scores), "trained_on": len(known),
        }  # fmt: skip

    def _backward(
        self, places: Sequence[Place], texts: Sequence[str], number: int, update: int
    ) -> tuple[torch.Tensor, list[float]]:
        """Draw and score this process's images of an optimiser step; their share of its loss, and their scores."""
        config, learner = self.config, self.learner
        count = len(learner.levels(texts[0], config.num_inference_steps))
        shifts = [seed_of(config.seed, "level", number, update, k) / 2**31 for k in range(config.timesteps)]
        trained = {min(count - 1, int((k + s) * count / config.timesteps)) for k, s in enumerate(shifts)}
        mine = [place for place in places if self.owns(place[0])]
        loss, found = torch.zeros((), device=learner.device), []
        for first in range(0, len(mine), config.per_denoiser_call):
            some = mine[first : first + config.per_denoiser_call]
            prompts = [texts[g] for g, _ in some]
            seeds = [seed_of(config.seed, "sample", number, *place) for place in some]
            with self.autocast():
                images, distance = learner.draw(
                    prompts, seeds, trained, config.num_inference_steps, config.reference_weight > 0
                )
            totals = self.panel.target(images, prompts).total
            part = -totals[totals.isfinite()].sum().to(loss.device)
            if config.reference_weight > 0:
                part = part + config.reference_weight * len(some) * distance
            part = part / len(places)
            if part.requires_grad:
                scaled: Any = self.scaler.scale(part)
                scaled.backward()
            loss += part.detach()
            found += totals.tolist()
        return loss, found
