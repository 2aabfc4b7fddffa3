"""`cogguided score`: what images are worth to a person."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .._errors import InputError
from .console import INTERRUPTED, cell, err, friendly, hold, out
from .options import (
    GPUS,
    HIGH,
    LEVELS,
    LOW,
    RAY,
    READOUT,
    WORKERS,
    best_device,
    load_asked,
    read_question,
    read_workers,
    silence_libraries,
)

if TYPE_CHECKING:
    from ..integrations.ray import Workers
    from ..scorers import FileScore, ScoreTable, Target
    from ..scorers.bulk import PassedOver

EPILOG = """[bold]Examples[/]

cogguided score photos/ --dimension all

cogguided score a.jpg b.png --dimension memorability --format json

cogguided score photos/ --scorer clip --prompt "a red heart" --format csv > scores.csv

cogguided score photos/ --scorer Qwen/Qwen2.5-VL-7B-Instruct --readout levels --dimension sharpness
--question "Is this picture blurred, fair or sharp? Answer with one word." --levels blurred=1,fair=2,sharp=3

cogguided score photos/ --scorer Qwen/Qwen2.5-VL-7B-Instruct --readout yes_no --prompt "a red heart"
--question "Does this picture show {}? Answer Yes or No."

find /data -name '*.jpg' -print0 | cogguided score --files - --out scores.parquet

cogguided score /data/photos --scorer resmem --out scores.parquet --ray auto --workers 8 --gpus-per-worker 1"""


class Format(str, Enum):
    """How `score` prints."""

    table = "table"
    json = "json"
    csv = "csv"


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(epilog=EPILOG)(score)


@friendly
def score(
    paths: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of images.")] = None,
    files: Annotated[
        Path | None,
        typer.Option("--files", help="List of paths, one a line or NUL between them; '-' reads standard input."),
    ] = None,
    dimension: Annotated[str | None, typer.Option(help="'all', or names with commas between; default: all.")] = None,
    scorer: Annotated[str | None, typer.Option(help="What scores: a name, folder or hub name.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Text to compare with, for scorers such as clip.")] = None,
    readout: Annotated[str | None, READOUT] = None,
    question: Annotated[
        str | None, typer.Option(help="Ask an MLLM this, {} in place of --prompt; --dimension names the score.")
    ] = None,
    levels: Annotated[str | None, LEVELS] = None,
    low: Annotated[float | None, LOW] = None,
    high: Annotated[float | None, HIGH] = None,
    fmt: Annotated[
        Format, typer.Option("--format", help="How to print. In CSV, names that begin with = + - @ get an '.")
    ] = Format.table,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Write to a .jsonl, .csv or .parquet as it goes, and go on with one cut short."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier --out.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where any image has no score.")] = False,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the first there is.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    ray: Annotated[str | None, RAY] = None,
    workers: Annotated[int, WORKERS] = 2,
    gpus_per_worker: Annotated[float, GPUS] = 0,
) -> None:
    """Score images. One that cannot be read has no score, is named, and does not stop the others.

    Any number of files can be given with --out: they are found and scored bit by bit, and the same command after a
    kill scores only those that are missing. In a folder, every file whose ending Pillow reads counts.

    A file name's bytes that are no UTF-8 stand in JSON as lone surrogates ("\\udce9"): in Python,
    os.fsencode(name) gives the name on the disk.

    With --ray, workers here or on a cluster score; rows and table are the same, and either goes on with the other's.
    """
    if not paths and files is None:
        raise typer.BadParameter("give images or folders, or --files LIST", param_hint="PATHS")
    silence_libraries(generator=False)
    from ..scorers.bulk import PassedOver, find_images

    passed = PassedOver()
    found = find_images(chain(paths or (), read_list(files)), passed)
    first = next(found, None)
    if first is None:
        raise InputError("; ".join([f"no images in {named(paths, files)}", *passed.told()]))
    found = chain([first], found)
    if out_file is not None:
        hold(out_file)
    own = read_question(readout, question, levels, low, high)
    load = partial(load_judge, scorer, dimension, device, **own)
    pool = read_workers(ray, workers, gpus_per_worker)
    begin = begin_here if pool is None else partial(begin_on_ray, pool)
    scores, terms, table = begin(found, load, prompt, out_file, overwrite, {"scorer": scorer, **own})
    if table is None:
        rows = print_scores(shown(scores, quiet), terms, fmt)
        tell_invalid(sum(not row.valid for row in rows), len(rows), passed, strict)
        return
    before = table.rows
    try:
        for _ in shown(scores, quiet):
            pass
    except KeyboardInterrupt:
        tell_how_to_go_on(table, "interrupted: ")
        raise typer.Exit(INTERRUPTED) from None
    except Exception:
        tell_how_to_go_on(table)
        raise
    had = f" ({before} were there before)" if before else ""
    out.print(f"scores of {table.rows} files{had} are in {out_file}", highlight=False, soft_wrap=True)
    tell_invalid(table.invalid, table.rows, passed, strict)


def read_list(file: Path | None) -> Iterator[Path]:
    """Yield the paths of a list as they come; "-" is standard input."""
    from ..scorers.bulk import listed

    if file is None:
        return
    if str(file) == "-":
        yield from listed(sys.stdin.buffer)
    else:
        with file.open("rb") as stream:
            yield from listed(stream)


def named(paths: list[Path] | None, files: Path | None) -> str:
    """Say where images were looked for."""
    return ", ".join([*map(str, paths or ()), *([] if files is None else [f"the list {files}"])])


def load_judge(scorer: str | None, dimension: str | None, device: str | None = None, **own: Any) -> Target:
    """Load what the command line asks to score by, to a device by name or the best there is.

    `own`: how an MLLM is read, or a question to it.
    """
    from ..scorers import DIMENSIONS, load_scorer, load_target

    names = list(DIMENSIONS) if dimension in (None, "all") else [d.strip() for d in (dimension or "").split(",")]
    if "question" in own and (scorer is None or (dimension is not None and len(names) > 1)):
        raise InputError("--question makes one score of one MLLM: --scorer says which, --dimension names the score")
    judge = scorer or (names[0] if own else None)
    if own:
        loaded = load_asked(judge, None if dimension is None else names[0], own)
    else:
        loaded = None if judge is None else load_scorer(judge)
    if loaded is not None and ("question" in own or (scorer is not None and dimension is None)):
        return load_target(loaded).to(best_device(device))
    return load_target(dict.fromkeys(names, 1.0), scorer=loaded).to(best_device(device))


Begun = tuple[Iterator["FileScore"], list[str], "ScoreTable | None"]
"""Scores as they come, names of the terms, and the table that they are written to, if any."""


def begin_here(
    files: Iterable[Path],
    load: Callable[[], Target],
    prompt: str | None,
    out_file: Path | None,
    overwrite: bool,
    told: dict[str, Any],
) -> Begun:
    """Begin to score in this process."""
    from ..scorers.bulk import ScoreTable, score_files, table_settings

    target = load()
    terms = list(target.weights)
    table = None
    if out_file is not None:
        table = ScoreTable(out_file, terms, table_settings(target, prompt, **told), overwrite)
    return score_files(files, target, prompt, out=table), terms, table


def begin_on_ray(
    pool: Workers,
    files: Iterable[Path],
    load: Callable[[], Target],
    prompt: str | None,
    out_file: Path | None,
    overwrite: bool,
    told: dict[str, Any],
) -> Begun:
    """Begin to score on Ray."""
    from ..integrations.ray import score_files_on_ray

    scores = score_files_on_ray(files, load, prompt, workers=pool, out=out_file, overwrite=overwrite, told=told)
    return scores, scores.terms, scores.table


def shown(scores: Iterable[FileScore], quiet: bool) -> Iterator[FileScore]:
    """Pass scores on, with how many there are and how fast they come on a terminal; how many to come nobody knows."""
    columns = TextColumn("scoring"), BarColumn(), TextColumn("{task.completed:.0f} files"), TimeElapsedColumn()
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        yield from bar.track(scores, total=None)


def tell_how_to_go_on(table: ScoreTable, why: str = "") -> None:
    kept = f"the scores of {table.rows} files are kept in {table.data}; the same command goes on with the others"
    err.print(f"{why}{kept}", style="yellow", highlight=False, soft_wrap=True)


def tell_invalid(invalid: int, count: int, passed: PassedOver, strict: bool) -> None:
    """Say how many images have no score, and what was passed over; none with a score is an error, or `strict` one."""
    for line in passed.told():
        err.print(line, style="yellow", highlight=False, soft_wrap=True)
    if invalid:
        err.print(f"{invalid} of {count} images have no score", style="yellow", highlight=False)
    if invalid == count or (strict and invalid):
        raise typer.Exit(1)


def print_scores(scores: Iterable[FileScore], terms: list[str], fmt: Format) -> list[FileScore]:
    """Print scores, as CSV while they come, else when all are there; returns them."""
    rows = []
    if fmt is Format.csv:
        writer = csv.DictWriter(sys.stdout, ["file", *terms, "error"], lineterminator="\n")
        writer.writeheader()
        for score in scores:
            rows.append(score)
            writer.writerow({n: cell(v) if isinstance(v, str) else v for n, v in printed(score).items()})
        return rows
    rows = list(scores)
    if fmt is Format.json:
        out.print_json(data=[printed(score) for score in rows])
        return rows
    table = Table("file", *(name.replace("_", " ") for name in terms))
    for score in rows:
        row = printed(score)
        table.add_row(row["file"], *(Text("no score", "red") if row[n] is None else f"{row[n]:.3f}" for n in terms))
        if row["error"]:
            why = row["error"] if row["error"].startswith(row["file"]) else f"{row['file']}: {row['error']}"
            err.print(why, style="yellow", highlight=False, soft_wrap=True)
    out.print(table)
    return rows


def printed(score: FileScore) -> dict[str, Any]:
    """Return a row with four decimals."""
    return {n: round(v, 4) if isinstance(v, float) else v for n, v in score.to_row().items()}
