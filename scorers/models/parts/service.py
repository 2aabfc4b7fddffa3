"""A connection to `cogguided serve`: requests that are sent again where that may help, and what came of them."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...._errors import InputError, ModelError, ScoringError, missing_extra

if TYPE_CHECKING:
    import httpx2

VARIABLE = "COGGUIDED_TOKEN"
AGAIN = frozenset({429, 502, 503, 504})
"""Answers after which a request is sent again."""
LONGEST_WAIT = 30.0


class Client:
    """A connection to a service.

    Attributes:
        terms: facts of each of its scores, by name.
    """

    def __init__(self, url: str, token: str | None, batch_size: int, timeout: float, retries: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InputError(f"remote scorer: expected a URL like 'http://host:8000', got {url!r}")
        if batch_size < 1 or timeout <= 0 or retries < 0:
            raise InputError(
                f"remote scorer: expected batch_size >= 1, timeout > 0 and retries >= 0, got {batch_size}, {timeout} "
                f"and {retries}"
            )
        if not token:
            raise InputError(f"remote scorer: {url} wants a token: pass token= or token_file=, or set {VARIABLE}")
        self.url, self._token, self._timeout, self._retries = url.rstrip("/"), token, timeout, retries
        self._open()
        try:
            facts = self._json("GET", "/about")
            self.terms: dict[str, Mapping[str, Any]] = {term["name"]: term for term in facts["terms"]}
            self._body = int(facts["limits"]["body"])
            self.batch_size = min(batch_size, int(facts["limits"]["images"]))
        except InputError:
            raise
        except ScoringError as error:
            raise ModelError(f"remote scorer: {error}; is it a `cogguided serve` that runs?") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"remote scorer: {self.url} is no `cogguided serve` ({type(error).__name__})") from error

    def _open(self) -> None:
        """Get ready to connect; what is open is closed with the last reference to this."""
        here = urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        headers = {"Authorization": f"Bearer {self._token}"}
        self._session = _import_httpx2().Client(timeout=self._timeout, trust_env=not here, headers=headers)
        weakref.finalize(self, self._session.close)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open connections of this process out, for another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def ask(self, files: list[bytes], prompts: list[str] | None) -> list[Mapping[str, Any] | str]:
        """Return what the service says of each image, or why it says nothing."""
        if len(files) > 1 and sum(map(len, files)) > 0.9 * self._body:
            half = len(files) // 2
            first = self.ask(files[:half], prompts and prompts[:half])
            return [*first, *self.ask(files[half:], prompts and prompts[half:])]
        upload = [("image", ("image.png", file, "image/png")) for file in files]
        try:
            answer = self._json("POST", "/score", files=upload, data={"prompt": prompts} if prompts else None)
            rows = answer["scores"]
            if len(rows) != len(files):
                raise KeyError("scores")
            return list(rows)
        except Refused as error:
            wrong = {entry["image"]: str(entry["reason"]) for entry in error.detail if "image" in entry}
            if not wrong or len(files) == 1:
                return [str(error)] * len(files)
            kept = [i for i in range(len(files)) if i not in wrong]
            others = self.ask([files[i] for i in kept], prompts and [prompts[i] for i in kept]) if kept else []
            found = dict(zip(kept, others, strict=True))
            return [wrong[i] if i in wrong else found[i] for i in range(len(files))]
        except ScoringError as error:
            return [str(error)] * len(files)
        except (KeyError, TypeError) as error:
            return [f"{self.url}: its answer has another form ({type(error).__name__})"] * len(files)

    def _json(self, method: str, path: str, **body: Any) -> Any:
        """Send a request, again where that may help, and return its answer.

        Raises:
            InputError: the token is wrong.
            Refused: the service said what is wrong with it.
            ScoringError: no answer, or another error.
        """
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            stop=tenacity.stop_after_attempt(self._retries + 1),
            wait=_wait,
            reraise=True,
        )
        try:
            reply = retrying(self._send, method, path, **body)
        except _Again as error:
            raise ScoringError(f"{self.url}: {error} ({self._retries + 1} requests)") from error
        if reply.status_code == 200:
            return reply.json()
        reason = said(reply)
        if reply.status_code == 401:
            raise InputError(f"{self.url}: does not take this token ({reason})")
        if reply.status_code == 422:
            raise Refused(f"{self.url}: {reason}", reply.json()["detail"])
        raise ScoringError(f"{self.url}: HTTP {reply.status_code}: {reason}")

    def _send(self, method: str, path: str, **body: Any) -> httpx2.Response:
        httpx2 = _import_httpx2()
        try:
            reply: Any = self._session.request(method, self.url + path, **body)
        except httpx2.TimeoutException:
            raise _Again(f"no answer within {self._timeout:g} s") from None
        except httpx2.TransportError as error:
            raise _Again(f"cannot be reached ({type(error).__name__}: {error})") from None
        if reply.status_code in AGAIN:
            raise _Again(f"HTTP {reply.status_code}: {said(reply)}", reply.headers.get("retry-after"))
        return reply  # type: ignore[no-any-return]


class Refused(ScoringError):
    """The service said what is wrong with a request."""

    def __init__(self, message: str, detail: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.detail = detail


class _Again(Exception):
    """Another request may have more luck."""

    def __init__(self, message: str, after: str | None = None) -> None:
        super().__init__(message)
        try:
            self.after = min(LONGEST_WAIT, max(0.0, float(after or 0)))
        except ValueError:
            self.after = 0.0


def _wait(state: Any) -> float:
    """Seconds before the next request: doubled each time, with chance, and at least what was asked for."""
    import tenacity

    error = state.outcome.exception()
    drawn = float(tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT)(state))
    return max(drawn, error.after if isinstance(error, _Again) else 0.0)


def _import_httpx2() -> Any:
    try:
        import httpx2
        import tenacity  # noqa: F401
    except ImportError as error:
        raise missing_extra(error.name or "httpx2", "remote") from error
    return httpx2


def said(reply: Any) -> str:
    """Return what a service says went wrong, or its first words."""
    try:
        detail = reply.json()["detail"]
        reasons = [entry["reason"] for entry in detail] if isinstance(detail, list) else [detail]
        return "; ".join(map(str, reasons))[:300]
    except (ValueError, LookupError, TypeError):
        return str(reply.text[:200])
