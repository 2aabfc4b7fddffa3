"""A run: rounds, evaluations now and then, checkpoints; it stops when the panel says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file
from tqdm import tqdm

from ..._errors import InputError
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
from .drawing import memory_watched, seed_of
from .grids import save_grid
from .judging import Panel, gathered, judge
from .objectives.reward_gradients import GradientRounds
from .panel import TARGET, best
from .report import write_report
from .rounds import Rounds

logger = logging.getLogger("cogguided")

REPORT_EVERY = 10.0
"""Seconds between reports on the way: drawing one takes longer than a round of a tiny model."""


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
        anchors: prompts whose images should stay as they are.

    Raises:
        InputError: the method follows the target's gradient, and a term of it has none.
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
        anchors: Sequence[str] = (),
    ) -> None:
        self.learner, self.panel, self.config, self.folder, self.facts = learner, panel, config, folder, facts
        self.prompts, self.evaluation = list(prompts), list(evaluation)
        kind = GradientRounds if config.method == "drtune" else Rounds
        if kind is GradientRounds and panel.target.blind:
            raise InputError(
                f"method 'drtune': {', '.join(panel.target.blind)} has no gradient with respect to the image; use "
                "'nft', which needs none"
            )
        self.rounds = kind(learner, panel, config, str(folder), anchors)
        self.accelerator = self.rounds.accelerator
        self.main = self.accelerator.is_main_process
        self.state = State()
        self.progress = progress and self.main
        self.began = self.reported = time.monotonic()
        self.bar: Any = None

    def run(self, resume: bool = False) -> State:
        """Train until the rounds or minutes are over, or the alarm stops it; leave the learner with what is saved."""
        self.accelerator.wait_for_everyone()  # each has found the folder as it was
        if resume:
            self._resume()
        elif self.main:
            begin_folder(self.folder, self.facts)
        self.accelerator.wait_for_everyone()
        if self.config.report_to != "none":
            self.accelerator.init_trackers("cogguided")
        with self._bar() as self.bar, memory_watched(self.config):
            if not self.state.evaluations:
                self.evaluate()
            while not self._over():
                self._round()
                if self.state.round % self.config.evaluate_every == 0:
                    self.evaluate()
                self._keep()
            if self.state.evaluations[-1].round != self.state.round:
                self.evaluate()
            self._keep()
        self._close()
        self.rounds.put(load_file(self.folder / CHOSEN))
        return self.state

    def evaluate(self) -> None:
        """Judge the held-out prompts by the sampling model; save it if it is the best, sound the alarm if it must."""
        config, state = self.config, self.state
        seeds = [seed_of(config.seed, "evaluation", k) for k in range(config.images_per_evaluation)]
        places = self.rounds.mine(len(self.evaluation))
        with self.rounds.using(self.rounds.sampling), torch.no_grad(), self.rounds.scorers_near():
            found = judge(self.learner, self.panel, self.evaluation, seeds, config, places, self._tell)
        parts = gather_object([found])
        unread = sum(part[2] for part in parts)
        made = gathered([part[0] for part in parts], len(self.evaluation), state.round, self.seconds(), unread)
        state.evaluations.append(made)
        alarm = self.panel.alarm(config, state.evaluations[0])
        chosen = made if config.save == "last" else best(state.evaluations, alarm)
        state.saved = chosen.round
        if self.main:
            images = {place: of for part in parts for place, of in part[1].items()}
            save_grid(self.folder / "evaluations" / f"round-{state.round:05d}.png", self.evaluation, images)
            if chosen is made:
                with self.rounds.using(self.rounds.sampling):
                    self.learner.save(self.folder)
                save_tensors(self.folder / CHOSEN, self.rounds.sampling)
        state.alarm = alarm(state.evaluations)
        if state.alarm is not None:
            state.stopped = "alarm"
        self._log({f"held-out/{name}": made.mean(name) for name in made.values})
        self._tick()

    def seconds(self) -> float:
        """Seconds of the run, those before a resume included."""
        return self.state.seconds + time.monotonic() - self.began

    def _round(self) -> None:
        state = self.state
        told = self.rounds.take(self.prompts, state.round)
        state.round += 1
        state.step, state.first_loss = self.rounds.step, self.rounds.first_loss
        state.unread += told["unread"]
        if told.get("alike"):
            logger.warning(
                f"round {state.round}: the images of {told['alike']} prompts score alike and teach nothing: skipped"
            )
        state.history.append({**told, "seconds": round(self.seconds(), 2)})
        self._log({f"train/{name}": told[name] for name in ("score", "loss", "grad_norm")})
        self._tick()

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
        return bool(state.stopped)

    def _keep(self) -> None:
        """Write a checkpoint, and the report unless there is a fresh one."""
        self.state.seconds, self.began = self.seconds(), time.monotonic()
        if self.main:
            tensors = {
                "adapter": {n: p.detach() for n, p in self.learner.parameters.items()},
                "sampling": self.rounds.sampling,
                "optimizer": optimizer_tensors(self.rounds.optimizer, list(self.learner.parameters)),
            }
            save_checkpoint(self.folder, self.state, tensors, self.config.keep)
            if time.monotonic() - self.reported > REPORT_EVERY:
                write_report(self.folder, self.facts, self.state, self.config)
                self.reported = time.monotonic()
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        found = load_checkpoint(self.folder)
        if found is None:  # killed in its first round
            if self.main:
                begin_folder(self.folder, self.facts)
            return
        self.state, tensors = found
        if self.state.stopped != "alarm":
            self.state.stopped = None  # there may be more rounds or minutes now
        self.rounds.step, self.rounds.first_loss = self.state.step, self.state.first_loss
        self.rounds.put(tensors["adapter"])
        self.rounds.sampling = {n: t.to(self.learner.device) for n, t in tensors["sampling"].items()}
        load_optimizer(self.rounds.optimizer, list(self.learner.parameters), tensors["optimizer"])

    def _close(self) -> None:
        state = self.state
        if self.main:
            told = {"rounds": state.round, "seconds": round(state.seconds, 1), "stopped": state.stopped}
            told |= {"alarm": state.alarm, "saved_round": state.saved, "unread": state.unread}
            write_json(self.folder / RUN_FILE, {**self.facts, "result": told})
            write_report(self.folder, self.facts, state, self.config)
        if self.config.report_to != "none":
            self.accelerator.end_training()

    def _log(self, values: Mapping[str, float]) -> None:
        if self.config.report_to != "none":
            self.accelerator.log(dict(values), step=self.state.round)

    @contextmanager
    def _bar(self) -> Iterator[Any]:
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        with tqdm(total=100, desc="fine-tuning", bar_format=form, disable=not self.progress) as bar:
            yield bar

    def _tell(self, images: int) -> None:
        if not self.state.evaluations:
            self.bar.set_postfix_str("judging the untrained model")

    def _tick(self) -> None:
        """Move the bar to where the run stands."""
        state, config = self.state, self.config
        shares = [state.round / config.last_round]
        if config.minutes is not None:
            shares.append(self.seconds() / (60 * config.minutes))
        start, now = state.evaluations[0].mean(TARGET), state.evaluations[-1].mean(TARGET)
        self.bar.set_postfix_str(f"round {state.round}, held-out target {start:.3f} -> {now:.3f}")
        self.bar.update(min(100.0, 100 * max(shares)) - self.bar.n)
