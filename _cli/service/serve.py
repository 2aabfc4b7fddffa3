"""`cogguided serve`: a judge, and guided generation, over HTTP."""

from __future__ import annotations

import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...integrations.serving.limits import Limits
from ...integrations.serving.tokens import digest, find_token
from ..console import err, friendly, out
from ..options import (
    GPUS,
    HIGH,
    LEVELS,
    LOW,
    READOUT,
    best_device,
    load_asked,
    read_dtype,
    read_question,
    silence_libraries,
)
from ..score import load_judge

if TYPE_CHECKING:
    from ...pipelines import CogGuidedPipeline

EPILOG = """[bold]Examples[/]

cogguided serve --scorer memorability

cogguided serve --scorer Qwen/Qwen2.5-VL-7B-Instruct --model embedded --port 8001 --token-file /run/secrets/token

curl -H "Authorization: Bearer $COGGUIDED_TOKEN" -F image=@a.jpg http://127.0.0.1:8000/score

cogguided generate "a face" --target memorability --scorer remote:http://127.0.0.1:8000"""
STANDARD = Limits()


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(epilog=EPILOG)(serve)


@friendly
def serve(
    scorer: Annotated[str | None, typer.Option(help="What scores: a name, folder or hub name.")] = None,
    dimension: Annotated[str | None, typer.Option(help="'all', or names with commas between; default: all.")] = None,
    readout: Annotated[str | None, READOUT] = None,
    question: Annotated[
        str | None, typer.Option(help="Ask an MLLM this, {} in place of a prompt; --dimension names the score.")
    ] = None,
    levels: Annotated[str | None, LEVELS] = None,
    low: Annotated[float | None, LOW] = None,
    high: Annotated[float | None, HIGH] = None,
    model: Annotated[str | None, typer.Option(help="Draws, too: 'embedded', a folder, or a hub name.")] = None,
    target: Annotated[
        str | None, typer.Option(help="What drawn images should have more of; default: the scorer's first score.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token, made if it is not there; else $COGGUIDED_TOKEN, else made once."),
    ] = None,
    allow_urls: Annotated[bool, typer.Option(help="Fetch images from public URLs.")] = False,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = STANDARD.body,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image.")] = STANDARD.pixels,
    max_images: Annotated[int, typer.Option(min=1, help="Of a request.")] = STANDARD.images,
    max_prompt: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = STANDARD.prompt,
    queue: Annotated[int, typer.Option(min=1, help="Requests inside; one more is answered 503.")] = STANDARD.queue,
    batch: Annotated[
        int, typer.Option(min=1, help="Images scored in one pass; 1: each request by itself.")
    ] = STANDARD.batch,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that a pass waits for more images.")] = STANDARD.wait,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds of a request.")] = STANDARD.seconds,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the first there is.")] = None,
    dtype: Annotated[str, typer.Option(help="Of --model: float32, bfloat16 or float16.")] = "float32",
    ray: Annotated[str, typer.Option(help="'local', 'auto', or a cluster's host:port.")] = "local",
    replicas: Annotated[int, typer.Option(min=1, help="Judges, each with the scorer loaded.")] = 1,
    gpus_per_worker: Annotated[float, GPUS] = 0,
) -> None:
    """Serve a judge over HTTP, on Ray Serve.

    POST /score and, with --model, /generate; GET /health, /about, /metrics, and /docs, the page of all of it.

    Images that arrive together are scored in one pass. Every request but /health and the page /docs bears the token
    (Authorization: Bearer TOKEN). Over a network, put TLS in front.
    """
    from ...integrations.ray import Workers
    from ...integrations.serving import start_service

    limits = Limits(
        body=max_body, pixels=max_pixels, images=max_images, prompt=max_prompt, queue=queue, batch=batch, wait=wait,
        seconds=timeout,
    )  # fmt: skip
    token, file, made = find_token(token_file)
    if made:
        err.print(f"a token was made, and kept in {file}:\n{token}", style="yellow", highlight=False, soft_wrap=True)
    else:
        source = "$COGGUIDED_TOKEN" if file is None else file
        err.print(f"the token is that of {source}", highlight=False, soft_wrap=True)
    silence_libraries()
    own = read_question(readout, question, levels, low, high)
    judge = partial(load_judge, scorer, dimension, device, **own)
    painter = None
    if model is not None:
        painter = partial(load_painter, model, target, scorer, dimension, dtype, device, **own)
    workers = Workers(ray, replicas, gpus_per_worker)
    options: dict[str, Any] = {"host": host, "port": port, "limits": limits, "urls": allow_urls, "workers": workers}
    service = start_service(judge, digest(token), painter, **options)
    try:
        names = ", ".join(term["name"] for term in service.terms)
        told = f"{names}: {service.url}, its page {service.url}/docs; Ctrl-C ends it"
        out.print(told, highlight=False, soft_wrap=True)
        wait_for_the_end()
    finally:
        service.close()
    err.print("ended", highlight=False)


def load_painter(
    model: str,
    target: str | None,
    scorer: str | None,
    dimension: str | None,
    dtype: str,
    device: str | None,
    **own: Any,
) -> CogGuidedPipeline:
    """Load the pipeline that draws, guided by the target, or by the first score of the judge."""
    from ...pipelines import CogGuidedPipeline
    from ...scorers import DIMENSIONS, load_scorer

    first = next(iter(DIMENSIONS)) if dimension in (None, "all") else (dimension or "").split(",")[0].strip()
    if own:
        loaded = load_asked(scorer or first, None if dimension is None else first, own)
    else:
        loaded = None if scorer is None else load_scorer(scorer)
    if target is None and loaded is not None and (dimension is None or "question" in own):
        target = loaded.name
    elif target is None:
        target = first
    pipe: CogGuidedPipeline = CogGuidedPipeline.from_pretrained(
        model, target=target, scorer=loaded, dtype=read_dtype(dtype)
    )
    pipe.to(best_device(device))
    return pipe


def wait_for_the_end() -> None:
    """Wait for Ctrl-C or SIGTERM, which are the regular end of a service."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not ended.wait(0.5):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
