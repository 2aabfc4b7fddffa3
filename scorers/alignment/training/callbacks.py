"""What a trainer is told to do beside its steps: keep the time, stop at nonsense, say what to try."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from ...._errors import TrainingError
from ..config import AlignmentConfig


def rate(progress: float, warmup: float) -> float:
    """Learning-rate factor at a share of the run: a linear rise over `warmup`, then a cosine to 0.

    >>> [round(rate(progress, warmup=0.1), 3) for progress in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min((progress - warmup) / (1 - warmup), 1.0)))


class Clock(TrainerCallback, ExportableState):
    """Counts the time of training, that before a resume included, and ends it after so many minutes.

    >>> Clock(minutes=10).progress()
    0.0
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.minutes = minutes
        self.spent = 0.0  # seconds, until `since`
        self.since: float | None = None

    def seconds(self) -> float:
        """Seconds of training so far."""
        return self.spent + (0.0 if self.since is None else time.monotonic() - self.since)

    def progress(self) -> float:
        """Share of the minutes that is used; 0 where there is no limit."""
        return 0.0 if self.minutes is None else self.seconds() / (60 * self.minutes)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {"minutes": self.minutes}, "attributes": {"spent": self.seconds()}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        self.since = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop all processes when the first one's time is up."""
        if self.minutes is not None and self._over(args):
            control.should_training_stop = True

    def _over(self, args: TrainingArguments) -> bool:
        over = self.progress() >= 1
        if args.world_size == 1:
            return over
        from accelerate.utils import broadcast_object_list

        return bool(broadcast_object_list([over])[0])


class Finite(TrainerCallback):
    """Ends a run whose loss or gradient is not a number, at the next report of it.

    >>> guard = Finite("lower the learning rate")
    >>> guard.on_log(None, TrainerState(global_step=7), None, {"loss": float("nan")})
    Traceback (most recent call last):
    ...
    cogguided._errors.TrainingError: step 7: loss is nan. Try: lower the learning rate
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice

    def on_log(
        self,
        args: TrainingArguments | None,
        state: TrainerState,
        control: TrainerControl | None,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Look at what is reported."""
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                raise TrainingError(f"step {state.global_step}: {name} is {value}. Try: {self.advice}")


def advice(config: AlignmentConfig) -> str:
    """What to try when the loss is not finite.

    >>> advice(AlignmentConfig(precision="float16", learning_rate=1e-3))
    'learning_rate=0.0001; precision="bfloat16" or "float32"; warmup=0.1; resume from the last checkpoint'
    """
    lower = (
        f"learning_rate={config.learning_rate / 10:g}"
        if config.learning_rate
        else "a tenth of the learning_rate"
    )
    wider = 'precision="bfloat16" or "float32"' if config.precision == "float16" else 'precision="float32"'
    return f"{lower}; {wider}; warmup=0.1; resume from the last checkpoint"


@contextmanager
def memory_watched(config: AlignmentConfig, doing: str, kept: Callable[[], str]) -> Iterator[None]:
    """Say what to try where the device is out of memory, and what is `kept` of the run.

    Raises:
        TrainingError: out of memory.

    >>> with memory_watched(AlignmentConfig(micro_batch=2, bits=4), "training", lambda: "step 5 is kept"):
    ...     raise torch.OutOfMemoryError
    Traceback (most recent call last):
    ...
    cogguided._errors.TrainingError: out of memory while training; step 5 is kept. Try: micro_batch=1; \
vision="lora"; projector="lora"; fewer pixels
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        tries = {
            f"micro_batch={config.micro_batch // 2}": config.micro_batch > 1,
            "gradient_checkpointing=true": config.gradient_checkpointing is False,
            "bits=4": config.bits != 4 and config.makes_adapter,
            'vision="lora"': config.vision == "full",
            'projector="lora"': config.projector == "full",
            "fewer pixels": True,
        }
        told = "; ".join(name for name, helps in tries.items() if helps)
        raise TrainingError(f"out of memory while {doing}; {kept()}. Try: {told}") from error
