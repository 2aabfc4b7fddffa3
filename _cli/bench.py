"""`cogguided bench`: CogIP-Bench on any scorer, and two of its runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .._defaults import MIN_MASS
from .._errors import InputError
from .console import err, friendly, hold, out
from .options import best_device, read_dtype, silence_libraries

if TYPE_CHECKING:
    from ..scorers import Scorer

EPILOG = """[bold]Examples[/]

cogguided bench --scorer Qwen/Qwen2.5-VL-7B-Instruct --data foolen/CogIP-Bench --out runs/base
--readout greedy,expected --batch-size 8

cogguided bench --scorer Qwen/Qwen2.5-VL-7B-Instruct --adapter my-adapter --data foolen/CogIP-Bench
--out runs/aligned --readout greedy,expected --batch-size 8

cogguided bench --compare runs/aligned runs/base

cogguided bench --scorer emotional_valence --data my_ratings.csv --out runs/mine

cogguided bench --scorer clip --prompt "a beautiful picture" --data test_msg_file --images photos
--dimension aesthetics --limit 100 --out runs/clip

accelerate launch --num_processes 4 -m cogguided bench --scorer ... --data ... --out ...

[bold]Data[/]: a dataset on the Hub; its parquet, or a folder with metadata_*.jsonl; the official
*_messages.json with their *_scores.json (one dimension's folder or the one above), images under --images;
or your own CSV or JSONL with image, dimension, score, where image paths start at the file's folder."""


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("bench", epilog=EPILOG)(friendly(bench))


def bench(
    scorer: Annotated[
        str | None, typer.Option(help="What is tested: a scorer's name, a model's folder, or a hub name.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Human ratings: a file, a folder, or a Hub dataset (see below).")
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the run; the same command resumes it."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder where image paths start; default: that of the data file.")
    ] = None,
    readout: Annotated[
        str | None,
        typer.Option(help="expected, greedy, levels, or several with commas between; for MLLMs. Default: expected."),
    ] = None,
    dimension: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between, or 'all'; default: all, or the one that --scorer names."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only this split, or 'all'; default: test, where there is one.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many items a dimension: a stratified, fixed subset.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Text to compare every image with, for scorers such as clip.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="peft adapter on the model: folder or hub name.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 16,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the first there is.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: bfloat16, on a CPU float32.")
    ] = None,
    min_mass: Annotated[
        float | None,
        typer.Option(help=f"Probability of valid answers below which one is unread. Default: {MIN_MASS}."),
    ] = None,
    pixels: Annotated[
        str | None,
        typer.Option(
            metavar="MIN,MAX",
            help="Fewest and most pixels an image is scaled to, for MLLMs that count them (Qwen).",
        ),
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the bootstrap; the items are the same whatever it is.")
    ] = 0,
    resamples: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples of an interval; 0: none.")
    ] = 2000,
    overwrite: Annotated[bool, typer.Option(help="Drop an earlier run in that folder.")] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B", help="Nothing is scored: the run in folder A minus that in B, paired by item."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Measure how well a scorer agrees with people (CogIP-Bench, arXiv 2511.22805).

    The folder gets results.json, report.md and report.html: Spearman, Pearson, Kendall, MAE, MSE, label
    accuracy, unread share and captured probability per dimension, each with a bootstrap 95 % interval, beside
    three references (train mean, train median, true label known), scatter plots, and the images on which
    people and scorer differ most.

    Answers are kept as they come: after a kill, the same command goes on and scores nothing twice.
    """
    if compare is not None:
        compare_folders(*compare, out_dir, resamples, seed, as_json)
        return
    if scorer is None or data is None or out_dir is None:
        raise typer.BadParameter("give --scorer, --data and --out, or --compare A B")
    from ..scorers import DIMENSIONS
    from ..scorers.benchmark import score_items, write_report
    from ..scorers.benchmark.run import processes
    from ..scorers.benchmark.setup import answer_settings, choose_ratings, load_for, train_of
    from ..scorers.registry import scorer_arguments

    scorer_arguments(scorer)  # an unknown name is told before anything is read
    names = None if dimension in (None, "all") else [name.strip() for name in str(dimension).split(",")]
    if dimension is None and scorer in DIMENSIONS:
        names = [scorer]
    kind = None if dtype is None else read_dtype(dtype)
    limits = None if pixels is None else read_pixels(pixels)
    ratings, chosen_split = choose_ratings(data, images, names, split, limit)
    figures = train_of(data)
    team = processes(device)
    silence_libraries(generator=False)
    given = {"adapter": adapter, "dtype": kind, "min_mass": min_mass, "pixels": limits}
    given["trust_remote_code"] = trust_remote_code or None

    hold(out_dir)

    def load() -> Scorer:
        place = best_device(None if team.device is None and device is None else str(team.device or device))
        return load_for(scorer, given, ratings, batch_size, place)

    try:
        score_items(
            load,
            ratings,
            out_dir,
            readouts=None if readout is None else [name.strip() for name in readout.split(",")],
            prompt=prompt,
            batch_size=batch_size,
            settings=answer_settings(scorer, adapter, dtype, min_mass, limits),
            overwrite=overwrite,
            progress=False if quiet else None,
            team=team,
        )
    except KeyboardInterrupt:
        err.print("interrupted: what was scored is kept; the same command goes on", style="yellow")
        raise typer.Exit(130) from None
    if team.rank > 0:
        return
    about: dict[str, Any] = {
        "data": data,
        "images": None if images is None else str(images),
        "split": chosen_split,
    }
    about |= {"limit": limit, "batch_size": batch_size}
    results = write_report(out_dir, about=about, train=figures, num_resamples=resamples, seed=seed)
    print_results(results, out_dir, as_json)


def read_pixels(text: str) -> tuple[int, int]:
    """Read "MIN,MAX".

    >>> read_pixels("200704,1003520")
    (200704, 1003520)
    """
    fewest, comma, most = text.replace(" ", "").partition(",")
    if not (comma and fewest.isdecimal() and most.isdecimal() and 0 < int(fewest) <= int(most)):
        raise InputError(f"--pixels {text}: expected MIN,MAX in pixels, such as 200704,1003520")
    return int(fewest), int(most)


def compare_folders(
    first: Path, second: Path, folder: Path | None, resamples: int, seed: int, as_json: bool
) -> None:
    from ..scorers.benchmark import compare_runs
    from ..scorers.benchmark.folder import without_nan, write_json, write_page
    from ..scorers.benchmark.tables import markdown, tables_of

    found = compare_runs(first, second, num_resamples=resamples, seed=seed)
    left = found["left_out"]
    summary = (
        f"{first} minus {second}, paired on {found['items']} items"
        + (f" (left out: {left[0]} only in the first, {left[1]} only in the second)" if any(left) else "")
        + ". In brackets: bootstrap 95 % intervals of the difference."
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "comparison.json", found)
        tables = "\n".join(map(markdown, tables_of(found["rows"], signed=True)))
        write_page(folder / "comparison.md", f"# Comparison\n\n{summary}\n\n{tables}")
    if as_json:
        out.print_json(data=without_nan(found))
        return
    print_tables(found["rows"], signed=True)
    out.print(summary, highlight=False, markup=False)


def print_results(results: dict[str, Any], folder: Path, as_json: bool) -> None:
    from ..scorers.benchmark.folder import without_nan
    from ..scorers.benchmark.report import explain

    if as_json:
        out.print_json(data=without_nan(results))
        return

    print_tables(results["rows"])
    for line in explain(results):
        out.print(f"- {line}", highlight=False, markup=False)
    for readout, entries in results["unread"].items():
        for entry in entries:
            err.print(
                f"{readout}: {entry['count']} unread: {entry['example']}",
                style="yellow",
                highlight=False,
                markup=False,
            )
    out.print(f"results.json, report.md and report.html are in {folder}", highlight=False, soft_wrap=True)


def print_tables(rows: list[dict[str, Any]], signed: bool = False) -> None:
    """Print the tables as Rich's; under a terminal's width, intervals go below their values."""
    from ..scorers.benchmark.tables import tables_of

    for table in tables_of(rows, signed):
        drawn = Table(*table.header, title=table.title, title_justify="left")
        for row in table.rows:
            drawn.add_row(*(cell.replace(" [", "\n[") for cell in row))
        out.print(drawn)
        for note in table.notes:
            out.print(note, style="dim", highlight=False, markup=False)
