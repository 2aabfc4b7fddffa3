"""`cogguided ui`: a page to work in, in the browser."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from .console import err, friendly, out
from .options import best_device, read_dtype, silence_libraries

EPILOG = """[bold]Examples[/]

cogguided ui

cogguided ui --model embedded --model stabilityai/stable-diffusion-xl-base-1.0 --device cuda --dtype float16

cogguided ui --model Qwen/Qwen-Image --aligned runs/aligned-7b --scorer runs/aligned-7b --device cuda --dtype bfloat16

cogguided ui --host 0.0.0.0 --auth anna:secret --out out/shared

[bold]From another machine[/]: keep 127.0.0.1 and use ssh -L 7860:127.0.0.1:7860 HOST, or --host with --auth.
The page can load the models named here and no others, reads and shows files of --out alone, and asks no other
host for anything."""


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(epilog=EPILOG)(ui)


@friendly
def ui(
    model: Annotated[
        list[str] | None,
        typer.Option(help="'embedded', a folder, or a hub name; repeatable, the first is chosen at the start."),
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="Scores the targets: a name, folder or hub name.")] = None,
    aligned: Annotated[
        list[str] | None,
        typer.Option(help="Model to compare in the text encoder's place: checkpoint or adapter; repeatable."),
    ] = None,
    out_dir: Annotated[
        Path, typer.Option("--out", help="Folder for what is made, and the one whose runs are shown.")
    ] = Path("out"),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; default: the first free one from 7860.")
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(help="name:password, several with commas between; default: none.", show_default=False),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the first there is.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
) -> None:
    """Open a page to work in: make images and see why one won, compare blindly, score files, look at runs.

    It runs until Ctrl-C. Needs Gradio: pip install "cogguided[ui]".
    """
    from ..ui.app import read_auth, served
    from ..ui.models import Models

    people = None if auth is None else read_auth(auth)
    silence_libraries()
    read_dtype(dtype)
    models = Models(model or ["embedded"], scorer, aligned or (), str(best_device(device)), dtype)
    with served(models, out_dir, host, port, people) as address:
        told = f"cogguided ui: {address}  (Ctrl-C ends it; files go to {out_dir})"
        out.print(told, highlight=False, soft_wrap=True)
        if people is None and host not in ("127.0.0.1", "localhost", "::1"):
            err.print("whoever reaches this address may use the page: --auth name:password asks them", style="yellow")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            out.print("ended", highlight=False)
