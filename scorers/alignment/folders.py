"""The folder of a run: what it is a run of, and from where it can go on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ..._errors import InputError
from ..benchmark.data import Rating
from ..dimensions import DIMENSIONS
from .config import AlignmentConfig

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
        "config": config.to_dict(),
        "ratings": {name: count for name, count in counts.items() if count},
        "held_out": len(held),
        "data": hashlib.sha256(told.encode()).hexdigest(),
    }


def open_folder(folder: Path, facts: dict[str, Any], resume: bool, overwrite: bool) -> Path | None:
    """Make the folder of a run, or find the last whole checkpoint in it; the first process decides for all.

    Raises:
        InputError: the folder is in use and neither is asked for; or a resumed run is another one.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    told: list[str | Path | None] = [None]
    if PartialState().is_main_process:
        try:
            told = [_open(folder, facts, resume, overwrite)]
        except InputError as error:
            told = [str(error)]
    found: str | Path | None = broadcast_object_list(told)[0]
    if isinstance(found, str):
        raise InputError(found)
    return found


def _open(folder: Path, facts: dict[str, Any], resume: bool, overwrite: bool) -> Path | None:
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
    for old in folder.glob("checkpoint-*"):
        shutil.rmtree(old)
    write_run(folder, facts)
    return None


def finished(folder: Path) -> dict[str, Any] | None:
    """What came of the run in a folder, or None if it has not come to its end.

    >>> finished(Path("no/such/folder")) is None
    True
    """
    try:
        facts: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if "steps" in facts else None


def write_run(folder: Path, facts: dict[str, Any]) -> None:
    """Write what a run is, and what came of it, into its folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_run(Path(folder), {"model": "embedded"})
    ...     print((Path(folder) / RUN_FILE).read_text().strip())
    {
     "model": "embedded"
    }
    """
    (folder / RUN_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


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
