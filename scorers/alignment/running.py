"""One call from ratings to an aligned scorer: check, load, train, evaluate, save."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._errors import InputError
from ..benchmark.data import Rating, read_ratings
from ..dimensions import DIMENSIONS
from .config import AlignmentConfig, recipe
from .data import split_by_image

if TYPE_CHECKING:
    from transformers import Trainer

    from .callbacks import Clock
    from .loading import Loaded

RUN_FILE = "alignment.json"
ENDLESS = 10**6
"""Steps of a run that only the clock ends."""
FREE = ("micro_batch", "keep", "log_every", "workers", "report_to", "minutes", "gradient_checkpointing")
"""Settings that a resumed run may change."""


@dataclass(frozen=True)
class AlignmentResult:
    """What a training run came to.

    Attributes:
        folder: the scorer, for `load_scorer("memorability", model=folder)`.
        steps: optimiser steps.
        seconds: of training, those before a resume included.
        metrics: on the held-out ratings at the end, such as "spearman_memorability"; empty without any.
        history: what was reported, in order: "step" with "loss", or with metrics of an evaluation.
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
        split: take only this split of `data`.
        adapter: an adapter on `model` to go on with.
        resume: go on from the last checkpoint in `output`, with the same settings and data.
        overwrite: use `output` although a run is in it.
        trust_remote_code: run code that comes with the model.

    Raises:
        InputError: data, settings or folders that cannot be used; found before any model is loaded.
        ModelError: the model cannot be loaded or adapted.
        TrainingError: the loss is not finite.
        MissingExtraError: an optional package that the settings need.

    Executed examples are in ``tests/scorers/alignment/test_sft.py``.
    """
    chosen = recipe(model) if config is None else config
    ratings, held, widths = prepare_ratings(data, chosen, stds, evaluation, images, split)
    folder = Path(output)
    facts = _describe(model, adapter, chosen, ratings, widths, held)
    checkpoint = open_folder(folder, facts, resume, overwrite)
    if chosen.method == "grpo":
        from .grpo import grpo_trainer as make_trainer
    else:
        from .sft import sft_trainer as make_trainer
    from .callbacks import Clock
    from .loading import load_for_training

    clock = Clock(chosen.minutes)
    arguments = common_arguments(folder, chosen, len(ratings), bool(held))
    loaded = load_for_training(
        model,
        chosen,
        sorted({rating.dimension for rating in ratings}),
        folder.name,
        adapter,
        trust_remote_code,
    )
    trainer = make_trainer(loaded, chosen, arguments, ratings, widths, held, clock)
    return _run(trainer, loaded, folder, facts, checkpoint, clock, held)


def prepare_ratings(
    data: str | Path | Sequence[Rating],
    config: AlignmentConfig,
    stds: Sequence[float] | None = None,
    evaluation: str | Path | Sequence[Rating] | None = None,
    images: str | Path | None = None,
    split: str | None = None,
) -> tuple[list[Rating], list[Rating], list[float]]:
    """Read and check ratings: those to train on, those held out, and how sure each of the first is.

    Raises:
        InputError: ratings that cannot be used, with the first offenders; or an image on both sides.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    listed = not isinstance(data, str | Path)
    ratings = _checked(data) if listed else read_ratings(data, images=images, split=split)  # type: ignore[arg-type]
    if stds is not None and (not listed or len(stds) != len(ratings) or not all(s > 0 for s in stds)):
        raise InputError(
            f"stds: expected a number above 0 for each of {len(ratings)} listed ratings, got {len(stds)}"
        )
    widths = (
        [config.width * (DIMENSIONS[r.dimension].high - DIMENSIONS[r.dimension].low) for r in ratings]
        if stds is None
        else [float(std) for std in stds]
    )
    if evaluation is None:
        kept, out = split_by_image(ratings, config.held_out, config.seed)
        return [ratings[i] for i in kept], [ratings[i] for i in out], [widths[i] for i in kept]
    if config.held_out:
        raise InputError("give ratings to evaluate on, or held_out, not both")
    read = isinstance(evaluation, str | Path)
    held = read_ratings(evaluation, images=images) if read else _checked(evaluation)  # type: ignore[arg-type]
    both = {rating.image.resolve() for rating in ratings} & {rating.image.resolve() for rating in held}
    if both:
        raise InputError(f"{len(both)} images are in training and in evaluation, such as {min(both)}")
    return ratings, held, widths


def _checked(ratings: Sequence[Rating]) -> list[Rating]:
    """Look at ratings that did not come through `read_ratings`."""
    problems = []
    for rating in ratings:
        dim = DIMENSIONS.get(rating.dimension)
        if dim is None:
            problems.append(f"{rating.key}: unknown dimension {rating.dimension!r}")
        elif not dim.low <= rating.score <= dim.high:
            problems.append(f"{rating.key}: score {rating.score} is not in {dim.low:g}..{dim.high:g}")
        elif not Path(rating.image).is_file():
            problems.append(f"{rating.key}: no image {rating.image}")
    if problems or not ratings:
        listed = "\n  ".join(problems[:5] or ["the list is empty"])
        raise InputError(f"{len(problems)} of {len(ratings)} ratings cannot be used:\n  {listed}")
    return list(ratings)


def _describe(
    model: object,
    adapter: object,
    config: AlignmentConfig,
    ratings: Sequence[Rating],
    stds: Sequence[float],
    held: Sequence[Rating],
) -> dict[str, Any]:
    """What makes a run the same run, as its folder tells it."""
    from ... import __version__

    told = "\n".join(f"{r.key} {r.dimension} {r.score!r} {s!r}" for r, s in zip(ratings, stds, strict=True))
    counts = {name: sum(r.dimension == name for r in ratings) for name in DIMENSIONS}
    return {
        "cogguided": __version__,
        "model": str(model),
        "adapter": None if adapter is None else str(adapter),
        "config": config.to_dict(),
        "ratings": {name: count for name, count in counts.items() if count},
        "held_out": len(held),
        "data": hashlib.sha256(told.encode()).hexdigest(),
    }


def open_folder(folder: Path, facts: dict[str, Any], resume: bool, overwrite: bool) -> Path | None:
    """Make the folder of a run, or find the last whole checkpoint in it.

    Raises:
        InputError: the folder is in use and neither is asked for; or a resumed run is another one.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    before = folder / RUN_FILE
    if resume:
        if not before.is_file():
            raise InputError(f"{folder}: nothing to resume, no {RUN_FILE} there")
        _check_same(json.loads(before.read_text(encoding="utf-8")), facts)
        return last_checkpoint(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise InputError(
            f"{folder} is not empty: resume (--resume), overwrite (--overwrite), or take another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if _first_process():
        import shutil

        for old in folder.glob("checkpoint-*"):
            shutil.rmtree(old)
        before.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return None


def _first_process() -> bool:
    import os

    return int(os.environ.get("RANK", "0")) == 0


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [
        f"{key}: {before.get(key)} -> {now[key]}"
        for key in ("model", "adapter", "data")
        if before.get(key) != now[key]
    ]
    old, new = before["config"], now["config"]
    changed += [f"{k}: {old.get(k)} -> {new[k]}" for k in new if k not in FREE and old.get(k) != new[k]]
    if changed:
        raise InputError(
            "cannot resume another run than that in the folder; it differs in " + "; ".join(changed)
        )


def last_checkpoint(folder: Path) -> Path | None:
    """Newest checkpoint that was written to its end, or None; a kill can leave one half written.

    >>> last_checkpoint(Path("no/such/folder")) is None
    True
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in reversed(found):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # the last file written
        except (OSError, ValueError):
            continue
        return path
    return None


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
    from accelerate import PartialState

    from .loading import precision

    state = PartialState()
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
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}} if wanted else {}


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
    loaded: Loaded,
    folder: Path,
    facts: dict[str, Any],
    checkpoint: Path | None,
    clock: Clock,
    held: Sequence[Rating],
) -> AlignmentResult:
    if checkpoint is not None:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        clock.spent = float(state["stateful_callbacks"]["Clock"]["attributes"]["spent"])
    with flushed_denormals(trainer.args.device.type == "cpu"):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = clock.seconds()
    evaluated = trainer.evaluate() if held else {}
    metrics = {name.removeprefix("eval_"): value for name, value in evaluated.items()}
    trainer.save_model(str(folder))
    steps = int(trainer.state.global_step)
    if _first_process():
        done = {**facts, "steps": steps, "seconds": round(seconds, 1), "metrics": metrics}
        (folder / RUN_FILE).write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    return AlignmentResult(folder, steps, seconds, metrics, list(trainer.state.log_history))
