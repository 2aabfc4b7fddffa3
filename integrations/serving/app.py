"""The HTTP of a service: its pages, and what each answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ..._version import __version__
from .bodies import Ask, GenerateIn, ScoreIn, check_prompts, decode, multipart_schema, parsed, read_files, refusal
from .gate import Gate, again_in
from .limits import Limits
from .metrics import Metrics

BEARER = [Depends(HTTPBearer(auto_error=False))]
"""For the page of the interface; the gate checks the token."""
logger = logging.getLogger("cogguided")


class Full(Exception):
    """The one who works has no room."""


@dataclass(frozen=True)
class Scored:
    """What one request's images got.

    Attributes:
        scores: for each image, by term, value, std, label, mass and error, None where there is none.
        images: how many were scored in the same pass.
    """

    scores: list[dict[str, dict[str, Any]]]
    images: int


@dataclass(frozen=True)
class Drawn:
    """What one request got: for each image its PNG in base64, prompt, seed and scores; or why there is none."""

    images: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None


Score = Callable[[Ask], Awaitable[Scored]]
Draw = Callable[[GenerateIn], Awaitable[Drawn]]
Terms = Callable[[], Awaitable[list[dict[str, Any]]]]


def build_app(
    score: Score, draw: Draw | None, terms: Terms, limits: Limits, token: bytes, urls: bool = False
) -> Gate:
    """Return a service as an ASGI app.

    Args:
        score: scores the images of one request.
        draw: draws the images of one request; None: there is no generator.
        terms: returns name, low, high and needs_prompt of each score.
        limits: of requests and of the queue.
        token: its digest.
        urls: whether images are fetched from URLs.

    Executed in ``tests/integrations/test_serving.py``.
    """
    metrics = Metrics()
    app = FastAPI(title="cogguided", version=__version__, summary="What images are worth to people.", redoc_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether it answers; needs no token."""
        return {"status": "ok"}

    @app.get("/about", dependencies=BEARER)
    async def about() -> dict[str, Any]:
        """What it scores, whether it draws, and its limits."""
        return {
            "version": __version__, "terms": await terms(), "generates": draw is not None, "urls": urls,
            "limits": asdict(limits),
        }  # fmt: skip

    @app.get("/metrics", dependencies=BEARER, response_class=PlainTextResponse)
    async def numbers() -> str:
        """Counters, in Prometheus' format."""
        return metrics.text()

    _add_work(app, score, draw, terms, limits, urls, metrics)
    _answer_errors(app, metrics)
    return Gate(app, limits, token, metrics)


def _add_work(
    app: FastAPI, score: Score, draw: Draw | None, terms: Terms, limits: Limits, urls: bool, metrics: Metrics
) -> None:
    room = Room(limits.inside_pixels)
    upload = {"multipart/form-data": {"schema": multipart_schema()}}

    @app.post("/score", dependencies=BEARER, openapi_extra=body_of(ScoreIn, **upload))
    async def score_images(request: Request) -> dict[str, Any]:
        """Score images, sent as an upload, in base64, or (if the service allows it) by URL."""
        needed = any(term["needs_prompt"] for term in await terms())
        files = await read_files(request, limits, urls, needed)
        with room.taken(files.pixels):
            scored = await within(limits, score(await decode(files, limits)))
        metrics.images.labels("/score").inc(len(files.data))
        metrics.passes.observe(scored.images)
        return {"scores": scored.scores}

    @app.post("/generate", dependencies=BEARER, openapi_extra=body_of(GenerateIn))
    async def generate(request: Request) -> dict[str, Any]:
        """Draw candidates of a prompt, and return the best by the service's target, as PNG in base64."""
        if draw is None:
            raise HTTPException(404, "this service has no generator")
        wish = checked(parsed(GenerateIn, await request.body()), limits)
        drawn = await within(limits, draw(wish))
        if drawn.reason is not None:
            raise refusal(drawn.reason)
        metrics.images.labels("/generate").inc(wish.n)
        return {"images": drawn.images}


class Room:
    """How many decoded pixels are inside.

    >>> room = Room(10)
    >>> with room.taken(6):
    ...     room.left
    4
    """

    def __init__(self, most: int) -> None:
        self.left = most

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Take some, while inside.

        Raises:
            Full: there are not as many.
        """
        if pixels > self.left:
            raise Full
        self.left -= pixels
        try:
            yield
        finally:
            self.left += pixels


def body_of(kind: type[BaseModel], **others: Any) -> dict[str, Any]:
    """Return the OpenAPI description of a body that a route reads by itself.

    >>> list(body_of(GenerateIn)["requestBody"]["content"])
    ['application/json']
    """
    schema = kind.model_json_schema()
    inner = schema.pop("$defs", {})
    if "images" in schema.get("properties", {}):
        schema["properties"]["images"]["items"] = inner["ImageIn"]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}, **others}}}


def checked(wish: GenerateIn, limits: Limits) -> GenerateIn:
    """Return what is to be drawn, if it is within bounds.

    Raises:
        HTTPException: 422 with the reason.

    >>> checked(GenerateIn(prompt="a cat"), Limits()).n
    4
    """
    check_prompts([wish.prompt], 1, limits, needed=True)
    if wish.n > limits.candidates or wish.keep > wish.n:
        raise refusal(f"n must be at most {limits.candidates}, keep at most n")
    if (wish.num_inference_steps or 0) > limits.steps:
        raise refusal(f"num_inference_steps must be at most {limits.steps}")
    if (wish.width is None) != (wish.height is None):
        raise refusal("give width and height, or neither")
    if (wish.width or 0) * (wish.height or 0) > limits.pixels:
        raise refusal(f"{wish.width}x{wish.height} is more than {limits.pixels} pixels")
    return wish


async def within(limits: Limits, work: Awaitable[Any]) -> Any:
    """Wait for work, at most as long as a request may take.

    Raises:
        HTTPException: 504.

    >>> asyncio.run(within(Limits(), asyncio.sleep(0, 7)))
    7
    """
    try:
        return await asyncio.wait_for(work, limits.seconds)
    except asyncio.TimeoutError:
        raise HTTPException(504, f"it took more than {limits.seconds:g} seconds") from None


def _answer_errors(app: FastAPI, metrics: Metrics) -> None:
    """Make every error an answer of one form, in which nothing of the machine is."""

    @app.exception_handler(HTTPException)
    async def told(request: Request, error: HTTPException) -> JSONResponse:
        said: Any = error.detail  # of ours a list, of Starlette's a text
        detail = said if isinstance(said, list) else [{"reason": said}]
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    @app.exception_handler(Full)
    async def full(request: Request, error: Full) -> JSONResponse:
        metrics.refused.inc()
        after = {"Retry-After": str(again_in(metrics.lately))}
        return JSONResponse({"detail": [{"reason": "the queue is full: come again"}]}, 503, after)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s failed", request.url.path, exc_info=error)
        return JSONResponse({"detail": [{"reason": "it failed here; the service's log says why"}]}, 500)
