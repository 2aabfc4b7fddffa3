"""`cogguided generate`: images of prompts, the ones kept that a target likes best."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .._defaults import AUTO, DEFAULT_N, DRAFT_STEPS, FEW_STEPS_N, OTHERWISE_N, SEARCHES
from .._errors import GenerationError
from .claiming import free_name
from .console import err, friendly, hold, out
from .options import place, read_dtype, read_prompts, read_size, read_values, silence_libraries

if TYPE_CHECKING:
    from ..pipelines import CogGuidedOutput

EPILOG = """[bold]Examples[/]

cogguided generate "a face" --target emotional_valence --n 8 --seed 0 --out out/faces

cogguided generate "a face" "a cat" --target "memorability=1,emotional_valence=-0.5" --n 16 --budget 60s

cogguided generate "a cat" --target emotional_valence --rewrite 4 --search halving --n 16 --keep 3

cogguided generate --prompts prompts.txt --model stabilityai/stable-diffusion-xl-base-1.0 --device cuda
--dtype float16 --n 4 --target clip --set guidance_scale=5"""


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

    from ..guidance.search.named import named_guidance
    from ..pipelines import CogGuidedPipeline
    from ..pipelines.loading import EMBEDDED
    from ..pipelines.output import check_free

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
        seeds = [secrets.randbelow(2**31) for _ in texts] if seed is None else seed
        output = pipe(texts, seed=seeds, guidance=guidance, budget=budget, diversity=diversity, **arguments)
    except GenerationError as error:
        if error.output is not None and error.output.candidates:
            folder = save_somewhere(error.output, folder, overwrite)
            err.print(f"{len(error.output.candidates)} candidates are kept in {folder}", highlight=False)
        raise
    folder = save_somewhere(output, folder, overwrite)
    report(output, folder, as_json)
    if output.interrupted:
        raise typer.Exit(130)


def save_somewhere(output: CogGuidedOutput, folder: Path, overwrite: bool) -> Path:
    """Save what was made; beside the folder where a record came into it in the meantime. Returns where."""
    from ..pipelines.records.record import FILE

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
