"""The report of a run: results.json, report.md, and one HTML page that needs no other file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._errors import ImageError
from ..._reports.pages import data_url, render
from ..._reports.plots import Scale, scatter
from ..dimensions import DIMENSIONS
from ..images import as_pil
from .folder import RESULTS, load_run, write_json, write_page
from .metrics import MANY, NUM_RESAMPLES
from .references import REFERENCES, TrainFigures
from .results import build_results
from .tables import Table, markdown, tables_of

THUMBNAIL = 180
"""Longest side of the pictures in the page, in pixels."""


def write_report(
    out: str | Path,
    *,
    about: Mapping[str, Any] | None = None,
    train: Mapping[str, TrainFigures] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the report of a complete run into its folder and return the results (see `build_results`).

    Args:
        out: the run's folder.
        about: facts for the reader that the answers do not depend on, such as "data" and "split".
        train: figures for the reference rows; default: those of CogIP-Bench's training split.
        num_resamples: bootstrap resamples of an interval.
        seed: of the bootstrap.

    Raises:
        RecordError: the folder holds no run, or one cut short.

    An executed example is in ``tests/scorers/test_benchmark_run.py``.
    """
    folder = Path(out)
    found = build_results(folder, train=train, num_resamples=num_resamples, seed=seed)
    results = {"about": dict(about or {}), **found}
    write_json(folder / RESULTS, results)
    write_page(folder / "report.md", _as_markdown(results))
    write_page(folder / "report.html", _as_html(results, folder))
    return results


def explain(results: Mapping[str, Any]) -> list[str]:
    """Say in sentences what was compared and how the figures are meant.

    An executed example is in ``tests/scorers/test_benchmark_run.py``.
    """
    settings, plan, about = results["settings"], results["plan"], results["about"]
    counts = {row["dimension"]: row["items"] for row in results["rows"] if row["subset"] == "all"}
    parts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    scorer = settings["scorer"] + (f" with {settings['adapter']}" if settings.get("adapter") else "")
    lines = [f"Scorer: {scorer}. Data: {about.get('data', 'as given')}, {parts}."]
    if about.get("split"):
        lines.append(f"Split: {about['split']}.")
    if about.get("limit"):
        lines.append(
            f"A stratified subset: at most {about['limit']} items a dimension, one from each of as many "
            "strata of equal size by human score; the same items for every scorer."
        )
    if settings.get("prompt"):
        lines.append(f'Every image was compared with the text "{settings["prompt"]}".')
    lines += plan["notes"]
    resamples = results["bootstrap"]["resamples"]
    if resamples:
        lines.append(
            f"In brackets: 95 % bootstrap intervals over items (scipy, {resamples} resamples, BCa; "
            f"percentiles above {MANY} items)."
        )
    lines.append(
        "Unread: share of items without a score (answer not readable, too improbable, or image broken). "
        "Correlations, errors and label accuracy are over the items that were read; captured probability is "
        "the mean probability that the model gave to valid answers."
    )
    sources = dict.fromkeys(f"{f['source']} ({f['count']} ratings)" for f in results["train"].values())
    lines.append(f"Reference rows are predictions without a look at the image, from {'; '.join(sources)}.")
    if any(row["subset"] != "all" for row in results["rows"]):
        lines.append(
            "Memorability is shown with and without the human scores that are exactly 0: in CogIP-Bench "
            "nothing lies between 0 and 0.2, so these are very likely missing values."
        )
    return lines


def _unread_lines(results: Mapping[str, Any]) -> list[str]:
    return [
        f"{readout}: {entry['count']} x {entry['reason']} (such as: {entry['example']})"
        for readout, entries in results["unread"].items()
        for entry in entries
    ]


def _as_markdown(results: Mapping[str, Any]) -> str:
    lines = ["# How well the scorer agrees with people", "", *(f"- {line}" for line in explain(results)), ""]
    lines += [markdown(table) for table in tables_of(results["rows"])]
    if results["readouts_compared"]:
        lines += ["## One read-out minus the other, on the same items", ""]
        lines += [markdown(table) for table in tables_of(results["readouts_compared"], signed=True)]
    if unread := _unread_lines(results):
        lines += ["## What could not be read", "", *(f"- {line}" for line in unread), ""]
    lines += ["## Furthest from people", ""]
    for name, items in results["worst"].items():
        header = ("image", "people", *results["plan"]["readouts"])
        rows = tuple((i["key"], f"{i['human']:g}", *(_figure(v) for v in i["answers"].values())) for i in items)
        lines.append(markdown(Table(name.replace("_", " "), header, rows, ())))
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "unread" if value is None or value != value else f"{value:.3f}"


def _as_html(results: Mapping[str, Any], folder: Path) -> str:
    worst = [
        {
            "title": f"{name.replace('_', ' ')}, by {results['plan']['readouts'][0]}",
            "cards": [_card(item) for item in items],
        }
        for name, items in results["worst"].items()
    ]
    return render(
        "benchmark.html", scorer=str(results["settings"]["scorer"]), said=explain(results), references=REFERENCES,
        tables=tables_of(results["rows"]), compared=tables_of(results["readouts_compared"], signed=True),
        plots=_scatters(results, folder), unread=_unread_lines(results), worst=worst,
    )  # fmt: skip


def _scatters(results: Mapping[str, Any], folder: Path) -> list[dict[str, str]]:
    plan, items = load_run(folder)
    panels = []
    for name in plan.dimensions:
        dim = DIMENSIONS[name]
        people = Scale("people", dim.low, dim.high)
        scorer = Scale("scorer", dim.low, dim.high) if plan.same_scale else Scale("scorer")
        for readout in plan.readouts:
            pairs = [(i.human, i.answers[readout].value) for i in items.values() if i.dimension == name]
            row = next(r for r in results["rows"] if r["dimension"] == name and r["who"] == readout)
            rho = row["metrics"]["spearman"]["value"]
            title = f"{name.replace('_', ' ')}, {readout}"
            unread = sum(value != value for _, value in pairs)
            caption = "no rank correlation" if rho is None or rho != rho else f"Spearman {rho:.3f}"
            caption += f", {unread} unread" if unread else ""
            says = f"{title}: {len(pairs) - unread} images by score of people (across) and scorer (up); {caption}"
            drawing = scatter(pairs, people, scorer, says, equal=plan.same_scale)
            panels.append({"drawing": drawing, "title": title, "caption": caption})
    return panels


def _card(item: Mapping[str, Any]) -> dict[str, Any]:
    scores = [f"{name} {_figure(value)}" for name, value in item["answers"].items()]
    lines = [f"people {item['human']:g}", *scores]
    return {"picture": _thumbnail(item["image"]), "lines": lines, "key": item["key"]}


def _thumbnail(image: str) -> str | None:
    """Return the address of a small copy of a picture; None where the file has gone since."""
    try:
        picture = as_pil(image)
    except ImageError:
        return None
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=80)
    return data_url(file.getvalue(), "image/jpeg")
