"""A round of fine-tuning: sample, score, fit. All methods share it; what they differ in is in `methods`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ..._errors import TrainingError
from ..memory import free_memory
from .base import Learner
from .config import FinetuneConfig
from .drawing import generator, round_prompts, seed_of
from .judging import Panel
from .objectives.anchors import Anchors
from .objectives.methods import differing, needs_old, needs_reference, part_loss, parts_of
from .objectives.parts import Part

EXPLODED = 100.0
"""A step's loss over the first round's, from which on training is given up."""
Latents = Mapping[tuple[int, int], Tensor]
"""By (prompt, image) of a round."""
Item = tuple[Part, int, int]
"""Images to train on together, a step of the schedule, and its place among the levels drawn for them."""
Kept = Mapping[int, tuple[Tensor | None, Tensor | None]]
"""Predictions of the sampling and of the untrained model, by item."""


class Rounds:
    """Takes rounds, and holds what they change.

    Args:
        learner: the generator with its adapter.
        panel: its target scores what is sampled.
        config: settings.
        folder: of the run, for errors.
        anchors: prompts whose images should stay as they are.

    Attributes:
        sampling: the weights that images are drawn with, an average of those trained.
        step: optimiser steps taken.
        first_loss: mean loss of the first round.
    """

    def __init__(
        self,
        learner: Learner,
        panel: Panel,
        config: FinetuneConfig,
        folder: str = "",
        anchors: Sequence[str] = (),
    ) -> None:
        self.anchors = Anchors(learner, anchors, config)
        self.learner, self.panel, self.config, self.folder = learner, panel, config, folder
        tracker = None if config.report_to == "none" else config.report_to
        # its own mixed precision is one for all that a process ever trains
        self.accelerator = Accelerator(log_with=tracker, project_dir=folder)
        self.weights = list(learner.parameters.values())
        self.optimizer: Any = torch.optim.AdamW(
            self.weights, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.scaler = torch.amp.GradScaler(learner.device.type, enabled=config.precision == "float16")
        self.sampling = {n: p.detach().clone() for n, p in learner.parameters.items()}
        self.step = 0
        self.first_loss: float | None = None

    def take(self, prompts: Sequence[str], number: int) -> dict[str, Any]:
        """Take a round and return what is to be told of it."""
        started = time.monotonic()
        texts = round_prompts(prompts, self.config.prompts_per_round, number, self.config.seed)
        with self.using(self.sampling), torch.no_grad():
            latents, scores = self._sample(texts, number)
            parts = parts_of(scores, self.config)
            items = self._items(parts, texts, number)
            kept = self._predictions(items, texts, latents, number)
        loss, norm = self._fit(items, texts, latents, kept, number)
        self.average()
        return {
            "round": number + 1, "duration": time.monotonic() - started, "loss": loss, "grad_norm": norm,
            "score": float(scores.nanmean()), "unread": int((~scores.isfinite()).sum()), "images": scores.numel(),
            "trained_on": sum(len(part.rows) for part in parts), "alike": int((~differing(scores)).sum()),
        }  # fmt: skip

    def average(self) -> None:
        """Let the sampling weights follow those trained."""
        decay = self.config.ema
        for name, weight in self.learner.parameters.items():
            self.sampling[name].mul_(decay).add_(weight.detach(), alpha=1 - decay)

    # ------------------------------------------------------------------ sample and score

    def _sample(self, texts: Sequence[str], number: int) -> tuple[Latents, Tensor]:
        """Make and score this process's images; latents by (prompt, image), and all scores (P, K)."""
        config, learner = self.config, self.learner
        each = config.images_per_prompt
        places = [(g, k) for g in self.mine(len(texts)) for k in range(each)]
        latents: dict[tuple[int, int], Tensor] = {}
        images, found = [], []
        for first in range(0, len(places), config.batch_size):
            some = places[first : first + config.batch_size]
            seeds = [seed_of(config.seed, "sample", number, *place) for place in some]
            made, rows = learner.sample([texts[g] for g, _ in some], seeds, config.num_inference_steps)
            latents |= dict(zip(some, rows.cpu(), strict=True))
            images += made
        with self.scorers_near():
            for first in range(0, len(places), config.batch_size):
                batch = slice(first, first + config.batch_size)
                found += self.panel.target(images[batch], [texts[g] for g, _ in places[batch]]).total.tolist()
        scores = torch.full((len(texts), each), math.nan)
        broken = {place for place in places if not bool(latents[place].isfinite().all())}
        if places and len(broken) == len(places):
            raise TrainingError(self._advice(f"round {number + 1}: no image of it is made of finite numbers"))
        for place, value in zip(places, found, strict=True):
            if math.isfinite(value) and place not in broken:
                scores[place] = value
        for process, of in gather_object([(self.accelerator.process_index, scores)]):
            rows_of = list(range(process, len(texts), self.accelerator.num_processes))
            scores[rows_of] = of[rows_of]
        return latents, scores

    # ------------------------------------------------------------------ fit

    def _items(self, parts: Sequence[Part], texts: Sequence[str], number: int) -> list[Item]:
        config = self.config
        count = len(self.learner.levels(texts[0], config.num_inference_steps))
        items = []
        for part in parts:
            for slot in range(config.timesteps):
                # stratified, so that every round sees all of the trajectory
                shift = seed_of(config.seed, "level", number, part.group, slot) / 2**31
                step = min(count - 1, int((slot + shift) * count / config.timesteps))
                items.append((part, step, slot))
        return items

    def _predictions(self, items: Sequence[Item], texts: Sequence[str], latents: Latents, number: int) -> Kept:
        """What the sampling and the untrained model say of this process's items, where the loss asks for it."""
        kept: dict[int, tuple[Tensor | None, Tensor | None]] = {}
        for i, item in enumerate(items):
            if not self.owns(item[0].group):
                continue
            old, reference = None, None
            if needs_old(self.config):
                old = self._predict(item, texts, latents, number)[0].cpu()
            if needs_reference(self.config):
                with self.learner.reference():
                    reference = self._predict(item, texts, latents, number)[0].cpu()
            kept[i] = (old, reference)
        return kept

    def _predict(self, item: Item, texts: Sequence[str], latents: Latents, number: int) -> tuple[Tensor, Tensor]:
        part, step, slot = item
        clean = torch.stack([latents[part.group, k] for k in part.rows])
        # the two of a pair share their noise, others have noise of their own
        pairs = self.config.method == "dpo"
        sources = [part.rows[k - k % 2] if pairs else part.rows[k] for k in range(len(clean))]
        seeds = [seed_of(self.config.seed, "noise", number, part.group, source, slot) for source in sources]
        noise = torch.stack([torch.randn(clean.shape[1:], generator=generator(seed)) for seed in seeds])
        steps = self.config.num_inference_steps
        with self.autocast():
            return self.learner.predict([texts[part.group]] * len(clean), clean, noise, step, steps)

    def _fit(
        self, items: Sequence[Item], texts: Sequence[str], latents: Latents, kept: Kept, number: int
    ) -> tuple[float, float]:
        """Take the round's optimiser steps; return mean loss and gradient norm."""
        losses, norms = [], []
        for epoch in range(self.config.epochs):
            for update, some in enumerate(self._updates(items, number, epoch)):
                total = sum(len(items[i][0].rows) for i in some)
                loss = torch.zeros((), device=self.learner.device)
                for i in some:
                    if self.owns(items[i][0].group):
                        output, target = self._predict(items[i], texts, latents, number)
                        part = part_loss(self.config, items[i][0], output, target, *kept[i]) / total
                        scaled: Any = self.scaler.scale(part)
                        scaled.backward()
                        loss += part.detach()
                loss += self.hold(number, update)
                losses.append(float(self.accelerator.reduce(loss, "sum")))
                norms.append(self._update())
                self._check(number, losses[-1], norms[-1])
        mean = sum(losses) / len(losses) if losses else math.nan
        if self.first_loss is None and losses:
            self.first_loss = mean
        return mean, sum(norms) / len(norms) if norms else math.nan

    def _updates(self, items: Sequence[Item], number: int, epoch: int) -> list[list[int]]:
        """Share items out among optimiser steps, a prompt at one level whole: `micro_batch` changes nothing."""
        wholes = list(dict.fromkeys((part.group, slot) for part, _, slot in items))
        order = torch.randperm(len(wholes), generator=generator(seed_of(self.config.seed, "order", number, epoch)))
        shares = [{wholes[i] for i in share.tolist()} for share in order.tensor_split(self.config.updates)]
        found = [[i for i, (part, _, slot) in enumerate(items) if (part.group, slot) in share] for share in shares]
        return [some for some in found if some]

    def _update(self) -> float:
        """One optimiser step with the gradients of all processes; its norm before clipping."""
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            if self.accelerator.num_processes > 1:
                weight.grad = self.accelerator.reduce(weight.grad, "sum")
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, (self.step + 1) / (self.config.warmup + 1))
        if math.isfinite(norm) or self.scaler.is_enabled():  # the scaler skips what overflowed
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return norm

    def _check(self, number: int, loss: float, norm: float) -> None:
        """Give up on a loss or gradient that is no number, or explodes."""
        first = self.first_loss
        exploded = first is not None and abs(loss) > EXPLODED * max(abs(first), 1e-3)
        if math.isfinite(loss) and (math.isfinite(norm) or self.scaler.is_enabled()) and not exploded:
            return
        than = f"; the first round's loss was {first:.3g}" if exploded and first is not None else ""
        raise TrainingError(self._advice(f"round {number + 1}: loss {loss:.3g}, gradient norm {norm:.3g}{than}"))

    def _advice(self, what: str) -> str:
        lower = self.config.learning_rate / 10
        return (
            f"{what}. Finished rounds are kept{' in ' + self.folder if self.folder else ''}. Try: "
            f'learning_rate={lower:g}; precision="float32"; reference_weight=0.1'
        )

    # ------------------------------------------------------------------ small parts

    def hold(self, number: int, update: int) -> float:
        """Add the gradient of the loss on the anchor prompts; this process's share of it."""
        mine = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        return self.anchors.backward(number, update, mine, self.autocast(), self.scaler)

    def autocast(self) -> torch.autocast:
        """Mixed precision, if it is asked for."""
        half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.config.precision)
        return torch.autocast(self.learner.device.type, half, enabled=half is not None)

    @contextmanager
    def using(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """The learner with other adapter weights, inside."""
        own = {n: p.detach().clone() for n, p in self.learner.parameters.items()}
        self.put(weights)
        try:
            yield
        finally:
            self.put(own)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give the adapter weights by name."""
        with torch.no_grad():
            for name, parameter in self.learner.parameters.items():
                parameter.copy_(weights[name])

    @contextmanager
    def scorers_near(self) -> Iterator[None]:
        """With low memory: the scorers are on the learner's device only inside."""
        if not self.config.low_memory or self.learner.device.type == "cpu":
            yield
            return
        scorers = self.panel.scorers()
        for scorer in scorers:
            scorer.to(self.learner.device)
        try:
            yield
        finally:
            for scorer in scorers:
                scorer.to(torch.device("cpu"))
            free_memory()

    def mine(self, count: int) -> list[int]:
        """Places that this process works on."""
        return list(range(self.accelerator.process_index, count, self.accelerator.num_processes))

    def owns(self, group: int) -> bool:
        """Whether this process has the images of a prompt of the round."""
        owner: int = group % self.accelerator.num_processes
        return bool(owner == self.accelerator.process_index)
