"""How much a service takes at once, and from one request."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..._errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds of a service; what exceeds one is refused with the reason.

    Attributes:
        body: bytes of a request.
        pixels: of an image, sent or asked for; a request may have 4 times as many, all requests inside 16 times.
        images: of a request.
        prompt: characters of a text.
        queue: requests that are worked on or wait; one more is answered 503.
        batch: images that are scored in one pass; 1: each request by itself.
        wait: seconds that a pass waits for more images.
        seconds: of a request, from its arrival.
        candidates: of a prompt that is drawn.
        steps: of denoising.

    Raises:
        InputError: one of them is not above 0 (`wait`: below 0).

    >>> Limits(queue=0)
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: limits: queue must be above 0, got 0
    """

    body: int = 32 * 2**20
    pixels: int = 2**24
    images: int = 64
    prompt: int = 2_000
    queue: int = 64
    batch: int = 64
    wait: float = 0.01
    seconds: float = 300.0
    candidates: int = 16
    steps: int = 100

    @property
    def request_pixels(self) -> int:
        """Pixels of all images of a request."""
        return 4 * self.pixels

    @property
    def inside_pixels(self) -> int:
        """Pixels of all images of all requests that are worked on or wait: what is decoded takes 3 bytes each."""
        return 16 * self.pixels

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name != "wait"):
                raise InputError(f"limits: {field.name} must be above 0, got {value}")
