"""`cogguided replay`: a candidate made again from its record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .._errors import RecordError
from .console import friendly, out
from .options import silence_libraries

EPILOG = """[bold]Examples[/]

cogguided replay out/faces/candidates.json 3

cogguided replay out/faces/005_a-face_seed5.png --out again.png"""


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(epilog=EPILOG)(replay)


@friendly
def replay(
    record: Annotated[Path, typer.Argument(help="candidates.json or .jsonl, its folder, or one of its PNGs.")],
    index: Annotated[int | None, typer.Argument(help="Which candidate; default: the first chosen.")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="Where to save the image.")] = None,
) -> None:
    """Make a candidate again from its record, and check it pixel for pixel."""
    silence_libraries()
    from ..pipelines import read_record
    from ..pipelines import replay as replay_candidate
    from ..pipelines.records.record import write_whole
    from ..pipelines.records.replaying import load_recorded, pick

    facts = read_record(record, index)
    pick(facts, index)
    pipe = load_recorded(facts)
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    result = replay_candidate(facts, index, pipe)
    if out_file is not None:
        write_whole(out_file, lambda file: result.image.save(file, out_file.suffix.lstrip(".") or "png"))
        out.print(f"saved {out_file}", highlight=False, soft_wrap=True)
    number = result.candidate["index"]
    if not result.same:
        why = "; ".join(result.differences) or "nothing that the record knows of has changed"
        raise RecordError(f"candidate {number} came out otherwise than recorded: {why}")
    out.print(f"candidate {number} (seed {result.candidate['seed']}): the same, pixel for pixel", highlight=False)
