"""Seeing what a call makes while it makes it, and stopping it, from another thread."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from typing_extensions import Self

if TYPE_CHECKING:
    from .run import Run
    from .types import Candidate

_watching: ContextVar[Watch | None] = ContextVar("watching", default=None)


class Watch:
    """Follows the guided calls of the thread that enters it; what it says may be read by any thread.

    `stop()` ends a call as Ctrl-C does, at the next pass of the denoiser or the next look of a judge: it returns what
    there is. A watch that was stopped stays so.

    >>> from cogguided import BestOfN, CogGuidedPipeline
    >>> pipe = CogGuidedPipeline.from_pretrained("embedded")
    >>> pipe.set_progress_bar_config(disable=True)
    >>> with Watch() as watch:
    ...     out = pipe("a face", guidance=BestOfN(2), seed=0, num_inference_steps=1)
    >>> watch.candidates == out.candidates, watch.evaluations
    (True, 4)
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._stopped = False
        self._token: Token[Watch | None] | None = None

    @property
    def candidates(self) -> list[Candidate]:
        """What the latest call has made so far, in that order; those not scored yet are not valid."""
        return [] if self._run is None else list(self._run.candidates)

    @property
    def evaluations(self) -> int:
        """Network evaluations of the latest call, as `Budget.nfe` counts them."""
        return 0 if self._run is None else self._run.nfe

    @property
    def seconds(self) -> float:
        """Wall-clock since the latest call began."""
        return 0.0 if self._run is None else self._run.seconds

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End the call that is under way."""
        self._stopped = True

    def follow(self, run: Run) -> None:
        """Look at another call from here on."""
        self._run = run

    def __enter__(self) -> Self:
        self._token = _watching.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _watching.reset(self._token)


def follow(run: Run) -> None:
    """Let this thread's watch, if there is one, look at a call."""
    watch = _watching.get()
    if watch is not None:
        watch.follow(run)


def check_stopped() -> None:
    """Return unless this thread's watch was stopped.

    Raises:
        KeyboardInterrupt: it was.
    """
    watch = _watching.get()
    if watch is not None and watch.stopped:
        raise KeyboardInterrupt("stopped")
