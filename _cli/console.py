"""What every command of `cogguided` shares: the two consoles, and errors told in one line."""

from __future__ import annotations

import functools
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from .._claiming import claim
from .._errors import CogGuidedError
from .._texts import cell as cell
from .._texts import visible as visible

PIPE_WIDTH = 4096
F = TypeVar("F", bound=Callable[..., Any])


class PlainConsole(Console):
    """A console to which a text is a text: no markup, no emoji codes, no escape sequences.

    Prompts, file names and errors go through it as they are. What is to be coloured is a `Text`, or has `style=`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    @property
    def size(self) -> ConsoleDimensions:
        """How much room there is: in a pipe or a file, as much as a table wants."""
        return super().size if self.is_terminal else ConsoleDimensions(PIPE_WIDTH, 25)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        Console.size.fset(self, new_size)  # type: ignore[attr-defined]

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a plain text, of a print or a table's cell."""
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False})

    def print_json(self, json: str | None = None, *, data: Any = None, **options: Any) -> None:
        """Print JSON that is always text: bytes of a file name that are no UTF-8 are escaped."""
        options.setdefault("ensure_ascii", not is_text(data if json is None else json))
        super().print_json(json, data=data, **options)


def is_text(data: Any) -> bool:
    """Whether every string in plain data can be written as UTF-8.

    >>> is_text({"file": "café.png"}), is_text({"file": "caf\\udce9.png"})
    (True, False)
    """
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


out, err = PlainConsole(), PlainConsole(stderr=True)


HELD: list[Callable[[], None]] = []
"""What gives up the folders that the running command has claimed."""


def hold(folder: Path) -> None:
    """Claim a folder until the command ends (see `_claiming.claim`)."""
    HELD.append(claim(folder))


class Debug:
    """Whether errors are shown with their traceback (`cogguided --debug`)."""

    on = False


INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM; what was made is kept."""


@contextmanager
def stopped_like_ctrl_c() -> Iterator[list[int]]:
    """Make SIGTERM end a command as Ctrl-C does; gives a list that it is noted in."""
    noted: list[int] = []

    def stop(number: int, frame: Any) -> None:
        noted.append(number)
        raise KeyboardInterrupt("terminated")

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before)


def friendly(command: F) -> F:
    """Turn a deliberate error into one red line and exit code 1, Ctrl-C into 130, SIGTERM into 143."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        with stopped_like_ctrl_c() as noted:
            try:
                return told(*args, **kwargs)
            except typer.Exit as ended:
                if noted and ended.exit_code == INTERRUPTED:
                    raise typer.Exit(TERMINATED) from None
                raise

    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            err.print("interrupted: nothing was made", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except (CogGuidedError, OSError) as error:
            if Debug.on:
                raise
            told = Text.assemble(("error:", "bold red"), " ", visible(str(error)))
            err.print(told, soft_wrap=True, highlight=False)
            raise typer.Exit(1) from None
        finally:
            while HELD:
                HELD.pop()()

    return run  # type: ignore[return-value]
