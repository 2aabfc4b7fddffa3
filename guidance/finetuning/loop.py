"""The loop that all methods share: sample, score, fit; evaluate now and then; stop when the panel says so."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from ..._errors import TrainingError
from ..run import free_memory
from .base import Learner
from .checkpoints import (
    CHOSEN,
    RUN_FILE,
    State,
    begin_folder,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    save_tensors,
    write_json,
)
from .config import FinetuneConfig
from .drawing import memory_watched, round_prompts, seed_of
from .grids import save_grid
from .judging import Panel, gathered, judge
from .methods import Part, needs_old, needs_reference, part_loss, parts_of
from .panel import TARGET, best
from .report import write_report

EXPLODED = 100.0
"""A round's loss over the first one's, from which on training is given up."""


class Finetuning:
    """One run: its parts, and where it stands.

    Args:
        learner: the generator with its adapter.
        panel: the target and who else judges.
        prompts: to train on.
        evaluation: held-out prompts.
        folder: of the run.
        facts: what makes it this run (see `describe`).
        config: settings.
        progress: whether to show a bar.
    """

    def __init__(
        self,
        learner: Learner,
        panel: Panel,
        prompts: Sequence[str],
        evaluation: Sequence[str],
        folder: Path,
        facts: Mapping[str, Any],
        config: FinetuneConfig,
        progress: bool = True,
    ) -> None:
        self.learner, self.panel, self.config, self.folder, self.facts = learner, panel, config, folder, facts
        self.prompts, self.evaluation = list(prompts), list(evaluation)
        tracker = None if config.report_to == "none" else config.report_to
        mixed = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[config.precision]
        self.accelerator = Accelerator(
            mixed_precision=mixed, log_with=tracker, project_dir=str(folder), cpu=learner.device.type == "cpu"
        )
        self.names = list(learner.parameters)
        self.weights = list(learner.parameters.values())
        self.optimizer: Any = torch.optim.AdamW(
            self.weights, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.scaler = torch.amp.GradScaler(learner.device.type, enabled=config.precision == "float16")
        self.sampling = {n: p.detach().clone() for n, p in learner.parameters.items()}
        self.state = State()
        self.progress = progress and self.accelerator.is_main_process
        self.began = time.monotonic()
        self.bar: Any = None

    # ------------------------------------------------------------------ the run

    def run(self, resume: bool = False) -> State:
        """Train until the rounds or minutes are over, or the alarm stops it."""
        config, main = self.config, self.accelerator.is_main_process
        if resume:
            self._resume()
        elif main:
            begin_folder(self.folder, self.facts)
        self.accelerator.wait_for_everyone()
        if config.report_to != "none":
            self.accelerator.init_trackers("cogguided")
        with self._bar() as self.bar, memory_watched(config):
            if not self.state.evaluations:
                self.evaluate()
            while not self._over():
                self.round()
                if self.state.round % config.evaluate_every == 0:
                    self.evaluate()
                self._keep()
            if self.state.evaluations[-1].round != self.state.round:
                self.evaluate()
            self._keep()
        if main:
            told = {"rounds": self.state.round, "seconds": round(self.seconds(), 1), "stopped": self.state.stopped}
            told |= {"alarm": self.state.alarm, "saved_round": self.state.saved, "unread": self.state.unread}
            write_json(self.folder / RUN_FILE, {**self.facts, "result": told})
            write_report(self.folder, self.facts, self.state, self.config)
        if config.report_to != "none":
            self.accelerator.end_training()
        self._load_saved()
        return self.state

    def seconds(self) -> float:
        """Seconds of the run, those before a resume included."""
        return self.state.seconds + time.monotonic() - self.began

    def _over(self) -> bool:
        """Whether the run is over; the first process decides for all."""
        state, config = self.state, self.config
        last = state.history[-1]["duration"] if state.history else 0.0
        if state.stopped is None:
            if state.round >= config.last_round:
                state.stopped = "rounds"
            elif config.minutes is not None and self.seconds() + last / 2 > 60 * config.minutes:
                state.stopped = "minutes"
        (state.stopped,) = broadcast_object_list([state.stopped])
        return state.stopped is not None

    # ------------------------------------------------------------------ a round

    def round(self) -> None:
        """Sample, score, fit."""
        started, state = time.monotonic(), self.state
        texts = round_prompts(self.prompts, self.config.prompts_per_round, state.round, self.config.seed)
        with self.using(self.sampling), torch.no_grad():
            latents, scores = self._sample(texts)
            parts = parts_of(scores, self.config)
            items = self._items(parts, texts)
            kept = self._predictions(items, texts, latents)
        unread = int((~scores.isfinite()).sum())
        loss, norm = self._fit(items, texts, latents, kept)
        decay = self.config.ema
        for name, weight in self.learner.parameters.items():
            self.sampling[name].mul_(decay).add_(weight.detach(), alpha=1 - decay)
        state.round += 1
        state.unread += unread
        state.history.append(
            {
                "round": state.round, "seconds": round(self.seconds(), 2), "duration": time.monotonic() - started,
                "loss": loss, "grad_norm": norm, "score": float(scores.nanmean()), "unread": unread,
                "images": scores.numel(), "trained_on": sum(len(part.rows) for part in parts),
            }
        )  # fmt: skip
        self._log({"train/score": state.history[-1]["score"], "train/loss": loss, "train/grad_norm": norm})
        self._tick()

    def _sample(self, texts: Sequence[str]) -> tuple[dict[tuple[int, int], Tensor], Tensor]:
        """Make and score this process's images; latents by (prompt, image), and all scores (P, K)."""
        config, learner = self.config, self.learner
        each = config.images_per_prompt
        places = [(g, k) for g in self._mine(len(texts)) for k in range(each)]
        latents: dict[tuple[int, int], Tensor] = {}
        images, found = [], []
        for first in range(0, len(places), config.batch_size):
            some = places[first : first + config.batch_size]
            seeds = [seed_of(config.seed, "sample", self.state.round, *place) for place in some]
            made, rows = learner.sample([texts[g] for g, _ in some], seeds, config.num_inference_steps)
            latents |= dict(zip(some, rows.cpu(), strict=True))
            images += made
        with self.scorers_near():
            for first in range(0, len(places), config.batch_size):
                batch = slice(first, first + config.batch_size)
                told = self.panel.target(images[batch], [texts[g] for g, _ in places[batch]]).total
                found += [v if math.isfinite(v) else math.nan for v in told.tolist()]
        scores = torch.full((len(texts), each), math.nan)
        for (g, k), value in gather_object(list(zip(places, found, strict=True))):
            scores[g, k] = value
        for key in [key for key, row in latents.items() if not bool(row.isfinite().all())]:
            scores[key] = math.nan  # a broken image must not reach the weights
        return latents, scores

    def _items(self, parts: Sequence[Part], texts: Sequence[str]) -> list[tuple[Part, int, int]]:
        """Every part at each of its noise levels: (part, step of the schedule, place among the levels drawn)."""
        config, number = self.config, self.state.round
        count = len(self.learner.levels(texts[0], config.num_inference_steps))
        items = []
        for part in parts:
            for slot in range(config.timesteps):
                # stratified, so that every round sees all of the trajectory
                shift = seed_of(config.seed, "level", number, part.group, slot) / 2**31
                step = min(count - 1, int((slot + shift) * count / config.timesteps))
                items.append((part, step, slot))
        return items

    def _predictions(
        self, items: Sequence[tuple[Part, int, int]], texts: Sequence[str], latents: Mapping[tuple[int, int], Tensor]
    ) -> dict[int, tuple[Tensor | None, Tensor | None]]:
        """What the sampling and the untrained model say, of this process's items, where the loss asks for it."""
        kept: dict[int, tuple[Tensor | None, Tensor | None]] = {}
        for i, item in enumerate(items):
            if self._owns(item[0].group) and (needs_old(self.config) or needs_reference(self.config)):
                old = self._predict(item, texts, latents)[0].cpu() if needs_old(self.config) else None
                reference = None
                if needs_reference(self.config):
                    with self.learner.reference():
                        reference = self._predict(item, texts, latents)[0].cpu()
                kept[i] = (old, reference)
        return kept

    def _predict(
        self, item: tuple[Part, int, int], texts: Sequence[str], latents: Mapping[tuple[int, int], Tensor]
    ) -> tuple[Tensor, Tensor]:
        part, step, slot = item
        clean = torch.stack([latents[part.group, k] for k in part.rows])
        pairs = self.config.method == "dpo"
        noise = torch.stack(
            [self._noise(clean[0], part.group, k - k % 2 if pairs else part.rows[k], slot) for k in range(len(clean))]
        )
        steps = self.config.num_inference_steps
        with self.accelerator.autocast():
            return self.learner.predict([texts[part.group]] * len(clean), clean, noise, step, steps)

    def _noise(self, like: Tensor, group: int, row: int, slot: int) -> Tensor:
        seed = seed_of(self.config.seed, "noise", self.state.round, group, row, slot)
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))

    def _fit(
        self,
        items: Sequence[tuple[Part, int, int]],
        texts: Sequence[str],
        latents: Mapping[tuple[int, int], Tensor],
        kept: Mapping[int, tuple[Tensor | None, Tensor | None]],
    ) -> tuple[float, float]:
        """Take the round's optimiser steps; return mean loss and gradient norm."""
        losses, norms = [], []
        for epoch in range(self.config.epochs):
            seed = seed_of(self.config.seed, "order", self.state.round, epoch)
            order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
            for u in range(self.config.updates):
                some = order[u * len(order) // self.config.updates : (u + 1) * len(order) // self.config.updates]
                if not some:
                    continue
                total = sum(len(items[i][0].rows) for i in some)
                loss = torch.zeros((), device=self.learner.device)
                for i in some:
                    if not self._owns(items[i][0].group):
                        continue
                    output, target = self._predict(items[i], texts, latents)
                    part = part_loss(self.config, items[i][0], output, target, *kept.get(i, (None, None))) / total
                    self.scaler.scale(part).backward()
                    loss += part.detach()
                losses.append(float(self.accelerator.reduce(loss, "sum")))
                norms.append(self._step())
                self._check(losses[-1], norms[-1])
        mean = sum(losses) / len(losses) if losses else math.nan
        if self.state.first_loss is None and losses:
            self.state.first_loss = mean
        return mean, sum(norms) / len(norms) if norms else math.nan

    def _step(self) -> float:
        """One optimiser step with the gradients of all processes."""
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        if self.accelerator.num_processes > 1:
            for weight in self.weights:
                weight.grad = self.accelerator.reduce(weight.grad, "sum")
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, self.config.max_grad_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, (self.state.step + 1) / (self.config.warmup + 1))
        if math.isfinite(norm) or self.config.precision == "float16":  # the scaler skips what overflowed
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        return norm

    def _check(self, loss: float, norm: float) -> None:
        """Give up on a loss or gradient that is no number or explodes; what was saved stays."""
        first = self.state.first_loss
        overflow = self.config.precision == "float16"  # a step too large for half precision is skipped, not an end
        exploded = first is not None and abs(loss) > EXPLODED * max(abs(first), 1e-3)
        if math.isfinite(loss) and (math.isfinite(norm) or overflow) and not exploded:
            return
        raise TrainingError(
            f"round {self.state.round + 1}: loss {loss:.3g}, gradient norm {norm:.3g}"
            + (f"; the first round's loss was {first:.3g}" if exploded and first is not None else "")
            + f". What was saved in {self.folder} is kept. Try: learning_rate={self.config.learning_rate / 10:g}; "
            'precision="float32"; reference_weight=0.1'
        )

    # ------------------------------------------------------------------ evaluation

    def evaluate(self) -> None:
        """Judge the held-out prompts by the sampling model; save it if it is the best, sound the alarm if it must."""
        config, state = self.config, self.state
        seeds = [seed_of(config.seed, "evaluation", k) for k in range(config.images_per_evaluation)]
        with self.using(self.sampling), torch.no_grad(), self.scorers_near():
            values, shown, unread = judge(
                self.learner, self.panel, self.evaluation, seeds, config, self._mine(len(self.evaluation)), self._tock
            )
        parts = gather_object([(values, shown, unread)])
        made = gathered(
            [part[0] for part in parts], len(self.evaluation), state.round, self.seconds(), sum(p[2] for p in parts)
        )
        state.evaluations.append(made)
        if self.accelerator.is_main_process:
            rows = {place: images for part in parts for place, images in part[1].items()}
            save_grid(self.folder / "evaluations" / f"round-{state.round:05d}.png", self.evaluation, rows)
        alarm = self.panel.alarm(config, state.evaluations[0])
        if state.round > 0 or state.saved is None:
            chosen = best(state.evaluations, alarm)
            if chosen is made and self.accelerator.is_main_process:
                with self.using(self.sampling):
                    self.learner.save(self.folder)
                save_tensors(self.folder / CHOSEN, self.sampling)
            state.saved = chosen.round
        state.alarm = alarm(state.evaluations)
        if state.alarm is not None:
            state.stopped = "alarm"
        self._log({f"held-out/{name}": made.mean(name) for name in made.values})
        self._tick()

    # ------------------------------------------------------------------ small parts

    @contextmanager
    def using(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """The learner with other adapter weights, inside."""
        own = {n: p.detach().clone() for n, p in self.learner.parameters.items()}
        self._put(weights)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, weights: Mapping[str, Tensor]) -> None:
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

    def _mine(self, count: int) -> list[int]:
        return list(range(self.accelerator.process_index, count, self.accelerator.num_processes))

    def _owns(self, group: int) -> bool:
        return group % self.accelerator.num_processes == self.accelerator.process_index

    def _keep(self) -> None:
        """Write a checkpoint and the report."""
        self.state.seconds, self.began = self.seconds(), time.monotonic()
        if self.accelerator.is_main_process:
            tensors = {
                "adapter": {n: p.detach() for n, p in self.learner.parameters.items()},
                "sampling": self.sampling,
                "optimizer": optimizer_tensors(self.optimizer, self.names),
            }
            save_checkpoint(self.folder, self.state, tensors, self.config.keep)
            write_report(self.folder, self.facts, self.state, self.config)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        found = load_checkpoint(self.folder)
        if found is None:
            if self.accelerator.is_main_process:
                begin_folder(self.folder, self.facts)
            return
        self.state, tensors = found
        if self.state.stopped in ("rounds", "minutes"):
            self.state.stopped = None  # there may be more of them now
        self._put(tensors["adapter"])
        self.sampling = {n: t.to(self.learner.device) for n, t in tensors["sampling"].items()}
        load_optimizer(self.optimizer, self.names, tensors["optimizer"])

    def _load_saved(self) -> None:
        """Leave the learner with the weights that were saved as the best."""
        self._put(load_file(self.folder / CHOSEN))

    def _log(self, values: Mapping[str, float]) -> None:
        if self.config.report_to != "none":
            self.accelerator.log(dict(values), step=self.state.round)

    @contextmanager
    def _bar(self) -> Iterator[Any]:
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        with tqdm(total=100, desc="fine-tuning", bar_format=form, disable=not self.progress) as bar:
            yield bar

    def _tock(self, images: int) -> None:
        if self.bar is not None and not self.state.evaluations:
            self.bar.set_postfix_str("judging the untrained model")

    def _tick(self) -> None:
        """Move the bar to where the run stands."""
        state, config = self.state, self.config
        shares = [state.round / config.last_round]
        if config.minutes is not None:
            shares.append(self.seconds() / (60 * config.minutes))
        if self.bar is None:
            return
        start, now = state.evaluations[0].mean(TARGET), state.evaluations[-1].mean(TARGET)
        self.bar.set_postfix_str(f"round {state.round}, held-out target {start:.3f} -> {now:.3f}")
        self.bar.update(min(100.0, 100 * max(shares)) - self.bar.n)
