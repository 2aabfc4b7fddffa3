"""What every command of `cogguided` shares: the two consoles, and errors told in one line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from ._errors import CogGuidedError

out, err = Console(), Console(stderr=True)
F = TypeVar("F", bound=Callable[..., Any])


class Debug:
    """Whether errors are shown with their traceback (`cogguided --debug`)."""

    on = False


def friendly(command: F) -> F:
    """Turn a deliberate error into one red line and exit code 1, Ctrl-C into 130."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            err.print("interrupted: nothing was made", style="yellow")
            raise typer.Exit(130) from None
        except (CogGuidedError, OSError) as error:
            if Debug.on:
                raise
            err.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
            raise typer.Exit(1) from None

    return run  # type: ignore[return-value]
