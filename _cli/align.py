"""`cogguided align`: train a multimodal LLM on human ratings, and merge an adapter into a plain model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .._errors import InputError, unknown_name
from .console import err, friendly, hold, out
from .finetune import push
from .options import meanings, read_dtype, read_values

if TYPE_CHECKING:
    from ..scorers.alignment import AlignmentConfig, AlignmentResult

EPILOG = """[bold]Examples[/]

cogguided align --model Qwen/Qwen2.5-VL-7B-Instruct --data foolen/CogIP-Bench --output runs/aligned

cogguided align --model Qwen/Qwen2.5-VL-7B-Instruct --data ratings.csv --images photos --held-out 0.1
--value-weight 4 --vision lora --projector lora --output runs/mine

cogguided align --model embedded --data ratings.csv --minutes 10 --output runs/small

cogguided align --model embedded --adapter runs/small --data ratings.csv --method grpo
--learning-rate 1e-5 --output runs/rewarded

accelerate launch --num_processes 4 -m cogguided align --model ... --data ... --output ...

cogguided align merge runs/aligned runs/plain

cogguided align push runs/aligned me/judge --license apache-2.0 --benchmark runs/bench

[bold]Settings[/] not named here are given with --set; cogguided align settings lists them all.

[bold]Data[/]: a dataset on the Hub, parquet, the official CogIP-Bench files, or your own CSV or JSONL with
image, dimension, score; as for cogguided bench. Of data with a split "train", that one is taken. A column std
of a CSV, TSV or JSONL says how sure each rating is, for --loss answers."""

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


def register(parent: typer.Typer) -> None:
    """Add the command, with the commands below it, to an app."""
    app.command()(push)
    parent.add_typer(app, name="align")


@app.callback(invoke_without_command=True, epilog=EPILOG)
@friendly
def align(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(help="'embedded', a model's folder or hub name; or an adapter's, to go on with."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Human ratings: a file, a folder, or a Hub dataset.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the scorer and its checkpoints.")] = None,
    method: Annotated[str, typer.Option(help="sft: learn the ratings; grpo: learn by reward.")] = "sft",
    images: Annotated[Path | None, typer.Option(help="Folder where image paths start.")] = None,
    dimension: Annotated[str | None, typer.Option(help="Names with commas between; default: all.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Only this split; default: train, if there is one.")
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option(help="Ratings to evaluate on: as --data; of a split 'test', that one.")
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Or: this share of the images is kept for it.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Adapter on --model to go on with; it says what trains.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="cross_entropy, triangular (the paper's), or answers.")
    ] = None,
    value_weight: Annotated[
        float | None, typer.Option(min=0, help="Weight of the term on the expected score.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="frozen, lora, dora or full.")] = None,
    vision: Annotated[str | None, typer.Option(help="Vision tower: frozen, lora, dora or full.")] = None,
    projector: Annotated[str | None, typer.Option(help="frozen, lora, dora or full.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the adapters.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of the language model.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the ratings.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so much time.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Ratings a step, over all processes.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Ratings a process sees at once; less takes less memory.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    bits: Annotated[int | None, typer.Option(help="Frozen weights in 8 or 4 bits (bitsandbytes).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything drawn.")] = None,
    report_to: Annotated[str | None, typer.Option(help="none, tensorboard or wandb.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of any setting; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop an earlier run in the folder.")
    ] = False,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Teach a multimodal LLM to see images as people do, from human ratings (CogIP-Bench, arXiv 2511.22805).

    The folder gets an adapter with everything that was trained, which scores as it stands (cogguided score
    photos --scorer FOLDER). Settings are the paper's unless told otherwise. With the same command and
    --resume a run that was killed goes on from its last checkpoint.
    """
    if context.invoked_subcommand is not None:
        return
    if model is None or data is None or output is None:
        raise typer.BadParameter("give --model, --data and --output; cogguided align --help shows examples")
    given = {
        name: value
        for name, value in context.params.items()
        if name in _setting_names() and value is not None
    }
    config = settings_for(model, {**given, **read_values(set_)})
    from ..scorers.alignment import align as run

    hold(output)
    try:
        result = run(
            model,
            data,
            output,
            config,
            evaluation=evaluation,
            images=images,
            dimensions=None if dimension is None else [name.strip() for name in dimension.split(",")],
            split=split,
            adapter=adapter,
            resume=resume,
            overwrite=overwrite,
            trust_remote_code=trust_remote_code,
        )
    except KeyboardInterrupt:
        err.print(
            "interrupted: the same command with --resume goes on from the last checkpoint", style="yellow"
        )
        raise typer.Exit(130) from None
    print_result(result, as_json)


@app.command()
@friendly
def merge(
    adapter: Annotated[str, typer.Argument(help="Folder or hub name of an adapter.")],
    output: Annotated[Path, typer.Argument(help="A new folder for the plain model.")],
    model: Annotated[str | None, typer.Option(help="Its base, where the adapter does not say it.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: as the base is stored.")
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
) -> None:
    """Write a plain model out of an adapter and its base: it scores alike, and transformers opens it."""
    from ..scorers.alignment import merge as run

    folder = run(adapter, output, model, None if dtype is None else read_dtype(dtype), trust_remote_code)
    out.print(f"saved {folder}", highlight=False, soft_wrap=True)


@app.command()
@friendly
def settings(
    model: Annotated[str, typer.Option(help="'embedded', or any other for the paper's recipe.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every setting of a training run with its default, for --set, and the presets by kind of model."""
    from ..scorers.alignment import AlignmentConfig
    from ..scorers.alignment.config import PRESETS

    config = settings_for(model, {})
    if as_json:
        out.print_json(data=config.to_dict())
        return
    table = Table("setting", "default", "what")
    told = meanings(AlignmentConfig)
    for name, value in config.to_dict().items():
        table.add_row(name, str(value), told.get(name, ""))
    out.print(table)
    presets = Table("preset for", "learning_rate", "eta", "from")
    for own in PRESETS.values():
        whence = "the paper" if own.from_paper else "Qwen2.5-VL's; untried"
        presets.add_row(own.name, f"{own.learning_rate:g}", f"{own.eta:g}", whence)
    out.print(presets)


def settings_for(model: str, values: dict[str, Any]) -> AlignmentConfig:
    """The settings to start from for a model, with some values in their place.

    Raises:
        UnknownNameError: there is no setting of that name.
        InputError: a value out of range.

    >>> settings_for("embedded", {"loss": "answers"}).rank
    32
    """
    from ..scorers.alignment import recipe

    known = _setting_names()
    for name in values:
        if name not in known:
            raise unknown_name("setting", name, known)
    if isinstance(values.get("pixels"), list):
        values = {**values, "pixels": tuple(values["pixels"])}
    try:
        return dataclasses.replace(recipe(model), **values)
    except TypeError as error:  # a word where a number should be
        raise InputError(f"a setting has a value of the wrong kind: {error}") from error


def _setting_names() -> list[str]:
    from ..scorers.alignment import AlignmentConfig

    return [field.name for field in dataclasses.fields(AlignmentConfig)]


def print_result(result: AlignmentResult, as_json: bool) -> None:
    if as_json:
        facts = {"folder": str(result.folder), "steps": result.steps, "seconds": round(result.seconds, 1)}
        out.print_json(data={**facts, "metrics": result.metrics})
        return
    if result.metrics:
        table = Table("held out", "value")
        for name, value in result.metrics.items():
            table.add_row(name.replace("_", " "), f"{value:.4g}")
        out.print(table)
    out.print(
        f"{result.steps} steps in {result.seconds:.0f} s; the scorer is in {result.folder}",
        highlight=False,
        soft_wrap=True,
    )
