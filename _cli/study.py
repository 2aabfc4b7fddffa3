"""`cogguided study`: the original text encoder against an aligned one, by scorers and by people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .console import err, friendly, hold, out
from .options import place, read_dtype, read_size, read_values, silence_libraries

if TYPE_CHECKING:
    from ..pipelines.study.study import StudyResult, Tally

EPILOG = """[bold]Examples[/]

cogguided study --model embedded --aligned runs/aligned --prompts prompts.txt --target emotional_valence
--out out/study

cogguided study --model Qwen/Qwen-Image --dtype bfloat16 --aligned runs/aligned-7b --prompts memorability.json
--target memorability --scorer runs/aligned-7b --size 768 --steps 14 --call true_cfg_scale=2.0 --out out/study

cogguided study tally out/study choices-anna.json choices-ben.json

[bold]People[/]: send them out/study/vote.html, one file that needs no server; its button saves their choices."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


def register(parent: typer.Typer) -> None:
    """Add the command, with the command below it, to an app."""
    parent.add_typer(app, name="study")


@app.callback(invoke_without_command=True, epilog=EPILOG)
@friendly
def study(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="'embedded', a pipeline's folder, or a hub name.")] = None,
    aligned: Annotated[
        str | None, typer.Option(help="Aligned model: a checkpoint or adapter, folder or hub name.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="File with one prompt a line, # begins a comment; or a JSON list.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="First measure, and what best-of-N chooses by.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder; a study cut short goes on where it was.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Comparisons per prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="First seed; the paper's is 55.")] = 55,
    n: Annotated[int, typer.Option(min=1, help="Candidates of the best-of-N arms; 1: without them.")] = 8,
    strength: Annotated[float, typer.Option(help="Of the aligned encoder: 0 original, 1 aligned.")] = 1.0,
    scorer: Annotated[str | None, typer.Option(help="Scores the target: a name, folder or hub name.")] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="A further judge: a scorer's name, weights, or an MLLM; repeatable.")
    ] = None,
    faithfulness: Annotated[str, typer.Option(help="Scorer of images against prompts, or 'none'.")] = "clip",
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    size: Annotated[str | None, typer.Option(help="Pixels: 512, or width x height as in 768x512.")] = None,
    call: Annotated[
        list[str] | None, typer.Option("--call", help="name=value for the pipeline's call; repeatable.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the first there is.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    offload: Annotated[bool, typer.Option(help="Keep the model in main memory, each part on demand.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Drop another study in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Compare a pipeline with its text encoder and with an aligned one in its place (arXiv 2511.22805, section 5).

    The same prompts and seeds with the original and the aligned encoder, each alone and with best-of-N, measured by
    the target, by judges and by CLIP; differences with intervals in report.html; and vote.html, on which people
    choose between the two without knowing which is which.
    """
    if context.invoked_subcommand is not None:
        return
    if model is None or aligned is None or prompts is None or target is None or folder is None:
        raise typer.BadParameter(
            "give --model, --aligned, --prompts, --target and --out; cogguided study --help shows examples"
        )
    arguments = {**read_size(size), **read_values(call)}
    if steps is not None:
        arguments["num_inference_steps"] = steps
    silence_libraries()
    from ..pipelines import CogGuidedPipeline
    from ..pipelines.study.study import run_study

    hold(folder)
    pipe = CogGuidedPipeline.from_pretrained(model, target=target, scorer=scorer, dtype=read_dtype(dtype))
    place(pipe, device, offload)
    try:
        result = run_study(
            pipe,
            aligned,
            prompts,
            target,
            folder,
            seeds=[seed + n * k for k in range(seeds)],
            n=n,
            strength=strength,
            scorer=scorer,
            judges=judge,
            faithfulness=None if faithfulness == "none" else faithfulness,
            overwrite=overwrite,
            progress=not quiet and sys.stderr.isatty(),
            **arguments,
        )
    except KeyboardInterrupt:
        err.print("interrupted: the same command goes on where it was", style="yellow")
        raise typer.Exit(130) from None
    print_study(result, as_json)


@app.command()
@friendly
def tally(
    folder: Annotated[Path, typer.Argument(help="Folder of the study.")],
    choices: Annotated[list[Path], typer.Argument(help="Files that people saved from vote.html.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count what people chose: the preference ratio of aligned to original, with its 95 % interval."""
    from ..pipelines.study.study import tally as count

    print_tally(count(folder, choices), as_json)


def print_study(result: StudyResult, as_json: bool) -> None:
    """Print means of all arms and differences from the original."""
    differences = {arm: {name: vars(e) for name, e in of.items()} for arm, of in result.differences.items()}
    if as_json:
        facts = {"folder": str(result.folder), "means": result.means, "differences": differences}
        out.print_json(data={**facts, "notes": result.notes})
        return
    names = list(next(iter(result.means.values())))
    table = Table("arm", *names)
    for arm, means in result.means.items():
        cells = []
        for name in names:
            told = result.differences.get(arm, {}).get(name)
            change = "" if told is None else f"\n{told.mean:+.3f} ({told.low:+.3f} to {told.high:+.3f})"
            cells.append(f"{means[name]:.3f}{change}")
        table.add_row(arm, *cells)
    out.print(table)
    for note in result.notes:
        err.print(note, style="yellow", highlight=False)
    out.print(f"report.html and vote.html are in {result.folder}", highlight=False, soft_wrap=True)


def print_tally(found: Tally, as_json: bool) -> None:
    """Print what people chose."""
    if as_json:
        facts = {"voters": found.voters, "aligned": found.wins, "original": found.losses, "neither": found.ties}
        out.print_json(data={**facts, "share": vars(found.share), "ratio": vars(found.ratio)})
        return
    ratio, share, (aligned, original) = found.ratio, found.share, found.names
    which = aligned if aligned == "aligned" else "first"
    out.print(
        f"{found.voters} people: {aligned} {found.wins}, {original} {found.losses}, neither {found.ties}\n"
        f"preference {ratio.mean:.2f} : 1 (95 % interval {ratio.low:.2f} to {ratio.high:.2f}); share of the {which} "
        f"{share.mean:.2f} ({share.low:.2f} to {share.high:.2f})",
        highlight=False,
        soft_wrap=True,
    )
