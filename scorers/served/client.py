"""Ask an OpenAI-compatible server: retries, time limits, a cache, and a key that stays in its variable."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from ..._errors import CogGuidedError, InputError, missing_extra

MAX_WAIT = 30.0  # seconds before another request, whatever the server asks for
MAX_BYTES = 4_000_000  # of an answer
CACHED = 16_384  # answers


class ServerError(CogGuidedError, RuntimeError):
    """A server gave no answer that can be used; the message says which and why, and holds no key."""


class _Again(ServerError):
    """A failure that may pass; `after` is how many seconds the server asks to wait."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


def is_address(text: object) -> bool:
    """Whether a scorer is named by a server's address.

    >>> is_address("http://localhost:8000#qwen"), is_address("Qwen/Qwen3-VL-8B-Instruct")
    (True, False)
    """
    return isinstance(text, str) and text.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Server:
    """Where a model is served, and how patiently it is asked.

    Args:
        address: ``http://host:8000#model`` or with a path, ``https://host/v1#model``; the model's name on that server
            stands behind the ``#``.
        timeout: seconds that one request may take in all.
        retries: further requests after 429, 5xx, a broken connection or a time-out.
        backoff: seconds before the first of these, doubled each time; a server's Retry-After goes first.
        concurrency: requests at once.
        key_variable: environment variable that holds the key, read at each request and kept nowhere.

    Raises:
        InputError: another kind of address, or a number out of range.
        MissingExtraError: the extra "remote" is not installed.

    >>> Server("http://localhost:8000#qwen").url
    'http://localhost:8000/v1/chat/completions'
    """

    address: str
    timeout: float = 60.0
    retries: int = 3
    backoff: float = 0.5
    concurrency: int = 8
    key_variable: str = "OPENAI_API_KEY"
    _cache: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        for package in ("httpx2", "tenacity"):
            if find_spec(package) is None:
                raise missing_extra(package, "remote")
        parts = urlsplit(self.address)
        if not is_address(self.address) or not parts.hostname or not parts.fragment:
            raise InputError(f"server: expected 'http://host:8000#model', got {self.address!r}")
        if parts.username or parts.password or parts.query:
            raise InputError(f"server: the address must hold no password and no query; set {self.key_variable}")
        if not (self.timeout > 0 and self.retries >= 0 and self.backoff >= 0 and self.concurrency > 0):
            raise InputError(
                "server: expected timeout > 0, retries >= 0, backoff >= 0 and concurrency > 0, got "
                f"{self.timeout}, {self.retries}, {self.backoff} and {self.concurrency}"
            )

    @property
    def model(self) -> str:
        """The model's name on the server."""
        return urlsplit(self.address).fragment

    @property
    def url(self) -> str:
        """Where questions go."""
        parts = urlsplit(self.address)
        path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
        return f"{parts.scheme}://{parts.netloc}{path}/chat/completions"

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the first choice of an answer; one that came before is not asked for again.

        Raises:
            ServerError: no usable answer, after all retries.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

        sent = json.dumps({"model": self.model, **body}, sort_keys=True).encode()
        key = hashlib.sha256(self.url.encode() + sent).hexdigest()
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        attempts = Retrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=self._wait,
            retry=retry_if_exception_type(_Again),
            reraise=True,
        )
        choice: dict[str, Any] = attempts(self._choice, sent)
        with self._lock:
            self._cache[key] = choice
            while len(self._cache) > CACHED:
                self._cache.popitem(last=False)
        return choice

    def _wait(self, state: Any) -> float:
        error = state.outcome.exception()
        asked = error.after if isinstance(error, _Again) else None
        return min(MAX_WAIT, self.backoff * 2 ** (state.attempt_number - 1) if asked is None else asked)

    def _choice(self, sent: bytes) -> dict[str, Any]:
        reply = self._post(sent)
        try:
            choice = json.loads(reply)["choices"][0]
            if not isinstance(choice["message"], dict):
                raise TypeError("no message")
        except (ValueError, LookupError, TypeError) as error:
            shown = self._without_key(reply[:200].decode(errors="replace"))
            raise ServerError(f"{self.url}: expected an answer of chat completions, got {shown!r}") from error
        found: dict[str, Any] = choice
        return found

    def _post(self, sent: bytes) -> bytes:
        import httpx2

        headers = {"Content-Type": "application/json"}
        secret = os.environ.get(self.key_variable)
        if secret:
            headers["Authorization"] = f"Bearer {secret}"
        local = urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        end = time.monotonic() + self.timeout
        try:
            with (
                httpx2.Client(timeout=self.timeout, follow_redirects=False, trust_env=not local) as client,
                client.stream("POST", self.url, content=sent, headers=headers) as reply,
            ):
                read = bytearray()
                for piece in reply.iter_bytes():
                    read += piece
                    if time.monotonic() > end:
                        raise _Again(f"{self.url}: the answer did not end within {self.timeout:g} s")
                    if len(read) > MAX_BYTES:
                        raise ServerError(f"{self.url}: the answer is longer than {MAX_BYTES} bytes")
                self._check(reply.status_code, reply.headers, bytes(read))
                return bytes(read)
        except httpx2.TimeoutException:
            raise _Again(f"{self.url}: no answer within {self.timeout:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            said = self._without_key(str(error)) or type(error).__name__
            raise _Again(f"{self.url}: cannot be reached ({said})") from None

    def _check(self, status: int, headers: Any, body: bytes) -> None:
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise ServerError(f"{self.url}: HTTP {status}: a redirect is not followed; use the final address")
        said = f"{self.url}: HTTP {status}: {self._without_key(_message(body))}"
        if status == 429 or status >= 500:
            raise _Again(said, _seconds(headers.get("Retry-After", "")))
        raise ServerError(f"{said}; set {self.key_variable}" if status in (401, 403) else said)

    def _without_key(self, text: str) -> str:
        secret = os.environ.get(self.key_variable)
        return text.replace(secret, "***") if secret else text


def _message(body: bytes) -> str:
    """What the server said went wrong: OpenAI's error.message, FastAPI's detail, or its first words."""
    text = body.decode(errors="replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if isinstance(said, dict):
        found = said.get("error", said.get("detail", said.get("message")))
        text = str(found.get("message", found) if isinstance(found, dict) else found or text)
    return text[:300]


def _seconds(text: str) -> float | None:
    """A Retry-After in seconds, or None."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
