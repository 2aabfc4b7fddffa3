"""One call from ratings to an aligned scorer: check, load, train, evaluate, save."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._errors import InputError, missing_extra
from ..ratings.reading import Rating
from .config import AlignmentConfig, preset, recipe
from .folders import claim_folder, describe, last_checkpoint, open_run, read_run, write_run
from .preparing import prepare_ratings
from .processes import joined

if TYPE_CHECKING:
    from transformers import Trainer

    from .training.callbacks import Clock

ENDLESS = 10**6
"""Steps of a run that only the clock ends."""


@dataclass(frozen=True)
class AlignmentResult:
    """What a training run came to.

    Attributes:
        folder: the scorer, for `load_scorer("memorability", model=folder)`.
        steps: optimiser steps.
        seconds: of training, those before a resume included.
        metrics: on the held-out ratings at the end, such as "spearman_memorability"; empty without any.
        history: what was reported, in order: "step" with "loss", or with metrics of an evaluation; empty
            where `resume` found the run at its end.
    """

    folder: Path
    steps: int
    seconds: float
    metrics: dict[str, float]
    history: list[dict[str, Any]] = field(repr=False)


def align(
    model: str | Path,
    data: str | Path | Sequence[Rating],
    output: str | Path,
    config: AlignmentConfig | None = None,
    *,
    stds: Sequence[float] | None = None,
    evaluation: str | Path | Sequence[Rating] | None = None,
    images: str | Path | None = None,
    dimensions: Sequence[str] | None = None,
    split: str | None = None,
    adapter: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> AlignmentResult:
    """Train a multimodal LLM on human ratings and save it as a scorer.

    Under ``accelerate launch`` every process calls this alike, and together they do what one would.

    Args:
        model: "embedded", a folder, or a hub name; or an adapter to go on with.
        data: ratings, or where to read them from (see `read_ratings`).
        output: folder for the scorer and its checkpoints.
        config: settings; default: `recipe(model)`, the paper's.
        stds: one per rating of a list, how sure it is, in the dimension's unit; for the loss "answers".
            Default: `config.width` of the range.
        evaluation: ratings to evaluate on; default: the share `config.held_out` of the images.
        images: folder that image paths in `data` and `evaluation` start from.
        dimensions: take only these of `data` and `evaluation`.
        split: take only this split of `data`; default: "train" where there is one. Of `evaluation`, "test"
            is taken where there is one.
        adapter: an adapter on `model` to go on with; it says what trains, at which rank.
        resume: go on from the last checkpoint in `output`, with the same settings and data.
        overwrite: use `output` although a run is in it.
        trust_remote_code: run code that comes with the model.

    Raises:
        InputError: data, settings or folders that cannot be used, found before any model is loaded; or
            settings that an adapter to go on with does not have.
        RecordError: the folder of a run to resume cannot be read.
        ModelError: the model cannot be loaded or adapted.
        TrainingError: the loss is not finite, or the device is out of memory.
        MissingExtraError: an optional package that the settings need.

    Executed examples are in ``tests/scorers/alignment/test_sft.py``.
    """
    chosen = recipe(model) if config is None else config
    make_trainer = trainer_of(chosen)
    ratings, held, widths = prepare_ratings(data, chosen, stds, evaluation, images, dimensions, split)
    folder = Path(output)
    facts = describe(model, adapter, chosen, ratings, widths, held)
    checkpoint = open_run(folder, facts, resume, overwrite)
    done = read_run(folder) if resume else {}
    if "steps" in done:
        return _come_to_its_end(folder, done)
    from .loading import load_for_training, of_adapter
    from .training.callbacks import Clock, memory_watched

    clock = Clock(chosen.minutes)
    arguments = common_arguments(folder, chosen, len(ratings), bool(held))
    taught = sorted({rating.dimension for rating in ratings})
    with memory_watched(chosen, "loading the model", lambda: _kept(folder)):
        pictures = [rating.image for rating in (*ratings, *held)]
        loaded = load_for_training(model, chosen, taught, folder.name, adapter, trust_remote_code, pictures)
        if facts["from_adapter"]:
            chosen = of_adapter(loaded, chosen, recipe(model))
        trainer = make_trainer(loaded, chosen, arguments, ratings, widths, held, clock)
    facts |= {"config": chosen.to_dict(), "preset": in_force(chosen, loaded.model_type)}
    claim_folder(folder, facts, fresh=not resume)
    return _run(trainer, chosen, folder, facts, checkpoint, clock, held)


def in_force(config: AlignmentConfig, model_type: str) -> dict[str, Any]:
    """What a run takes from the preset of its kind of model, and what it then learns with.

    >>> in_force(AlignmentConfig(), "smolvlm")["from_paper"]
    False
    """
    own = preset(model_type)
    return {
        "name": own.name,
        "from_paper": own.from_paper,
        "learning_rates": config.rates(model_type),
        "eta": config.soft_label(model_type),
    }


def trainer_of(config: AlignmentConfig) -> Callable[..., Trainer]:
    """What sets up a trainer of the settings' method.

    Raises:
        MissingExtraError: TRL or datasets is not installed, for "grpo"; or what the run reports to.

    >>> trainer_of(AlignmentConfig()).__name__
    'sft_trainer'
    """
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise missing_extra(config.report_to, "wandb" if config.report_to == "wandb" else "train")
    if config.method == "sft":
        from .training.sft import sft_trainer

        return sft_trainer
    for package in ("trl", "datasets"):
        if find_spec(package) is None:
            raise missing_extra(package, "train")
    from .training.grpo import grpo_trainer

    return grpo_trainer


def num_steps(config: AlignmentConfig, num_ratings: int) -> int:
    """Optimiser steps of a run at most; passes over the ratings are rounded up to whole batches.

    >>> num_steps(AlignmentConfig(batch_size=128), 3200), num_steps(AlignmentConfig(max_steps=99), 3200)
    (25, 99)
    >>> num_steps(AlignmentConfig(epochs=2, max_steps=99), 3200)
    50
    """
    limits = [] if config.max_steps is None else [config.max_steps]
    if config.epochs is not None or (config.max_steps is None and config.minutes is None):
        per_step = config.batch_size // (config.generations if config.method == "grpo" else 1)
        limits.append(max(1, math.ceil((config.epochs or 1) * num_ratings / per_step)))
    return min(limits, default=ENDLESS)


def common_arguments(
    folder: Path, config: AlignmentConfig, num_ratings: int, evaluates: bool
) -> dict[str, Any]:
    """Settings of a Hugging Face trainer, for both methods.

    Raises:
        InputError: the batch cannot be shared out among the processes, or one process has several GPUs.

    >>> settings = common_arguments(Path("out"), AlignmentConfig(micro_batch=8), 3200, False)
    >>> settings["gradient_accumulation_steps"]
    16
    """
    import torch

    from .loading import precision

    state = joined()
    if state.num_processes == 1 and torch.cuda.device_count() > 1:
        raise InputError(
            "several GPUs are visible: run with `accelerate launch`, or set CUDA_VISIBLE_DEVICES=0"
        )
    share, rest = divmod(config.batch_size, config.micro_batch * state.num_processes)
    if rest:
        raise InputError(
            f"batch_size={config.batch_size} cannot be shared out: it must be a multiple of micro_batch="
            f"{config.micro_batch} times {state.num_processes} processes"
        )
    kind, on_gpu = precision(config), state.device.type == "cuda"
    checkpointing = on_gpu if config.gradient_checkpointing is None else config.gradient_checkpointing
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": share,
        "max_steps": num_steps(config, num_ratings),
        "max_grad_norm": config.max_grad_norm,
        "logging_steps": config.log_every,
        "logging_nan_inf_filter": False,  # `Finite` is to see them
        "save_strategy": "no" if config.save_every is None else "steps",
        "save_steps": config.save_every or 1,
        "save_total_limit": config.keep,
        "eval_strategy": "steps" if evaluates and config.eval_every else "no",
        "eval_steps": config.eval_every,
        "bf16": kind == "bfloat16",
        "fp16": kind == "float16",
        "use_cpu": not on_gpu and state.device.type == "cpu",
        **_checkpointing(checkpointing),
        "dataloader_num_workers": config.workers,
        "dataloader_pin_memory": on_gpu,
        "remove_unused_columns": False,
        "report_to": config.report_to,
        "seed": config.seed,
    }


def _checkpointing(wanted: bool) -> dict[str, Any]:
    """The settings that keep fewer activations; transformers 5 came to give them another name."""
    from dataclasses import fields

    from transformers import TrainingArguments

    new = any(field.name == "activation_checkpointing" for field in fields(TrainingArguments))
    name = "activation_checkpointing" if new else "gradient_checkpointing"
    # TRL's default is True, so False is said too
    return {name: wanted, f"{name}_kwargs": {"use_reentrant": False} if wanted else None}


@contextmanager
def flushed_denormals(wanted: bool) -> Iterator[None]:
    """Take numbers below 1e-38 for 0: as a model grows sure, CPUs would come to compute ten times slower.

    >>> import torch
    >>> with flushed_denormals(True):
    ...     (torch.tensor(1e-30) * 1e-10).item()
    0.0
    """
    import torch

    if not wanted:
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _run(
    trainer: Trainer,
    config: AlignmentConfig,
    folder: Path,
    facts: dict[str, Any],
    checkpoint: Path | None,
    clock: Clock,
    held: Sequence[Rating],
) -> AlignmentResult:
    from .parts import quiet_libraries
    from .training.callbacks import memory_watched

    if checkpoint is not None:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        clock.spent = float(state["stateful_callbacks"]["Clock"]["attributes"]["spent"])
    with (
        flushed_denormals(trainer.args.device.type == "cpu"),
        quiet_libraries(),
        memory_watched(config, "training", lambda: _kept(folder)),
    ):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    steps, seconds = int(trainer.state.global_step), clock.seconds()
    # What was trained is safe before it is evaluated.
    trainer.save_model(str(folder))
    facts |= {"steps": steps, "seconds": round(seconds, 1), "metrics": None if held else {}}
    if trainer.is_world_process_zero():
        write_run(folder, facts)
    if held:
        with memory_watched(config, "evaluating", lambda: f"what was trained is saved in {folder}"):
            evaluated = trainer.evaluate()
        facts["metrics"] = {name.removeprefix("eval_"): value for name, value in evaluated.items()}
        if trainer.is_world_process_zero():
            write_run(folder, facts)
    return AlignmentResult(folder, steps, seconds, facts["metrics"], list(trainer.state.log_history))


def _kept(folder: Path) -> str:
    """What an interrupted run leaves."""
    checkpoint = last_checkpoint(folder)
    return "no checkpoint was written" if checkpoint is None else f"{checkpoint} is kept, to resume from"


def _come_to_its_end(folder: Path, done: dict[str, Any]) -> AlignmentResult:
    """Result of a run that was trained already."""
    if done["metrics"] is None:
        warnings.warn(
            f"{folder}: trained to its end, but its evaluation was cut short; cogguided bench measures it",
            stacklevel=3,
        )
    return AlignmentResult(folder, done["steps"], done["seconds"], done["metrics"] or {}, [])
