"""The app: every command by its own file.

Exit codes: 0 done, 1 an error (one line, in red), 2 wrong usage, 130 interrupted by Ctrl-C and 143 by SIGTERM (what
was made is kept).
"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from .._version import __version__
from . import align, bench, finetune, generate, info, replay, score, study, ui
from .console import Debug, out
from .service import serve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Steer any diffusers text-to-image pipeline by what its images make people feel.",
)


def show_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit()


@app.callback()
def options(
    show_debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    Debug.on = show_debug
    logging.basicConfig(format="note: %(message)s", level=logging.WARNING)


for command in (generate, score, ui, serve, replay, info, bench, align, finetune, study):
    command.register(app)


def main() -> None:
    """Run the command."""
    app(prog_name="cogguided")
