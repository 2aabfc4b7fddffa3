"""One run a folder: a second one is told at its start, not when its work is done."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from ._errors import RecordError

WRITES_ITSELF_IN = 1.0
"""Seconds that an empty claim is given before it counts as that of a process killed in between."""


def lock_file(folder: Path) -> Path:
    """Return the file that says who works in a folder: beside it, as runs want theirs empty.

    >>> lock_file(Path("out/faces")).name
    '.faces.cogguided-lock'
    """
    folder = Path(os.path.abspath(folder))
    return folder.with_name(f".{folder.name}.cogguided-lock")


def claim(folder: Path) -> Callable[[], None]:
    """Claim a folder for this process, and return what gives it up again.

    A claim of a process that is no more, on this machine, is taken over. Of the processes of one distributed run the
    first alone claims.

    Raises:
        RecordError: another process works there, here or on another machine.

    An executed example is in ``tests/test_claiming.py``.
    """
    file = lock_file(folder)
    if os.environ.get("RANK", "0") != "0":
        return lambda: None
    told = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write {file}: {error.strerror or error}") from error
    for _ in range(2):
        try:
            _write(file, json.dumps(told))
        except FileExistsError:
            _check_stale(folder, file)
            file.unlink(missing_ok=True)
        except OSError as error:
            raise RecordError(f"cannot write {file}: {error.strerror or error}") from error
        else:
            return lambda: file.unlink(missing_ok=True)
    raise RecordError(f"{folder}: another run claims it at this moment; choose another folder")


def _write(file: Path, text: str) -> None:
    """Write a file that is not there yet, or leave none."""
    with file.open("x", encoding="utf-8") as opened:
        try:
            opened.write(text)
            opened.flush()
        except OSError:
            file.unlink(missing_ok=True)
            raise


def _check_stale(folder: Path, file: Path) -> None:
    """Return if a claim's process is no more, or is this one; raise if it may be at work."""
    try:
        text = file.read_text("utf-8")
        if not text:  # its owner writes itself in at once, unless it was killed just there
            time.sleep(WRITES_ITSELF_IN)
            text = file.read_text("utf-8")
            if not text:
                return
        owner = json.loads(text)
        process, host = int(owner["process"]), str(owner["host"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        process, host, owner = 0, "?", {}
    if host == socket.gethostname() and (process == os.getpid() or not _runs(process)):
        return
    raise RecordError(
        f"{folder} is in use by process {process} on {host}, since {owner.get('since', 'some time')}: wait, or "
        f"choose another folder; if that run is no more, remove {file}"
    )


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def free_name(folder: Path) -> Path:
    """Return a folder that is not there yet, named after another.

    >>> free_name(Path("/no/such/faces"))
    PosixPath('/no/such/faces-2')
    """
    number = 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    return folder.with_name(f"{folder.name}-{number}")
