"""A proposer that asks any server which speaks OpenAI's chat completions, with the standard library only."""

from __future__ import annotations

import email.message
import http.client
import io
import json
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

from ...._errors import GenerationError, InputError
from .asking import ask_for_rewrites
from .base import Trial

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_WAIT = 30.0  # seconds before another request, whatever the server asks for
MAX_BYTES = 4_000_000  # of an answer


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the key is sent to the address that the user typed and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


@dataclass(frozen=True)
class EndpointProposer:
    """Ask a chat model behind an OpenAI-compatible address, such as ``transformers serve``, vLLM or Ollama.

    Args:
        base_url: ``http://host:8000`` or with a path, ``https://host/v1``.
        model: its name on that server.
        timeout: seconds that one request may take in all.
        temperature: None: the server's own.
        top_p: None: the server's own.
        max_tokens: length of an answer; None: the server's own, for servers that refuse the field.
        tries: answers to ask for at most, when some bring nothing new.
        retries: further requests after "too many requests" (429) or a server's error (5xx).
        backoff: seconds before the first of these, doubled each time; a server's Retry-After goes first.
        api_key: None: the environment variable OPENAI_API_KEY if it is set. Neither shown nor a field, so
            that no record can hold it.

    A seed is sent along; whether the same seed gives the same answer is up to the server.

    >>> EndpointProposer("http://localhost:8000", "qwen", api_key="secret").url
    'http://localhost:8000/v1/chat/completions'
    """

    base_url: str
    model: str
    timeout: float = 60.0
    temperature: float | None = 0.9
    top_p: float | None = 0.95
    max_tokens: int | None = 1024
    tries: int = 3
    retries: int = 3
    backoff: float = 0.5
    api_key: InitVar[str | None] = None
    name: ClassVar[str] = "endpoint"

    def __post_init__(self, api_key: str | None) -> None:
        parts = urllib.parse.urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"EndpointProposer: base_url must be like 'http://host:8000/v1', got {self.base_url!r}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InputError("EndpointProposer: base_url must hold no password, query or fragment; pass api_key")
        if not (self.timeout > 0 and self.tries > 0 and self.retries >= 0 and self.backoff >= 0):
            raise InputError(
                "EndpointProposer: expected timeout > 0, tries > 0, retries >= 0 and backoff >= 0, got "
                f"{self.timeout}, {self.tries}, {self.retries} and {self.backoff}"
            )
        object.__setattr__(self, "_api_key", api_key)

    @property
    def url(self) -> str:
        """Address that is asked: the base with ``/chat/completions``, and ``/v1`` where it has no path."""
        base = self.base_url.rstrip("/")
        path = urllib.parse.urlsplit(base).path
        if path.endswith("/chat/completions"):
            return base
        return f"{base}/chat/completions" if path else f"{base}/v1/chat/completions"

    def propose(
        self, prompt: str, target: Mapping[str, float], history: Sequence[Trial], n: int, seed: int
    ) -> list[str]:
        """Return up to n wordings; an answer that is no list brings none.

        Raises:
            InputError: no term of the target has a weight.
            GenerationError: the server cannot be reached, refuses, or answers in another form.
        """
        return ask_for_rewrites(self.answer, prompt, target, history, n, seed, self.tries)

    def answer(self, text: str, seed: int) -> str:
        """Return the model's answer to one message.

        Raises:
            GenerationError: the server cannot be reached, refuses, or answers in another form.
        """
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        body = {"model": self.model, "messages": [{"role": "user", "content": text}], "seed": seed}
        body |= {name: value for name, value in sampling.items() if value is not None}
        reply = self._post(json.dumps(body).encode())
        try:
            content = json.loads(reply)["choices"][0]["message"].get("content")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise GenerationError(
                f"{self.url}: expected an answer of OpenAI's chat completions, got {reply[:200]!r}"
            ) from error
        return content if isinstance(content, str) else ""

    def _post(self, body: bytes) -> bytes:
        """Send a request, again after 429 and 5xx, and return what came."""
        for attempt in range(self.retries + 1):
            try:
                return self._send(body)
            except urllib.error.HTTPError as error:
                with error:
                    said, again = _message(error), error.code == 429 or error.code >= 500
                if not again or attempt == self.retries:
                    times = f" ({attempt + 1} requests)" if attempt else ""
                    raise GenerationError(
                        f"{self.url}: HTTP {error.code}{times}: {said}{_hint(error.code)}"
                    ) from None
                time.sleep(min(MAX_WAIT, _wait(error.headers, self.backoff * 2**attempt)))
            except TimeoutError:
                raise GenerationError(
                    f"{self.url}: no answer within {self.timeout:g} s: raise timeout, or ask for less"
                ) from None
            except urllib.error.URLError as error:
                raise GenerationError(f"{self.url}: cannot be reached ({error.reason}): is the server up?") from error
            except (OSError, http.client.HTTPException) as error:
                raise GenerationError(
                    f"{self.url}: the connection broke ({type(error).__name__}: {error})"
                ) from error
        raise AssertionError("unreachable")

    def _send(self, body: bytes) -> bytes:
        """Send one request and return the answer's bytes, all within the timeout."""
        key = self._api_key or os.environ.get(KEY_VARIABLE)  # type: ignore[attr-defined]
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"}, method="POST")
        if key:
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        here = urllib.parse.urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        proxies = [urllib.request.ProxyHandler({})] if here else []
        end = time.monotonic() + self.timeout
        try:
            with urllib.request.build_opener(_NoRedirects, *proxies).open(request, timeout=self.timeout) as reply:
                return _read(reply, end)
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):  # while it connected
                raise error.reason from None
            raise


def _read(reply: http.client.HTTPResponse, end: float) -> bytes:
    """Read an answer piece by piece until it ends, or `end` on the monotonic clock is past."""
    read = io.BytesIO()
    while piece := reply.read1(65536):
        read.write(piece)
        if time.monotonic() > end:
            raise TimeoutError
        if read.tell() > MAX_BYTES:
            raise http.client.HTTPException(f"more than {MAX_BYTES} bytes came")
    return read.getvalue()


def _message(error: urllib.error.HTTPError) -> str:
    """Return what the server said went wrong: OpenAI's error.message, FastAPI's detail, or its first words."""
    try:
        text = error.read(10_000).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        text = ""
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if isinstance(said, dict):
        found = said.get("error", said.get("detail", said.get("message")))
        text = str(found.get("message", found) if isinstance(found, dict) else found or text)
    return text[:300] or str(error.reason)


def _hint(code: int) -> str:
    """Return what to do about a status, where there is something to say."""
    if code in (401, 403):
        return f"; pass api_key or set {KEY_VARIABLE}"
    return "; a redirect is not followed: pass the final address as base_url" if 300 <= code < 400 else ""


def _wait(headers: email.message.Message, otherwise: float) -> float:
    """Return the seconds that a server's Retry-After asks for, or else `otherwise`."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return otherwise
    return seconds if math.isfinite(seconds) and seconds >= 0 else otherwise
