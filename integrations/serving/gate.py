"""The gate before a service: token, size of the body, and how many requests are inside."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from .limits import Limits
from .metrics import Metrics
from .tokens import is_right

OPEN = frozenset({"/health", "/docs", "/openapi.json", "/docs/oauth2-redirect"})
"""Paths that ask for no token: they say nothing of what the service has."""
WORK = frozenset({"/score", "/generate"})
"""Paths that count for the queue."""

logger = logging.getLogger("cogguided")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Gate:
    """An ASGI app before another: what it refuses, the other never sees, and its body is not read.

    Args:
        app: the other.
        limits: of bodies and of the queue.
        expected: digest of the token.
        metrics: told of each request.
    """

    def __init__(self, app: Any, limits: Limits, expected: bytes, metrics: Metrics) -> None:
        self.app, self.limits, self.expected, self.metrics = app, limits, expected, metrics
        self.inside = 0
        self._too_large = f"the body has more than {limits.body} bytes"

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = str(scope["path"])
        known = path if path in OPEN | WORK | {"/about", "/metrics"} else "other"
        with self.metrics.request(known) as told:
            await self._answer(path, scope, receive, told.of(send))

    async def _answer(self, path: str, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if path not in OPEN and not is_right(headers.get(b"authorization"), self.expected):
            wanted = [(b"www-authenticate", b"Bearer")]
            await refuse(send, 401, "a token is wanted: Authorization: Bearer TOKEN", wanted)
            return
        try:
            length = int(headers.get(b"content-length", b"0"))
        except ValueError:
            length = 0
        if length > self.limits.body:
            await refuse(send, 413, self._too_large)
            return
        if path not in WORK:
            await self.app(scope, self._counted(receive), send)
            return
        if self.inside >= self.limits.queue:
            self.metrics.refused.inc()
            await busy(send, self.metrics.lately)
            return
        self.inside += 1
        self.metrics.inside.set(self.inside)
        try:
            await self.app(scope, self._counted(receive), send)
        except Exception:  # answered and told already (see `app.failed`)
            logger.debug("%s failed", path, exc_info=True)
        finally:
            self.inside -= 1
            self.metrics.inside.set(self.inside)

    def _counted(self, receive: Receive) -> Receive:
        had, whole = 0, False
        end = asyncio.get_running_loop().time() + self.limits.seconds

        async def counted() -> Message:
            nonlocal had, whole
            left = None if whole else max(0.0, end - asyncio.get_running_loop().time())
            try:
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError:
                raise HTTPException(408, "the body did not come in time") from None
            whole = not message.get("more_body", False)
            had += len(message.get("body", b""))
            if had > self.limits.body:
                raise HTTPException(413, self._too_large)
            return message

        return counted


async def refuse(send: Send, status: int, reason: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer without looking further."""
    body = json.dumps({"detail": [{"reason": reason}]}).encode()
    kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": kind + (headers or [])})
    await send({"type": "http.response.body", "body": body})


async def busy(send: Send, seconds: float) -> None:
    """Answer that there is no room, and when to come again."""
    await refuse(send, 503, "the queue is full: come again", [(b"retry-after", str(again_in(seconds)).encode())])


def again_in(seconds: float) -> int:
    """Return whole seconds, 1 to 60, to wait for.

    >>> again_in(0.2), again_in(2.5), again_in(1e9)
    (1, 3, 60)
    """
    return min(60, max(1, math.ceil(seconds)))
