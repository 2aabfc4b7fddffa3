"""The Score tab: pictures dropped on the page, in every dimension, sorted, as a table, a CSV file and a plot."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from .._errors import ImageError, InputError
from ..scorers.bulk import FileScore, ScoreTable, score_files, table_settings
from ..scorers.images import as_pil
from . import drawing
from .models import inside
from .pieces import empty, notes, number, status
from .working import Page, Session

MOST_FILES, CHUNK = 500, 8


@dataclass
class Scored:
    """Files and what they got.

    Attributes:
        terms: names of the scores, in the table's order.
        ranges: ends of each scale.
        judge: by name; None: the four dimensions.
        prompt: what a judge compared with.
        rows: as they came, named as the user's files are.
        sources: where each file lies.
        small: address of each file's picture, once it was shown.
        csv: the table, once it is written.
    """

    terms: list[str]
    ranges: dict[str, tuple[float, float]]
    judge: str | None = None
    prompt: str | None = None
    rows: list[FileScore] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    small: dict[Path, str] = field(default_factory=dict)
    csv: Path | None = None


def run(
    session: Session, page: Page, files: Sequence[str] | None, judge: str | None, prompt: str | None
) -> Iterator[str]:
    """Score files chunk by chunk; yields what to say. The session has the rows so far.

    Raises:
        InputError: no files, too many, or one that was not dropped here.
        UnknownNameError: no such judge.
    """
    paths = [Path(file) for file in files or ()]
    if not paths:
        raise InputError("files: drop some pictures first")
    if len(paths) > MOST_FILES:
        raise InputError(
            f"files: expected at most {MOST_FILES} at once, got {len(paths)}; for more: cogguided score FOLDER --out "
            "scores.csv"
        )
    if not all(inside(page.out, path) for path in paths):
        raise InputError("files: only those that were dropped on this page are read")
    yield status("loading the judge …", busy=True)
    session.stop.clear()
    target = page.models.target(judge)
    text = (prompt or "").strip() or None
    ranges = {term.name: (term.scorer.low, term.scorer.high) for term in target.terms}
    session.scored = scored = Scored(list(ranges), ranges, judge, text)
    for score in score_files(paths, target, text, chunk=CHUNK):
        name = score.file.name
        scored.rows.append(replace(score, file=Path(name), error=_renamed(score.error, score.file)))
        scored.sources.append(score.file)
        done = len(scored.rows)
        if done % CHUNK == 0 or done == len(paths):
            yield status(f"{done} of {len(paths)} files", done / len(paths), busy=True)
        if session.stop.is_set():
            break
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-scores.csv"
    scored.csv = write_csv(scored, page.out / name, table_settings(target, text))
    bad = [row for row in scored.rows if not row.valid]
    stopped = "stopped: " if session.stop.is_set() else ""
    good = f"{stopped}{len(scored.rows) - len(bad)} of {len(scored.rows)} files have a score"
    said = f"{good}; table in {page.told(scored.csv)}"
    yield status(said) + notes([row.error or f"{row.file}: no score" for row in bad[:20]])


def _renamed(error: str | None, file: Path) -> str | None:
    return None if error is None else error.replace(str(file), file.name)


def write_csv(scored: Scored, file: Path, settings: dict[str, Any]) -> Path:
    """Write the table as `cogguided score --out` does, beside others of the same second."""
    number_of = 2
    base = file.stem
    while file.exists():
        file, number_of = file.with_name(f"{base}-{number_of}.csv"), number_of + 1
    table = ScoreTable(file, scored.terms, settings)
    table.append(scored.rows)
    table.finish()
    return file


def order(scored: Scored, by: str, highest: bool = True) -> list[int]:
    """Return the places of the rows, sorted by a score or by name; those without a score come last."""
    places = range(len(scored.rows))
    if by not in scored.terms:
        return sorted(places, key=lambda i: str(scored.rows[i].file).casefold(), reverse=not highest)

    def key(i: int) -> tuple[bool, float]:
        value = scored.rows[i].values.get(by, math.nan)
        return not math.isfinite(value), -value if highest else value

    return sorted(places, key=lambda i: (key(i)[0], 0.0 if key(i)[0] else key(i)[1]))


def table(session: Session, page: Page, by: str, highest: bool = True) -> str:
    """Return the files and their scores, each with its picture."""
    scored: Scored | None = session.scored
    if scored is None or not scored.rows:
        return empty("Nothing yet: drop pictures, and press Score.")
    heads = "".join(
        f'<th scope="col"{_sorting(name == by, highest)}>{escape(name.replace("_", " "))}</th>'
        for name in scored.terms
    )
    lines = []
    for place in order(scored, by, highest):
        row, source = scored.rows[place], scored.sources[place]
        cells = "".join(f"<td>{number(row.values.get(name))}</td>" for name in scored.terms)
        why = f'<div class="cg-alarm">{escape(row.error)}</div>' if row.error else ""
        name = f'<th scope="row">{escape(str(row.file))}{why}</th>'
        lines.append(f"<tr><td>{_small(scored, page, source)}</td>{name}{cells}</tr>")
    return (
        '<div class="cg-scroll" role="region" aria-label="Scores" tabindex="0"><table class="cg-table"><thead><tr>'
        f'<th scope="col">picture</th><th scope="col">file</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody>'
        "</table></div>"
    )


def _sorting(mine: bool, highest: bool) -> str:
    return f' aria-sort="{"descending" if highest else "ascending"}"' if mine else ""


def _small(scored: Scored, page: Page, source: Path) -> str:
    if source not in scored.small:
        try:
            picture = as_pil(source)
            picture.thumbnail((128, 128))
            scored.small[source] = page.pictures.url(picture)
        except ImageError:
            scored.small[source] = ""
    address = scored.small[source]
    return f'<img class="cg-small" src="{address}" alt="">' if address else ""


def plot(session: Session, across: str, up: str) -> str:
    """Return a scatter plot of two scores."""
    scored: Scored | None = session.scored
    if scored is None or not scored.rows or across not in scored.terms or up not in scored.terms:
        return ""
    points = [
        (row.values.get(across, math.nan), row.values.get(up, math.nan), str(row.file)) for row in scored.rows
    ]
    return drawing.scatter(points, (across, *scored.ranges[across]), (up, *scored.ranges[up]))


def codes(session: Session, page: Page) -> tuple[str, str]:
    """Return the Python and the command that score the same files."""
    scored: Scored | None = session.scored
    if scored is None:
        return "", ""
    files = [str(row.file) for row in scored.rows]
    judge, scorer = scored.judge, page.models.scorer
    words = ["cogguided", "score", *files]
    if judge is None:
        words += ["--dimension", "all", *([] if scorer is None else ["--scorer", scorer])]
    else:
        words += ["--scorer", judge]
    words += [] if scored.prompt is None else ["--prompt", scored.prompt]
    target = repr(judge) if judge else repr(",".join(f"{name}=1" for name in scored.terms))
    loading, wanted = "", target
    if judge is None and scorer is not None:
        loading = f"target = load_target({target}, scorer=load_scorer({scorer!r}))\n"
        wanted = "target"
    prompt = "" if scored.prompt is None else f", prompt={scored.prompt!r}"
    names = "from cogguided import load_scorer, score_files\nfrom cogguided.scorers import load_target\n"
    head = names if loading else "from cogguided import score_files\n"
    python = (
        f"{head}\nfiles = {files!r}\n{loading}"
        f"for score in score_files(files, {wanted}{prompt}, out=\"scores.csv\"):\n"
        "    print(score.file, score.values, score.error)"
    )
    return python, shlex.join([*words, "--out", "scores.csv"])
