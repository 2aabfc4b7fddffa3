"""The command `cogguided`: parse and call, nothing else.

Exit codes: 0 done, 1 an error (one line, in red), 2 wrong usage, 130 interrupted (what was made is kept).
"""

from __future__ import annotations

import csv
import logging
import sys
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from . import __version__, _cli_align, _cli_bench, _cli_finetune, _cli_study
from ._claiming import free_name
from ._console import Debug, cell, err, friendly, hold, out
from ._errors import GenerationError, RecordError
from ._options import (
    best_device,
    place,
    read_dtype,
    read_images,
    read_prompts,
    read_size,
    read_values,
    silence_libraries,
)

if TYPE_CHECKING:
    from .pipelines import CogGuidedOutput
    from .scorers import Scores

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Steer any diffusers text-to-image pipeline by what its images make people feel.",
)


class Format(str, Enum):
    """How `score` prints."""

    table = "table"
    json = "json"
    csv = "csv"


def show_version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit()


@app.callback()
def options(
    show_debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    Debug.on = show_debug
    logging.basicConfig(format="note: %(message)s", level=logging.WARNING)


@app.command(
    epilog="""[bold]Examples[/]

cogguided generate "a face" --target emotional_valence --n 8 --seed 0 --out out/faces

cogguided generate "a face" "a cat" --target "memorability=1,emotional_valence=-0.5" --n 16 --budget 60s

cogguided generate "a cat" --target emotional_valence --rewrite 4 --search halving --n 16 --keep 3

cogguided generate --prompts prompts.txt --model stabilityai/stable-diffusion-xl-base-1.0 --device cuda
--dtype float16 --n 4 --target clip --set guidance_scale=5"""
)
@friendly
def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="What to draw: one text or several.")] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompts", help="File with one prompt a line, # begins a comment; '-' reads standard input."),
    ] = None,
    model: Annotated[str, typer.Option(help="'embedded', a folder, or a hub name.")] = "embedded",
    target: Annotated[
        str | None, typer.Option(help="What images should have more of: a name, or signed weights.")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="Scores the target: a name, folder or hub name.")] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", "-n", min=1,
            help="Candidates per prompt; default: 12 (joint), 15 (auto of embedded), 16, 1 (nothing is scored).",
        ),
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="How many good ones to choose per prompt.")] = 1,
    search: Annotated[
        str,
        typer.Option(
            help="auto, best_of_n, joint, drafts, halving, fk, noise or gradient; auto: joint, best for its time."
        ),
    ] = "auto",
    rewrite: Annotated[
        int | None,
        typer.Option(min=0, help="Other wordings of each prompt to try; default: half of a joint search's drafts."),
    ] = None,
    draft_steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps of the drafts of joint and drafts; default: 4.")
    ] = None,
    full: Annotated[
        int | None,
        typer.Option(min=0, help="Drafts to make in full; 0: drafts are the images. Default: --keep and one more."),
    ] = None,
    proposer: Annotated[
        str,
        typer.Option(
            help="Who words prompts anew: phrases, expand (embedded model), scorer (the MLLM that scores), a chat "
            "model's folder or hub name, or http://host:port#model."
        ),
    ] = "phrases",
    diversity: Annotated[
        float, typer.Option(min=0, help="With --keep: how much difference counts beside the score.")
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first candidate; default: random.")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for the images; default: out/<date and time>.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier record in that folder.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    size: Annotated[str | None, typer.Option(help="Pixels: 512, or width x height as in 768x512.")] = None,
    budget: Annotated[str | None, typer.Option(help="Stop after '60s', or '4000nfe' evaluations.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images sampled at once.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the first there is.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    offload: Annotated[bool, typer.Option(help="Keep the model in main memory, each part on demand.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="name=value for the pipeline's call; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Make images of prompts and keep those the target likes best.

    The folder gets the chosen images, the others in candidates/, contact_sheet.png, and candidates.json, from
    which `cogguided replay` makes each of them again.
    """
    texts = read_prompts(prompts, prompt_file)
    arguments = {**read_size(size), **read_values(set_)}
    if steps is not None:
        arguments["num_inference_steps"] = steps
    folder = out_dir or Path("out") / time.strftime("%Y%m%d-%H%M%S")

    from .guidance.named import AUTO, named_guidance
    from .pipelines import CogGuidedPipeline
    from .pipelines.loading import EMBEDDED
    from .pipelines.output import check_free

    check_free(folder, overwrite)
    hold(folder)
    silence_libraries()
    pipe = CogGuidedPipeline.from_pretrained(model, target=target, scorer=scorer, dtype=read_dtype(dtype))
    place(pipe, device, offload)
    pipe.set_progress_bar_config(disable=quiet or not sys.stderr.isatty())
    scored = target is not None or scorer is not None or pipe.target is not None or pipe.scorer is not None
    given = (search, n, keep, rewrite, batch_size, draft_steps, full)
    saved = pipe.guidance and given == (AUTO, None, 1, None, None, None, None)
    few = model == EMBEDDED and "num_inference_steps" not in arguments
    guidance = (
        None
        if saved
        else named_guidance(search, n, keep, rewrite, proposer, scored, batch_size, draft_steps, full, few)
    )
    try:
        output = pipe(texts, seed=seed, guidance=guidance, budget=budget, diversity=diversity, **arguments)
    except GenerationError as error:
        if error.output is not None and error.output.candidates:
            folder = save_somewhere(error.output, folder, overwrite)
            err.print(f"{len(error.output.candidates)} candidates are kept in {folder}", highlight=False)
        raise
    folder = save_somewhere(output, folder, overwrite)
    report(output, folder, as_json)
    if output.interrupted:
        raise typer.Exit(130)


@app.command(
    epilog="""[bold]Examples[/]

cogguided score photos/ --dimension all

cogguided score a.jpg b.png --dimension memorability --format json

cogguided score photos/ --scorer clip --prompt "a red heart" --format csv > scores.csv"""
)
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
    from .scorers import DIMENSIONS, Scores, load_scorer, load_target

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


@app.command(
    epilog="""[bold]Examples[/]

cogguided replay out/faces/candidates.json 3

cogguided replay out/faces/005_a-face_seed5.png --out again.png"""
)
@friendly
def replay(
    record: Annotated[Path, typer.Argument(help="candidates.json, its folder, or one of its PNGs.")],
    index: Annotated[int | None, typer.Argument(help="Which candidate; default: the first chosen.")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="Where to save the image.")] = None,
) -> None:
    """Make a candidate again from its record, and check it pixel for pixel."""
    silence_libraries()
    from .pipelines import read_record
    from .pipelines import replay as replay_candidate
    from .pipelines.record import write_whole
    from .pipelines.replaying import load_recorded, pick

    facts = read_record(record)
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


@app.command()
@friendly
def scorers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what images can be scored for, and where the scores come from."""
    from dataclasses import asdict

    from .scorers import list_scorers

    infos = list_scorers()
    if as_json:
        out.print_json(data=[asdict(info) for info in infos])
        return
    table = Table("name", "range", "grounding", "needs prompt", "source", "what")
    for info in infos:
        limits = "" if info.low is None else f"{info.low:g} to {info.high:g}"
        prompt = "yes" if info.needs_prompt else ""
        table.add_row(info.name, limits, info.grounding, prompt, info.source, info.summary)
    out.print(table)


@app.command()
@friendly
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, what is installed and what each extra would add."""
    from ._info import environment

    facts = environment()
    if as_json:
        out.print_json(data=facts)
        return
    table = Table("package", "version")
    for name, number in {**facts["versions"], **facts["packages"]}.items():
        table.add_row(name, number or "not installed")
    out.print(table)
    out.print("devices: " + ", ".join(facts["devices"]), highlight=False)
    table = Table("extra", "installed", "adds", 'pip install "cogguided[extra]" brings')
    for name, extra in facts["extras"].items():
        present = bool(extra["packages"]) and None not in extra["packages"].values()
        table.add_row(name, "yes" if present else "no", extra["adds"], ", ".join(extra["packages"]))
    out.print(table)


_cli_bench.register(app)
_cli_align.register(app)
_cli_finetune.register(app)
_cli_study.register(app)


def save_somewhere(output: CogGuidedOutput, folder: Path, overwrite: bool) -> Path:
    """Save what was made; beside the folder where a record came into it in the meantime. Returns where."""
    from .pipelines.record import FILE

    if not overwrite and (folder / FILE).exists():
        other = free_name(folder)
        err.print(f"{folder} got a record of another run in the meantime: saving in {other}", style="yellow")
        folder = other
    return output.save(folder, overwrite)


def report(output: CogGuidedOutput, folder: Path, as_json: bool) -> None:
    if as_json:
        out.print_json(data={"out": str(folder), **output.to_dict()})
        return
    table = Table("prompt", "seed", "score", "file")
    record = output.to_dict()["candidates"]
    for candidate in output.chosen:
        facts = record[output.candidates.index(candidate)]
        terms = "  ".join(f"{name} {value:.3f}" for name, value in candidate.scores.items())
        table.add_row(candidate.prompt, str(candidate.seed), terms, facts["file"])
    out.print(table)
    out.print(
        f"{len(output.candidates)} candidates in {output.seconds:.1f} s: images, contact_sheet.png and "
        f"candidates.json are in {folder}",
        highlight=False,
        soft_wrap=True,
    )


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


def main() -> None:
    """Run the command."""
    app(prog_name="cogguided")
