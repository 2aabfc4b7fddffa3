"""Scoring files as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..._errors import CogGuidedError, InputError, ScoringError
from ..._version import __version__
from ..target import Target, TargetSpec, load_target
from .table import FileScore, ScoreTable

CHUNK = 32


def score_files(
    files: Iterable[str | Path],
    scorer: TargetSpec | Target,
    prompt: str | None = None,
    *,
    out: str | Path | ScoreTable | None = None,
    overwrite: bool = False,
    chunk: int = CHUNK,
) -> Iterator[FileScore]:
    """Score files one chunk after the other, and yield what each got as soon as its chunk is done.

    Nothing but one chunk is held, so there may be any number of files. A file that cannot be read has no score, is
    named, and does not stop the others.

    Args:
        files: any iterable; see `find_images` for those of folders.
        scorer: what to score by: a name, weights, a scorer or a target.
        prompt: text to compare with, for scorers that need one.
        out: file to write to as it goes (see `ScoreTable`); a file that has its row there is not scored again and not
            yielded, and one that comes twice is scored once.
        overwrite: drop another table of that name.
        chunk: files at once; a scorer makes its own batches of them.

    Raises:
        ScoringError: the scorer failed; the message names the files; what was scored before is kept.
        RecordError: `out` cannot be written, or holds something else.

    >>> from PIL import Image
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (2, 2), "white").save(f"{folder}/a.png")
    ...     [score.values for score in score_files([f"{folder}/a.png", "gone.png"], "fake")]
    [{'fake': 1.0}, {'fake': nan}]
    """
    target = scorer if isinstance(scorer, Target) else load_target(scorer)
    if target.needs_prompt and prompt is None:
        needy = ", ".join(term.name for term in target.terms if term.scorer.needs_prompt)
        raise InputError(f"scorer '{needy}' compares images with a text: pass prompt=, --prompt")
    if out is not None and not isinstance(out, ScoreTable):
        out = ScoreTable(out, list(target.weights), table_settings(target, prompt), overwrite)
    return _chunks(files, target, prompt, out, chunk)


def table_settings(target: Target, prompt: str | None, **more: Any) -> dict[str, Any]:
    """Return what scores depend on, as far as a target tells it; `more`: what is known beside it.

    >>> table_settings(load_target("fake"), None)["ranges"]
    {'fake': [0.0, 1.0]}
    """
    ranges = {term.name: [term.scorer.low, term.scorer.high] for term in target.terms}
    names = {term.name: term.scorer.name for term in target.terms}
    return {"scorers": names, "ranges": ranges, "prompt": prompt, "cogguided": __version__, **more}


def _chunks(
    files: Iterable[str | Path], target: Target, prompt: str | None, table: ScoreTable | None, chunk: int
) -> Iterator[FileScore]:
    waiting = _waiting(files, table)
    while paths := list(islice(waiting, chunk)):
        if table is not None:
            paths = list(dict.fromkeys(paths))  # the same one twice in one chunk
        scores = score_chunk(paths, target, prompt)
        if table is not None:
            table.append(scores)
        yield from scores
    if table is not None:
        table.finish()


def _waiting(files: Iterable[str | Path], table: ScoreTable | None) -> Iterator[Path]:
    for file in files:
        path = Path(file)
        if table is None or path not in table:
            yield path


def score_chunk(paths: list[Path], target: Target, prompt: str | None = None) -> list[FileScore]:
    """Score some files at once.

    Raises:
        ScoringError: the scorer failed.
    """
    try:
        terms = target(paths, None if prompt is None else [prompt] * len(paths)).terms
    except CogGuidedError:
        raise
    except Exception as error:  # a scorer may be anybody's
        where = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files, {paths[0]} to {paths[-1]}"
        raise ScoringError(f"the scorer failed on {where}: {type(error).__name__}: {error}") from error
    values = {name: scores.values.detach().tolist() for name, scores in terms.items()}
    found = []
    for i, path in enumerate(paths):
        reasons = [s.errors[i] for s in terms.values() if s.errors is not None and s.errors[i] is not None]
        found.append(FileScore(path, {name: of[i] for name, of in values.items()}, next(iter(reasons), None)))
    return found
