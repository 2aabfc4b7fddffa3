"""The report of a run: results.json, report.md, and one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..._errors import ImageError
from ..dimensions import DIMENSIONS
from ..images import as_pil
from .folder import RESULTS, load_run, write_json, write_page
from .metrics import MANY, NUM_RESAMPLES
from .plots import scatter
from .references import REFERENCES, TrainFigures
from .results import build_results
from .tables import Table, markdown, tables_of

THUMBNAIL = 180
"""Longest side of the pictures in the page, in pixels."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2433; max-width: 1180px;
  margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; vertical-align: top; padding: .25rem .7rem; border-bottom: 1px solid #dfe3ea }
th { font-weight: 600 } td { white-space: nowrap } td small { display: block }
th:first-child, td:first-child { text-align: left } tr.reference td, small { color: #5d6778 }
.row { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 } figcaption { font-size: 13px }
.cards figure { width: 180px } .cards img { max-width: 180px; max-height: 180px; display: block }
.cards .none { width: 180px; height: 100px; background: #eef0f4; display: grid; place-items: center }
"""


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
    lines = [f"<p>{escape(line)}</p>" for line in explain(results)]
    lines += [_html_table(table) for table in tables_of(results["rows"])]
    if results["readouts_compared"]:
        lines.append("<h2>One read-out minus the other, on the same items</h2>")
        lines += [_html_table(table) for table in tables_of(results["readouts_compared"], signed=True)]
    lines.append('<h2>People and the scorer</h2><div class="row">')
    lines += _scatters(results, folder)
    lines.append("</div>")
    if unread := _unread_lines(results):
        lines.append("<h2>What could not be read</h2><ul>")
        lines += [f"<li>{escape(line)}</li>" for line in unread]
        lines.append("</ul>")
    lines.append("<h2>Furthest from people</h2>")
    for name, items in results["worst"].items():
        by = f"{name.replace('_', ' ')}, by {results['plan']['readouts'][0]}"
        lines.append(f'<h3>{escape(by)}</h3><div class="row cards">')
        lines += [_card(item) for item in items]
        lines.append("</div>")
    scorer = escape(str(results["settings"]["scorer"]))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{scorer}</title>'
    body = "\n".join(lines)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n'
        f"<h1>How well the scorer agrees with people</h1>\n{body}\n</body></html>\n"
    )


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    rows = []
    for row in table.rows:
        kind = ' class="reference"' if row[0] in REFERENCES else ""
        cells = "".join(
            f"<td>{escape(cell).replace(' [', ' <small>[').replace(']', ']</small>')}</td>" for cell in row
        )
        rows.append(f"<tr{kind}>{cells}</tr>")
    notes = "<br>".join(escape(note) for note in table.notes)
    body = "\n".join(rows)
    return (
        f"<h3>{escape(table.title)}</h3>\n"
        f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div><p><small>{notes}</small></p>'
    )


def _scatters(results: Mapping[str, Any], folder: Path) -> list[str]:
    plan, items = load_run(folder)
    panels = []
    for name in plan.dimensions:
        dim = DIMENSIONS[name]
        for readout in plan.readouts:
            pairs = [(i.human, i.answers[readout].value) for i in items.values() if i.dimension == name]
            row = next(r for r in results["rows"] if r["dimension"] == name and r["who"] == readout)
            rho = row["metrics"]["spearman"]["value"]
            title = f"{name.replace('_', ' ')}, {readout}"
            drawing = scatter(pairs, (dim.low, dim.high), (dim.low, dim.high) if plan.same_scale else None)
            unread = sum(value != value for _, value in pairs)
            caption = "no rank correlation" if rho is None or rho != rho else f"Spearman {rho:.3f}"
            caption += f", {unread} unread" if unread else ""
            panels.append(f"<figure>{drawing}<figcaption><b>{escape(title)}</b><br>{caption}</figcaption></figure>")
    return panels


def _card(item: Mapping[str, Any]) -> str:
    scores = "<br>".join(f"{escape(name)} {_figure(value)}" for name, value in item["answers"].items())
    caption = f"people {item['human']:g}<br>{scores}<br><small>{escape(item['key'])}</small>"
    return f"<figure>{_thumbnail(item['image'])}<figcaption>{caption}</figcaption></figure>"


def _thumbnail(image: str) -> str:
    """Embed a small copy of a picture; where the file has gone since, say so."""
    try:
        picture = as_pil(image)
    except ImageError:
        return '<div class="none">not there any more</div>'
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'
