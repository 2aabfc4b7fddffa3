"""The folder of a run: what it is a run of, and from where it can go on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..._errors import CogGuidedError, InputError, RecordError
from ..._version import __version__
from ..benchmark.folder import write_text
from ..dimensions import DIMENSIONS
from ..ratings.reading import Rating
from .config import OF_ADAPTER, AlignmentConfig
from .processes import joined

RUN_FILE = "alignment.json"
FREE = ("micro_batch", "keep", "log_every", "workers", "report_to", "minutes", "gradient_checkpointing")
"""Settings that a resumed run may change."""


def describe(
    model: object,
    adapter: object,
    config: AlignmentConfig,
    ratings: Sequence[Rating],
    stds: Sequence[float],
    held: Sequence[Rating],
) -> dict[str, Any]:
    """What makes a run the same run, as its folder tells it.

    >>> describe("embedded", None, AlignmentConfig(), [], [], [])["model"]
    'embedded'
    """
    told = "\n".join(f"{r.key} {r.dimension} {r.score!r} {s!r}" for r, s in zip(ratings, stds, strict=True))
    counts = {name: sum(r.dimension == name for r in ratings) for name in DIMENSIONS}
    return {
        "cogguided": __version__,
        "model": str(model),
        "adapter": None if adapter is None else str(adapter),
        "from_adapter": adapter is not None or is_adapter(str(model)),
        "config": config.to_dict(),
        "ratings": {name: count for name, count in counts.items() if count},
        "held_out": len(held),
        "data": hashlib.sha256(os.fsencode(told)).hexdigest(),
    }


def is_adapter(model: str) -> bool:
    """Whether a folder or hub repository is an adapter, which names its base.

    >>> is_adapter("embedded")
    False
    """
    if "/" not in model and not Path(model).is_dir():
        return False
    from ..mllm.checkpoints import ADAPTER_FILE, hub_file

    return hub_file(model, ADAPTER_FILE) is not None


def open_run(folder: Path, facts: dict[str, Any], resume: bool, overwrite: bool) -> Path | None:
    """Check the folder of a run, or find the last whole checkpoint in it; the first process decides for all.

    Nothing is written: `claim_folder` does that. A run to be resumed that has no checkpoint is warned about.

    Raises:
        InputError: the folder is in use and neither is asked for; or a resumed run is another one.
        RecordError: what the folder says of its run cannot be read.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    from accelerate.utils import broadcast_object_list

    told: list[CogGuidedError | Path | None] = [None]
    if joined().is_main_process:
        try:
            told = [_open(folder, facts, resume, overwrite)]
        except CogGuidedError as error:
            told = [error]
    found: CogGuidedError | Path | None = broadcast_object_list(told)[0]
    if isinstance(found, CogGuidedError):
        raise found
    return found


def claim_folder(folder: Path, facts: dict[str, Any], fresh: bool) -> None:
    """Write down what the run is; one that is `fresh` drops the checkpoints of an earlier one.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    state = joined()
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("checkpoint-*") if fresh else ():
            shutil.rmtree(old)
        write_run(folder, facts)
    state.wait_for_everyone()


def _open(folder: Path, facts: dict[str, Any], resume: bool, overwrite: bool) -> Path | None:
    before = folder / RUN_FILE
    if resume:
        if not before.is_file():
            raise InputError(f"{folder}: nothing to resume, no {RUN_FILE} there")
        told = read_run(folder)
        _check_same(told, facts)
        checkpoint = last_checkpoint(folder)
        if checkpoint is None and "steps" not in told:
            warnings.warn(f"{folder}: no checkpoint there yet, so the run starts anew", stacklevel=4)
        return checkpoint
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise InputError(
            f"{folder} is not empty: resume (--resume), overwrite (--overwrite), or take another folder"
        )
    return None


def read_run(folder: Path) -> dict[str, Any]:
    """Read what `write_run` wrote: with "steps", "seconds" and "metrics" if training came to its end.

    Raises:
        RecordError: there is no such file, or it is torn or of another kind.

    >>> read_run(Path("no/such/folder"))
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: no/such/folder/alignment.json: cannot be read (No such file or directory)
    """
    file = folder / RUN_FILE
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RecordError(
            f"{file}: is not JSON ({error}), so the run cannot be resumed: begin it again with --overwrite"
        ) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("config"), dict):
        raise RecordError(f"{file}: not the record of an alignment run, expected an object with 'config'")
    return facts


def write_run(folder: Path, facts: dict[str, Any]) -> None:
    """Write what a run is, and what came of it, into its folder; whole or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_run(Path(folder), {"model": "embedded"})
    ...     print((Path(folder) / RUN_FILE).read_text().strip())
    {
     "model": "embedded"
    }
    """
    write_text(folder / RUN_FILE, json.dumps(facts, indent=1) + "\n")


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [
        f"{key}: {before.get(key)} -> {now[key]}"
        for key in ("model", "adapter", "data")
        if before.get(key) != now[key]
    ]
    old, new = before["config"], now["config"]
    free = (*FREE, *(OF_ADAPTER if now["from_adapter"] else ()))  # what an adapter has is checked against it
    changed += [f"{k}: {old.get(k)} -> {new[k]}" for k in new if k not in free and old.get(k) != new[k]]
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
