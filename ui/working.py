"""Work in the background that is watched and can be stopped, and what each open page has made."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._errors import CogGuidedError
from ..guidance import Candidate, Watch
from ..pipelines import CogGuidedOutput
from .settings import Settings

if TYPE_CHECKING:
    from .models import Models
    from .pieces import Pictures

MOST_SESSIONS = 32
LONGEST_END = 60.0
"""Seconds that work which was stopped is given to keep what it made, when the server ends."""
T = TypeVar("T")
logger = logging.getLogger("cogguided")


class Work(Generic[T]):
    """A call in a thread of its own.

    Attributes:
        watch: sees the candidates that it makes, and stops it.
        result: what it returned; None while it runs, or where it was stopped before there was anything.
        error: what it raised.

    >>> work = Work(lambda: 6 * 7)
    >>> work.wait(60), work.result
    (True, 42)
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self.watch = Watch()
        self.result: T | None = None
        self.error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, args=(call,), daemon=True).start()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            with self.watch:
                self.result = call()
        except KeyboardInterrupt:
            pass  # stopped with nothing made
        except BaseException as error:
            self.error = error
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; returns whether it is done."""
        return self._done.wait(seconds)

    def stop(self) -> None:
        """Ask it to stop and keep what there is."""
        self.watch.stop()


def told(error: BaseException) -> str:
    """Return what the page says of an error: a deliberate one's own sentence; others are also logged.

    >>> told(CogGuidedError("expected this"))
    'expected this'
    """
    if isinstance(error, CogGuidedError | OSError):
        return str(error)
    logger.error("unexpected error", exc_info=error)
    return f"{type(error).__name__}: {error} (the terminal has more)"


@dataclass(eq=False)
class Session:
    """What one open page has made last, by tab.

    Attributes:
        work: of Generate or Compare, while it runs.
        stop: set to end work that is no call of a pipeline.
        settings: of what is shown.
        output: what was made.
        folder: where it is saved.
        shown: candidates as they are shown, best first.
        picked: place of the one whose details are shown.
        looked: values and spreads of every dimension, by id of the candidate's image.
        compared: Compare's result.
        scored: Score's rows.
    """

    work: Work[Any] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    settings: Settings | None = None
    output: CogGuidedOutput | None = None
    folder: Path | None = None
    shown: list[Candidate] = field(default_factory=list)
    picked: int | None = None
    looked: dict[int, dict[str, tuple[float, float | None]]] = field(default_factory=dict)
    compared: Any = None
    scored: Any = None

    def candidate(self) -> Candidate | None:
        """The one whose details are shown."""
        if self.picked is None or not 0 <= self.picked < len(self.shown):
            return None
        return self.shown[self.picked]


class Sessions:
    """The open pages, the oldest forgotten first.

    >>> sessions = Sessions()
    >>> sessions.of("a") is sessions.of("a"), sessions.of("a") is sessions.of("b")
    (True, False)
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._guard = threading.Lock()

    def of(self, name: str | None) -> Session:
        """Return a page's session."""
        with self._guard:
            session = self._known.setdefault(name or "", Session())
            self._known.move_to_end(name or "")
            while len(self._known) > MOST_SESSIONS:
                self._forget(next(iter(self._known)))
            return session

    def end(self, name: str | None) -> None:
        """Stop a page's work and forget what it made."""
        with self._guard:
            if (name or "") in self._known:
                self._forget(name or "")

    def close(self) -> None:
        """Stop all work, and wait until what it made is kept."""
        with self._guard:
            works = [session.work for session in self._known.values() if session.work is not None]
            for name in list(self._known):
                self._forget(name)
        for work in works:
            work.wait(LONGEST_END)

    def _forget(self, name: str) -> None:
        session = self._known.pop(name)
        session.stop.set()
        if session.work is not None:
            session.work.stop()


@dataclass(frozen=True, eq=False)
class Page:
    """What all tabs share.

    Attributes:
        models: that may be used.
        out: output folder, all links followed; nothing outside it is ever shown.
        typed: the same as it was typed, which is how sentences and code name it.
        pictures: for the page.
        sessions: of the open pages.
    """

    models: Models
    out: Path
    pictures: Pictures
    typed: Path | None = None
    sessions: Sessions = field(default_factory=Sessions)

    def told(self, path: Path) -> Path:
        """Return a path of the output folder as the page names it."""
        if self.typed is None or not path.is_relative_to(self.out):
            return path
        return self.typed / path.relative_to(self.out)
