"""`cogguided generate`: images of prompts, the ones kept that a target likes best."""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from .._claiming import free_name
from .._defaults import AUTO, DEFAULT_N, DRAFT_STEPS, FEW_STEPS_N, OTHERWISE_N, SEARCHES
from .._errors import GenerationError, RecordError
from .console import INTERRUPTED, err, friendly, hold, out
from .options import (
    GPUS,
    HIGH,
    LEVELS,
    LOW,
    RAY,
    READOUT,
    WORKERS,
    Asked,
    read_prompts,
    read_question,
    read_size,
    read_values,
    read_workers,
    silence_libraries,
)

if TYPE_CHECKING:
    from ..integrations.ray import Workers
    from ..pipelines import CogGuidedOutput, CogGuidedPipeline
    from ..pipelines.bulk import RunFolder

EPILOG = """[bold]Examples[/]

cogguided generate "a face" --target emotional_valence --n 8 --seed 0 --out out/faces

cogguided generate "a face" "a cat" --target "memorability=1,emotional_valence=-0.5" --n 16 --budget 60s

cogguided generate "a cat" --target emotional_valence --rewrite 4 --search halving --n 16 --keep 3

cogguided generate --prompts prompts.txt --model stabilityai/stable-diffusion-xl-base-1.0 --device cuda
--dtype float16 --n 4 --target clip --set guidance_scale=5

cogguided generate "a cat" --scorer Qwen/Qwen2.5-VL-7B-Instruct --readout yes_no --n 8
--question "Does this picture show {}? Answer Yes or No."

cogguided generate --prompts many.txt --target memorability --keep-candidates chosen --out out/many --resume

cogguided generate --prompts many.txt --target clip --out out/many --ray auto --workers 8 --gpus-per-worker 1"""


class Kept(str, Enum):
    """Which images of many prompts are written."""

    none = "none"
    chosen = "chosen"
    all = "all"


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command(epilog=EPILOG)(generate)


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
    readout: Annotated[str | None, READOUT] = None,
    question: Annotated[
        str | None,
        typer.Option(help="Ask an MLLM this, {} in place of the prompt; the first name in --target names the score."),
    ] = None,
    levels: Annotated[str | None, LEVELS] = None,
    low: Annotated[float | None, LOW] = None,
    high: Annotated[float | None, HIGH] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", "-n", min=1,
            help=f"Candidates per prompt; default: {DEFAULT_N['joint']} (joint), {FEW_STEPS_N} (auto of embedded), "
            f"{OTHERWISE_N} (other searches), 1 (nothing is scored).",
        ),
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="How many good ones to choose per prompt.")] = 1,
    search: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(SEARCHES)}, or one of an installed plug-in; auto: joint, best for its time."
        ),
    ] = AUTO,
    rewrite: Annotated[
        int | None,
        typer.Option(min=0, help="Other wordings of each prompt to try; default: half of a joint search's drafts."),
    ] = None,
    draft_steps: Annotated[
        int | None,
        typer.Option(min=1, help=f"Denoising steps of the drafts of joint and drafts; default: {DRAFT_STEPS}."),
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
    resume: Annotated[bool, typer.Option("--resume", help="Make only what that folder lacks.")] = False,
    group: Annotated[
        int | None,
        typer.Option(min=1, help="Prompts made at once, then written and freed; default: --batch-size, or 8."),
    ] = None,
    keep_candidates: Annotated[
        Kept, typer.Option(help="Images to write; of others the record remains: none, chosen or all.")
    ] = Kept.all,
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
    ray: Annotated[str | None, RAY] = None,
    workers: Annotated[int, WORKERS] = 2,
    gpus_per_worker: Annotated[float, GPUS] = 0,
) -> None:
    """Make images of prompts and keep those the target likes best.

    The folder gets the chosen images, the others in candidates/, contact_sheet.png, and candidates.json, from
    which `cogguided replay` makes each of them again. More prompts than --group are made group by group: each is
    written when it is done, candidates.jsonl has a row for each candidate, and --resume goes on after a kill. With
    --ray the groups are made by workers here or on a cluster, into the same folder.
    """
    texts = read_prompts(prompts, prompt_file)
    arguments = {**read_size(size), **read_values(set_)}
    if steps is not None:
        arguments["num_inference_steps"] = steps
    if resume and out_dir is None:
        raise typer.BadParameter("name the folder by --out", param_hint="--resume")
    folder = out_dir or Path("out") / time.strftime("%Y%m%d-%H%M%S")

    from ..pipelines.bulk import GROUP
    from ..pipelines.loading import EMBEDDED

    pool = read_workers(ray, workers, gpus_per_worker)
    size_of_group = group or batch_size or GROUP
    many = len(texts) > size_of_group or keep_candidates is not Kept.all or pool is not None
    if not many:
        check_folder(folder, overwrite, resume)
    hold(folder)
    silence_libraries()
    asked = Asked(
        model, target, scorer, dtype, device, offload, proposer,
        (search, n, keep, rewrite, batch_size, draft_steps, full),
        few=model == EMBEDDED and "num_inference_steps" not in arguments,
        own=read_question(readout, question, levels, low, high),
    )  # fmt: skip
    call = {"budget": budget, "diversity": diversity, **arguments}
    if many:
        written = {"group": size_of_group, "keep_candidates": keep_candidates.value}
        how = {"resume": resume, "overwrite": overwrite, **written, **call}
        make_many(asked, pool, texts, folder, seed, as_json, quiet, **how)
        return
    pipe = asked.load()
    pipe.set_progress_bar_config(disable=quiet or not sys.stderr.isatty())
    if resume and is_there(folder, pipe, texts, seed, **call):
        out.print(f"{folder} has all of it: nothing is made", highlight=False, soft_wrap=True)
    else:
        make_few(pipe, texts, folder, seed, as_json, overwrite or resume, **call)


def check_folder(folder: Path, overwrite: bool, resume: bool) -> None:
    """Check that a folder can take the record of one call."""
    from ..pipelines.output import check_free
    from ..pipelines.records.streamed import is_run

    check_free(folder, overwrite or resume)
    if is_run(folder) and not overwrite:
        raise RecordError(f"{folder} has the record of many prompts: choose another folder, or --overwrite")


def is_there(
    folder: Path, pipe: CogGuidedPipeline, texts: list[str], seed: int | None, **call: Any
) -> bool:
    """Whether a folder has the record of this call, whole."""
    from ..guidance import Budget
    from ..pipelines.bulk.settings import has_record_of, settings_of

    budget, diversity = Budget.parse(call.pop("budget")), call.pop("diversity")
    settings = settings_of(pipe, texts, len(texts), None, None, seed, budget, diversity, call)
    return has_record_of(folder, pipe, texts, seed, settings)


def make_few(
    pipe: CogGuidedPipeline,
    texts: list[str],
    folder: Path,
    seed: int | None,
    as_json: bool,
    overwrite: bool,
    **call: Any,
) -> None:
    """Make a few prompts in one call, and save them together."""
    try:
        seeds = [secrets.randbelow(2**31) for _ in texts] if seed is None else seed
        output = pipe(texts, seed=seeds, **call)
    except GenerationError as error:
        if error.output is not None and error.output.candidates:
            folder = save_somewhere(error.output, folder, overwrite)
            err.print(f"{len(error.output.candidates)} candidates are kept in {folder}", highlight=False)
        raise
    folder = save_somewhere(output, folder, overwrite)
    report(output, folder, as_json)
    if output.interrupted:
        raise typer.Exit(INTERRUPTED)


def make_many(
    asked: Asked,
    pool: Workers | None,
    texts: list[str],
    folder: Path,
    seed: int | None,
    as_json: bool,
    quiet: bool,
    **call: Any,
) -> None:
    """Make prompts group by group, each written as soon as it is done."""
    from ..integrations.ray import RayStream, stream_on_ray
    from ..pipelines.bulk import Stream, stream

    outputs: Stream | RayStream
    if pool is None:
        pipe = asked.load()
        pipe.set_progress_bar_config(disable=True)
        outputs = stream(pipe, texts, folder, seed=seed, **call)
    else:
        outputs = stream_on_ray(asked.load, texts, folder, workers=pool, seed=seed, **call)
    run = outputs.folder
    assert run is not None
    for note in run.notes:
        err.print(note, style="yellow", highlight=False, soft_wrap=True)
    before, stopped = run.prompts, False
    try:
        with Progress(console=err, transient=True, disable=quiet or not err.is_terminal) as bar, notes_told_once():
            task = bar.add_task("prompts", total=len(texts), completed=before)
            for output in outputs:
                stopped = output.interrupted
                bar.update(task, completed=run.prompts)
                if not stopped and not as_json:
                    print_chosen(run)
    except KeyboardInterrupt:
        stopped = True
    except Exception:
        tell_how_to_go_on(run, len(texts))
        raise
    if stopped:
        tell_how_to_go_on(run, len(texts), "interrupted: ")
        raise typer.Exit(INTERRUPTED)
    report_many(run, before, as_json)
    if run.unchosen:
        told = f"{run.unchosen} of {run.prompts} prompts have no image with a valid score; candidates.jsonl says why"
        err.print(told, style="yellow", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def print_chosen(run: RunFolder) -> None:
    """Print a line for each image that was chosen in the latest group."""
    for row in sorted((row for row in run.rows if row["chosen"]), key=lambda row: int(row["request"])):
        terms = [f"{name} {value:.3f}" for name, value in row["scores"].items() if value is not None]
        facts = [row["prompt"], f"seed {row['seed']}", *terms, *([row["file"]] if row["file"] else [])]
        out.print("  ".join(facts), highlight=False, soft_wrap=True)


def tell_how_to_go_on(run: RunFolder, prompts: int, why: str = "") -> None:
    kept = f"{run.prompts} of {prompts} prompts are done and kept in {run.folder}"
    told = f"{why}{kept}; the same command with --resume makes the others"
    err.print(told, style="yellow", highlight=False, soft_wrap=True)


def report_many(run: RunFolder, before: int, as_json: bool) -> None:
    if as_json:
        facts = {"out": str(run.folder), "prompts": run.prompts, "prompts_before": before}
        out.print_json(data={**facts, "candidates": run.candidates, "prompts_without_image": run.unchosen})
        return
    had = f" ({before} were there before)" if before else ""
    out.print(
        f"{run.prompts} prompts{had}, {run.candidates} candidates: candidates.jsonl, images/, contact_sheets/ and "
        f"index.html are in {run.folder}",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def notes_told_once() -> Iterator[None]:
    """Show each note of a call once, though every group says it; the log has it for each."""
    told: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in told
        if len(told) < 1000:
            told.add(text)
        return new

    logger = logging.getLogger("cogguided")
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def save_somewhere(output: CogGuidedOutput, folder: Path, overwrite: bool) -> Path:
    """Save what was made; beside the folder where a record came into it in the meantime. Returns where."""
    from ..pipelines.bulk.folder import drop
    from ..pipelines.records.record import FILE
    from ..pipelines.records.streamed import is_run

    if not overwrite and (folder / FILE).exists():
        other = free_name(folder)
        err.print(f"{folder} got a record of another run in the meantime: saving in {other}", style="yellow")
        folder = other
    if overwrite and is_run(folder):
        drop(folder)
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
