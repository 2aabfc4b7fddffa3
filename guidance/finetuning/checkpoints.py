"""The folder of a run: what it is a run of, and from where it can go on after a kill at any moment."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..._errors import InputError, RecordError
from ..._version import __version__
from .config import FREE, FinetuneConfig
from .panel import Evaluation

RUN_FILE = "finetuning.json"
CHECKPOINTS = "checkpoints"
CHOSEN = f"{CHECKPOINTS}/saved.safetensors"
"""The adapter that was saved as the best, in this package's own names."""


@dataclass
class State:
    """Where a run stands after a whole round.

    Attributes:
        round: rounds done.
        step: optimiser steps taken.
        seconds: spent.
        unread: images without a score so far, left out of training.
        history: one row per round: "round", "seconds", "loss", "score", "unread", "images", "grad_norm".
        evaluations: on the held-out prompts.
        saved: the round whose adapter is in the folder itself.
        stopped: why the run is over; None while it is not.
        alarm: the member of the panel that fell, if one did.
        first_loss: mean loss of the first round, to tell when it explodes.
    """

    round: int = 0
    step: int = 0
    seconds: float = 0.0
    unread: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    saved: int | None = None
    stopped: str | None = None
    alarm: str | None = None
    first_loss: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "evaluations": [e.to_dict() for e in self.evaluations]}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> State:
        """Read plain values back."""
        return cls(**{**facts, "evaluations": [Evaluation.from_dict(e) for e in facts["evaluations"]]})


def describe(
    model: str,
    target: str,
    prompts: list[str],
    evaluation: list[str],
    config: FinetuneConfig,
    anchors: Sequence[str] = (),
) -> dict[str, Any]:
    """What makes a run the same run, as its folder tells it."""
    return {
        "cogguided": __version__, "model": model, "target": target, "prompts": prompts, "evaluation": evaluation,
        "anchors": [*anchors], "config": config.to_dict(),
    }  # fmt: skip


def check_same(folder: Path, facts: Mapping[str, Any]) -> None:
    """Check that the run in a folder is the one to go on with.

    Raises:
        InputError: it is another one.
        RecordError: what the folder says of its run cannot be read.

    >>> check_same(Path("no/such/folder"), {})
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: no/such/folder/finetuning.json: cannot be read ([Errno 2] No such file or ...
    """
    before = read_json(folder / RUN_FILE)
    same = ("model", "target", "prompts", "evaluation", "anchors")
    changed = [key for key in same if before.get(key) != facts[key]]
    old, new = before.get("config", {}), facts["config"]
    changed += [f"{k} ({old.get(k)} -> {new[k]})" for k in new if k not in FREE and old.get(k) != new[k]]
    if changed:
        raise InputError(f"cannot resume another run than that in {folder}; it differs in {', '.join(changed)}")


def begin_folder(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write down what a new run is; what an earlier one left is dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    shutil.rmtree(folder / "evaluations", ignore_errors=True)
    write_json(folder / RUN_FILE, facts)


def write_json(file: Path, content: Any) -> None:
    """Write a file whole or not at all; NaN becomes null."""
    from ...scorers.benchmark.folder import write_json as write

    write(file, content)


def read_json(file: Path) -> dict[str, Any]:
    """Read an object.

    Raises:
        RecordError: it cannot be read, or is no object.

    >>> read_json(Path("none.json"))
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: none.json: cannot be read ([Errno 2] No such file or directory: 'none.json')
    """
    try:
        facts = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{file}: cannot be read ({error})") from error
    if not isinstance(facts, dict):
        raise RecordError(f"{file}: expected an object")
    return facts


def save_checkpoint(folder: Path, state: State, tensors: Mapping[str, Mapping[str, Tensor]], keep: int) -> None:
    """Write a checkpoint under its final name only once it is whole, then drop the oldest ones.

    Raises:
        OSError: the disk is full; the checkpoints before are left alone.
    """
    home = folder / CHECKPOINTS
    final, half = home / f"round-{state.round:05d}", home / f".round-{state.round:05d}.tmp"
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        for name, of in tensors.items():
            save_file({n: t.detach().cpu().contiguous() for n, t in of.items()}, half / f"{name}.safetensors")
        write_json(half / "state.json", state.to_dict())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(half, ignore_errors=True)
        raise OSError(f"{final} cannot be written ({error}); earlier checkpoints are kept") from error
    shutil.rmtree(final, ignore_errors=True)
    os.replace(half, final)
    for old in sorted(home.glob("round-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary)
    os.replace(temporary, file)


def load_checkpoint(folder: Path) -> tuple[State, dict[str, dict[str, Tensor]]] | None:
    """Read the newest checkpoint, or None where there is none.

    Raises:
        RecordError: it cannot be read.
    """
    for path in sorted((folder / CHECKPOINTS).glob("round-*"), reverse=True):
        try:
            state = State.from_dict(read_json(path / "state.json"))
            return state, {file.stem: load_file(file) for file in path.glob("*.safetensors")}
        except (SafetensorError, TypeError, KeyError, OSError) as error:
            raise RecordError(f"{path}: cannot be read ({error}); delete it to go on from the one before") from error
    return None


def read_state(folder: Path) -> State | None:
    """Read where a run stands, without its tensors; None where it has no checkpoint.

    Raises:
        RecordError: it cannot be read.

    >>> read_state(Path("no/such/folder")) is None
    True
    """
    newest = max((folder / CHECKPOINTS).glob("round-*"), default=None)
    if newest is None:
        return None
    try:
        return State.from_dict(read_json(newest / "state.json"))
    except (TypeError, KeyError) as error:
        raise RecordError(f"{newest}/state.json: cannot be read ({error})") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return the state of an optimiser as tensors by parameter name."""
    state = optimizer.state_dict()["state"]
    return {f"{names[i]}/{key}": torch.as_tensor(v).clone() for i, of in state.items() for key, v in of.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Put a state back."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("/")
        state.setdefault(names.index(parameter), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
