"""What a service has done, in Prometheus' format."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one service.

    Attributes:
        lately: seconds of a request that was worked on, a running mean.

    >>> metrics = Metrics()
    >>> metrics.passes.observe(3)
    >>> 'cogguided_images_per_pass_count 1.0' in metrics.text()
    True
    """

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("cogguided_requests", "Requests answered.", ["path", "status"], registry=own)
        self.seconds = Histogram("cogguided_request_seconds", "From arrival to answer.", ["path"], registry=own)
        self.refused = Counter("cogguided_refused", "Requests refused since the queue was full.", registry=own)
        self.inside = Gauge("cogguided_inside", "Requests worked on or waiting.", registry=own)
        self.images = Counter("cogguided_images", "Images scored or drawn.", ["path"], registry=own)
        self.passes = Histogram("cogguided_images_per_pass", "Images scored together.", buckets=SIZES, registry=own)
        self.lately = 1.0

    @contextmanager
    def request(self, path: str) -> Iterator[Told]:
        """Count a request, and its time."""
        told, started = Told(), time.monotonic()
        try:
            yield told
        finally:
            taken = time.monotonic() - started
            self.requests.labels(path, str(told.status)).inc()
            self.seconds.labels(path).observe(taken)
            if told.status == 200 and path in ("/score", "/generate"):
                self.lately += 0.1 * (taken - self.lately)

    def text(self) -> str:
        """Return all of it."""
        return generate_latest(self.registry).decode()


class Told:
    """The status that a request was answered with."""

    status = 500

    def of(self, send: Send) -> Send:
        """Return what sends messages and takes note of their status."""

        async def noted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            await send(message)

        return noted
