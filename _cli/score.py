"""`cogguided score`: what images are worth to a person."""

from __future__ import annotations

import csv
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from .console import cell, err, friendly, out
from .options import best_device, read_images, silence_libraries

if TYPE_CHECKING:
    from ..scorers import Scores

EPILOG = """[bold]Examples[/]

cogguided score photos/ --dimension all

cogguided score a.jpg b.png --dimension memorability --format json

cogguided score photos/ --scorer clip --prompt "a red heart" --format csv > scores.csv"""


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
    paths: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    dimension: Annotated[str | None, typer.Option(help="'all', or names with commas between; default: all.")] = None,
    scorer: Annotated[str | None, typer.Option(help="What scores: a name, folder or hub name.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Text to compare with, for scorers such as clip.")] = None,
    fmt: Annotated[
        Format, typer.Option("--format", help="How to print. In CSV, names that begin with = + - @ get an '.")
    ] = Format.table,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the first there is.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Score images. One that cannot be read has no score, is named, and does not stop the others."""
    files = read_images(paths)
    silence_libraries(generator=False)
    from ..scorers import DIMENSIONS, Scores, load_scorer, load_target

    loaded = None if scorer is None else load_scorer(scorer)
    if loaded is not None and dimension is None:
        target = load_target(loaded)
    else:
        names = list(DIMENSIONS) if dimension in (None, "all") else [d.strip() for d in (dimension or "").split(",")]
        target = load_target(dict.fromkeys(names, 1.0), scorer=loaded)
    target.to(best_device(device))
    parts: list[dict[str, Scores]] = []
    with Progress(console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task("scoring", total=len(files))
        for start in range(0, len(files), 32):
            chunk = files[start : start + 32]
            parts.append(target(chunk, None if prompt is None else [prompt] * len(chunk)).terms)
            bar.advance(task, len(chunk))
    scores = {name: Scores.cat([part[name].cpu() for part in parts]) for name in target.weights}
    print_scores(files, scores, fmt)
    invalid = {f for s in scores.values() for f, ok in zip(files, s.valid.tolist(), strict=True) if not ok}
    if invalid:
        err.print(f"{len(invalid)} of {len(files)} images have no score", style="yellow", highlight=False)
    if len(invalid) == len(files):
        raise typer.Exit(1)


def print_scores(files: list[Path], scores: dict[str, Scores], fmt: Format) -> None:
    columns = {name: s.values.tolist() for name, s in scores.items()}
    valid = {name: s.valid.tolist() for name, s in scores.items()}
    rows: list[dict[str, Any]] = []
    for i, file in enumerate(files):
        reasons = [s.errors[i] for s in scores.values() if s.errors is not None and s.errors[i] is not None]
        values = {n: round(v[i], 4) if valid[n][i] else None for n, v in columns.items()}
        rows.append({"file": str(file), **values, "error": reasons[0] if reasons else None})
    if fmt is Format.json:
        out.print_json(data=rows)
    elif fmt is Format.csv:
        writer = csv.DictWriter(sys.stdout, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({n: cell(v) if isinstance(v, str) else v for n, v in row.items()} for row in rows)
    else:
        table = Table("file", *(name.replace("_", " ") for name in columns))
        for row in rows:
            cells = [Text("no score", "red") if row[n] is None else f"{row[n]:.3f}" for n in columns]
            table.add_row(row["file"], *cells)
            if row["error"]:
                why = row["error"] if row["error"].startswith(row["file"]) else f"{row['file']}: {row['error']}"
                err.print(why, style="yellow", highlight=False, markup=False, soft_wrap=True)
        out.print(table)
