"""`cogguided finetune`: teach a generator, by LoRA, to draw what a target likes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .._errors import InputError, unknown_name
from .console import err, friendly, hold, out
from .options import best_device, read_dtype, read_size, read_values, silence_libraries

if TYPE_CHECKING:
    from ..guidance.finetuning import FinetuneConfig
    from ..pipelines.finetuning import FinetuneResult

EPILOG = """[bold]Examples[/]

cogguided finetune --model embedded --target emotional_valence --prompts prompts.txt --minutes 10
--output runs/joyful

cogguided finetune --model stabilityai/stable-diffusion-xl-base-1.0 --dtype bfloat16 --target memorability
--scorer runs/aligned --prompts prompts.txt --judge Qwen/Qwen2.5-VL-7B-Instruct --low-memory --output runs/sdxl

cogguided finetune --model ... --target ... --prompts ... --output runs/sdxl --resume

accelerate launch --num_processes 2 -m cogguided finetune --model ... --target ... --prompts ... --output ...

cogguided finetune push runs/joyful me/joyful --license mit

[bold]Use[/]: pipe.load_lora_weights("runs/joyful") in plain diffusers.

[bold]Settings[/] not named here are given with --set; cogguided finetune settings lists them all."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


def register(parent: typer.Typer) -> None:
    """Add the command, with the command below it, to an app."""
    parent.add_typer(app, name="finetune")


@app.callback(invoke_without_command=True, epilog=EPILOG)
@friendly
def finetune(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help="'embedded', a pipeline's folder, or a hub name.")] = None,
    target: Annotated[
        str | None, typer.Option(help="What to get more of: a name, or weights as in 'memorability=1,clip=0.5'.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="File with prompts to train on, one a line, # begins a comment.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the LoRA, report.html and checkpoints.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="nft: learns from good and bad images; rwr: from good ones; dpo: from pairs; drtune: follows the "
            "target's gradient, quickest where it has one (MLLM, CLIP)."
        ),
    ] = "nft",
    evaluation: Annotated[
        Path | None, typer.Option(help="File with held-out prompts; default: a fifth of the prompts.")
    ] = None,
    anchors: Annotated[
        Path | None, typer.Option(help="File with prompts of other things, whose images should stay as they are.")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="Scores the target: a name, folder or hub name.")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="Judges held-out images only: a scorer's name, weights, or an MLLM; repeatable."),
    ] = None,
    faithfulness: Annotated[str, typer.Option(help="Scorer of images against prompts, or 'none'.")] = "clip",
    minutes: Annotated[float | None, typer.Option(help="Stop after so much time.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of sample, score, fit at most.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the LoRA.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the LoRA.")] = None,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory", help="For a small card: one image at a time, activations computed anew, scorer in 4 bits."
        ),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps of images to learn from; fewer is quicker.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Pixels: 512, or width x height as in 768x512.")] = None,
    call: Annotated[
        list[str] | None, typer.Option("--call", help="name=value for the pipeline's call; repeatable.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of any setting; repeatable.")
    ] = None,
    report_to: Annotated[str | None, typer.Option(help="none, tensorboard or wandb.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything drawn.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the first there is.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the base model: float32, bfloat16 or float16.")] = "float32",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last round.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Drop an earlier run in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Fine-tune a text-to-image pipeline by reward, and get a plain diffusers LoRA.

    Each round samples images of some prompts, scores them, and learns from which were better than others of the same
    prompt. Held-out prompts are judged on the way by the target, by judges it never sees, and for faithfulness and
    diversity; when the target rises while one of them falls beyond noise, the run stops and keeps the best.
    """
    if context.invoked_subcommand is not None:
        return
    if model is None or target is None or prompts is None or output is None:
        raise typer.BadParameter(
            "give --model, --target, --prompts and --output; cogguided finetune --help shows examples"
        )
    named = ("method", "minutes", "rounds", "learning_rate", "rank", "report_to", "seed")
    given = {name: context.params[name] for name in named if context.params[name] is not None}
    if low_memory:
        given["low_memory"] = True
    if steps is not None:
        given["num_inference_steps"] = steps
    config = settings_for({**given, **read_values(set_)}, model)
    arguments = {**read_size(size), **read_values(call)}
    silence_libraries()
    from ..pipelines import CogGuidedPipeline
    from ..pipelines.finetuning import check_run, read_anchors
    from ..pipelines.finetuning import finetune as run

    training, _ = check_run(prompts, output, config, evaluation, resume, overwrite)  # before anything is loaded
    read_anchors(anchors, training)
    hold(output)
    place = best_device(device)
    judged_by: Any = scorer
    if low_memory and scorer is not None and place.type == "cuda":
        from ..scorers import load_scorer

        judged_by = load_scorer(scorer, bits=4)
    pipe = CogGuidedPipeline.from_pretrained(model, target=target, scorer=judged_by, dtype=read_dtype(dtype))
    pipe.to(place)
    try:
        result = run(
            pipe,
            None,
            prompts,
            output,
            config,
            evaluation=evaluation,
            anchors=anchors,
            judges=judge,
            faithfulness=None if faithfulness == "none" else faithfulness,
            resume=resume,
            overwrite=overwrite,
            progress=not quiet and sys.stderr.isatty(),
            **arguments,
        )
    except KeyboardInterrupt:
        err.print("interrupted: the same command with --resume goes on from the last round", style="yellow")
        raise typer.Exit(130) from None
    print_result(result, as_json)


@app.command()
@friendly
def push(
    folder: Annotated[Path, typer.Argument(help="Of a finished run.")],
    name: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub; made unless it is there.")],
    license_: Annotated[
        str | None, typer.Option("--license", help="As the Hub calls it, such as apache-2.0; default: the folder's.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="OWNER/NAME of the base, where the folder does not name one of the Hub.")
    ] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="Hub name of data it learned from; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A further tag; repeatable.")] = None,
    benchmark: Annotated[
        Path | None, typer.Option(help="Of a judge: its run of cogguided bench, for figures with intervals.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    pull_request: Annotated[bool, typer.Option("--pull-request", help="Open one in place of a commit.")] = False,
    to: Annotated[
        Path | None, typer.Option(help="Only write what would be uploaded into this new folder, to look at it.")
    ] = None,
) -> None:
    """Publish a run on the Hugging Face Hub with a model card: an adapter or model of align, a LoRA of finetune.

    The token is that of `hf auth login`, or HF_TOKEN. A card there whose text was changed keeps its text.
    """
    silence_libraries()
    from ..integrations.hub import CardFacts, push_to_hub, save_for_hub

    card = CardFacts(license=license_, base_model=base_model, datasets=dataset or (), tags=tag or ())
    if to is not None:
        save_for_hub(folder, to, name, card, benchmark=benchmark)
        out.print(f"written to {to}; nothing was uploaded", highlight=False, soft_wrap=True)
        return
    made = push_to_hub(
        folder, name, card, benchmark=benchmark, private=private or None, create_pr=pull_request
    )
    out.print(f"published: {made.pr_url or made.commit_url}", highlight=False, soft_wrap=True)


@app.command()
@friendly
def settings(
    model: Annotated[str, typer.Option(help="'embedded', or any other.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every setting of a fine-tuning run with its default, for --set."""
    from ..guidance.finetuning import FinetuneConfig
    from .options import meanings

    config = settings_for({}, model)
    if as_json:
        out.print_json(data=config.to_dict())
        return
    table = Table("setting", "default", "what")
    told = meanings(FinetuneConfig)
    for name, value in config.to_dict().items():
        table.add_row(name, str(value), told.get(name, ""))
    out.print(table)


def settings_for(values: dict[str, Any], model: str = "") -> FinetuneConfig:
    """The settings to start from for a model, with some values in their place.

    Raises:
        UnknownNameError: there is no setting of that name.
        InputError: a value out of range, or of the wrong kind.

    >>> settings_for({"rank": 8}).rank
    8
    """
    from ..guidance.finetuning import FinetuneConfig, recipe

    known = [field.name for field in dataclasses.fields(FinetuneConfig)]
    for name in values:
        if name not in known:
            raise unknown_name("setting", name, known)
    if isinstance(values.get("target_modules"), list):
        values = {**values, "target_modules": tuple(values["target_modules"])}
    try:
        return dataclasses.replace(recipe(model == "embedded"), **values)
    except TypeError as error:  # a word where a number should be
        raise InputError(f"a setting has a value of the wrong kind: {error}") from error


def print_result(result: FinetuneResult, as_json: bool) -> None:
    """Print held-out values before and after, and where everything is."""
    before, saved = result.before, result.saved
    if as_json:
        means = {name: {"before": before.mean(name), "saved": saved.mean(name)} for name in before.values}
        facts = {"folder": str(result.folder), "rounds": result.rounds, "seconds": round(result.seconds, 1)}
        told = {"stopped": result.stopped, "alarm": result.alarm, "saved_round": result.saved_round}
        out.print_json(data={**facts, **told, "unread": result.unread, "held_out": means})
        return
    from ..guidance.finetuning.panel import interval

    table = Table("held-out prompts", "before", "saved", "change, with its 95 % interval")
    for name in before.values:
        mean, low, high = interval(saved.values[name] - before.values[name])
        change = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        table.add_row(name, f"{before.mean(name):.3f}", f"{saved.mean(name):.3f}", change)
    out.print(table, markup=False)
    if result.alarm is not None:
        err.print(
            f"alarm: the target rose while {result.alarm} fell beyond noise, so the run was stopped; "
            f"the adapter of round {result.saved_round} is what is kept",
            style="yellow",
            highlight=False,
        )
    out.print(
        f"{result.rounds} rounds in {result.seconds:.0f} s; the LoRA of round {result.saved_round} and report.html "
        f"are in {result.folder}",
        highlight=False,
        soft_wrap=True,
    )
