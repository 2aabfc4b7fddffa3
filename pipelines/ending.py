"""How a call ends: with its output, early, or with an error that takes along what was made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .._errors import GenerationError
from ..guidance import Run
from ..scorers.base import truncations
from .output import CogGuidedOutput


@contextmanager
def nothing_lost(run: Run, facts: dict[str, Any], trace: list[dict[str, Any]]) -> Iterator[None]:
    """Keep what was made: Ctrl-C ends the run early, and an error takes the candidates along."""
    try:
        yield
    except KeyboardInterrupt:
        if not run.candidates:
            raise
        run.interrupted = True
        run.note(f"interrupted: {len(run.candidates)} candidates were made")
    except Exception as error:
        if not run.candidates:
            raise
        output = CogGuidedOutput.of(run, facts, trace)
        raise GenerationError(
            f"{error} ({len(run.candidates)} candidates made before are in this error's `output`; "
            "output.save(folder) keeps them)",
            output,
        ) from error


@contextmanager
def truncation_noted(run: Run) -> Iterator[None]:
    """Make warnings of texts that a judge does not read to the end into notes of the run."""
    with truncations() as told:
        try:
            yield
        finally:
            for text in told:
                run.note(text)


def checked_output(run: Run, facts: dict[str, Any], trace: list[dict[str, Any]]) -> CogGuidedOutput:
    """Return a run's output.

    Raises:
        GenerationError: a prompt has no candidate with a valid score; its `output` has all that was made.
    """
    output = CogGuidedOutput.of(run, facts, trace)
    without = [r.prompt for r in run.requests if not any(c.request == r.index for c in output.chosen)]
    if without and not run.interrupted:
        reasons = sorted({c.error or "" for c in run.candidates if not c.valid})
        raise GenerationError(
            f"no candidate of {without} has a valid score ({'; '.join(reasons[:3])}); all that was made "
            "is in this error's `output`; output.save(folder) keeps it",
            output,
            complete=True,
        )
    return output
