"""The report of a run: one HTML page with curves, differences with intervals, and images before and after."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .checkpoints import State
from .config import FinetuneConfig
from .grids import MOST_ROWS
from .panel import Evaluation, interval

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2433; max-width: 1180px; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem } .row { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0 } figcaption { font-size: 13px; color: #5d6778 }
.alarm { background: #fdecea; padding: .6rem 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid #dfe3ea }
th:first-child, td:first-child { text-align: left }
"""
WIDTH, HEIGHT, MARGIN = 340, 200, 46


def write_report(folder: Path, facts: Mapping[str, Any], state: State, config: FinetuneConfig) -> None:
    """Write `report.html`, whole or not at all, from where a run stands."""
    from ...scorers.benchmark.folder import write_page

    write_page(folder / "report.html", page(folder, facts, state, config))


def page(folder: Path, facts: Mapping[str, Any], state: State, config: FinetuneConfig) -> str:
    """Return the page of a run."""
    evaluations = state.evaluations
    start, last = evaluations[0], evaluations[-1]
    saved = next((e for e in evaluations if e.round == state.saved), start)
    judges = [name for name in last.values if name not in ("target", "faithfulness", "diversity")]
    said = [
        f"{state.round} rounds of {config.method}, {state.seconds / 60:.1f} minutes; stopped by: "
        f"{state.stopped or 'nothing yet'}. Saved: the adapter of round {saved.round}.",
        f"Target: {facts['target']}. {len(facts['prompts'])} prompts to train on, {len(facts['evaluation'])} held "
        f"out, {config.images_per_evaluation} images of each with the same seeds at every evaluation.",
    ]
    if not judges:
        said.append("No held-out judge was given (judges=, --judge): whether the target is exploited shows less.")
    if state.unread:
        said.append(f"{state.unread} images had no valid score; they were left out of training and counted here.")
    if state.alarm:
        said.insert(0, f"ALARM: the target rose while {state.alarm} fell beyond noise; training was stopped.")
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Fine-tuning</title><style>{STYLE}</style>',
        f"<h1>Fine-tuning of {escape(str(facts['model']))}</h1>",
        *(f'<p class="{"alarm" if text.startswith("ALARM") else ""}">{escape(text)}</p>' for text in said),
        "<h2>Held-out prompts, before and after</h2>", _table(start, saved, last),
        "<p>In brackets: 95 % intervals of paired differences, over prompts. Target and judges are in shares of "
        "their range, signed so that higher is what was asked for.</p>",
        '<h2>On the way</h2><div class="row">',
    ]  # fmt: skip
    for name in last.values:
        points = [(e.seconds / 60, e.mean(name)) for e in evaluations]
        bands = [_half(e, name) for e in evaluations]
        parts.append(_figure(curve(points, bands, "minutes"), f"held-out prompts: {name}"))
    for key, name in (("score", "target on training prompts"), ("loss", "loss"), ("grad_norm", "gradient norm")):
        points = [(h["seconds"] / 60, h[key]) for h in state.history if h[key] is not None]
        parts.append(_figure(curve(points, [], "minutes"), name))
    parts.append('</div><h2>Images of held-out prompts</h2><div class="row">')
    for made, what in {e.round: (e, w) for e, w in ((last, "last"), (saved, "saved"), (start, "before"))}.values():
        file = folder / "evaluations" / f"round-{made.round:05d}.png"
        if file.is_file():
            data = base64.b64encode(file.read_bytes()).decode()
            picture = f'<img alt="" src="data:image/png;base64,{data}">'
            parts.append(_figure(picture, f"{what}: round {made.round}, target {made.mean('target'):.3f}"))
    rows = "; ".join(facts["evaluation"][:MOST_ROWS])
    parts.append(f"</div><p>Rows: {escape(rows)}.</p></html>")
    return "\n".join(parts)


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _half(evaluation: Evaluation, name: str) -> float:
    mean, low, _ = interval(evaluation.values[name])
    return mean - low if math.isfinite(low) else 0.0


def _table(start: Evaluation, saved: Evaluation, last: Evaluation) -> str:
    rows = ["<table><tr><th></th><th>before</th><th>saved</th><th>change</th><th>last</th><th>change</th></tr>"]
    for name in last.values:
        cells = [f"{start.mean(name):.3f}"]
        for made in (saved, last):
            mean, low, high = interval(made.values[name] - start.values[name])
            cells += [f"{made.mean(name):.3f}", f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"]
        rows.append(f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join(rows) + "</table>"


def curve(points: Sequence[tuple[float, float]], bands: Sequence[float], across: str) -> str:
    """Draw a line as inline SVG, with a band of +- `bands` round it; points that are no number are left out.

    >>> drawing = curve([(0.0, 1.0), (1.0, 2.0), (2.0, float("nan"))], [], "minutes")
    >>> drawing.startswith("<svg"), drawing.count("<circle")
    (True, 2)
    """
    spread = list(bands) or [0.0] * len(points)
    kept = [(x, y, b) for (x, y), b in zip(points, spread, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not kept:
        return "<p>no values</p>"
    left, right = kept[0][0], max(kept[-1][0], kept[0][0] + 1e-9)
    low, high = min(y - b for _, y, b in kept), max(y + b for _, y, b in kept)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    low, high = low - pad, high + pad

    def at(x: float, y: float) -> str:
        across_ = MARGIN + (x - left) / (right - left) * (WIDTH - MARGIN - 10)
        return f"{across_:.1f},{10 + (high - y) / (high - low) * (HEIGHT - 44):.1f}"

    band = " ".join([at(x, y + b) for x, y, b in kept] + [at(x, y - b) for x, y, b in reversed(kept)])
    line = " ".join(at(x, y) for x, y, _ in kept)
    dot = '<circle cx="{}" cy="{}" r="2.5" fill="#2457d6"/>'
    dots = "".join(dot.format(*at(x, y).split(",")) for x, y, _ in kept)
    ticks = "".join(
        f'<text x="{MARGIN - 5}" y="{at(left, y).split(",")[1]}" text-anchor="end" dy=".3em">{y:.3g}</text>'
        for y in (low + pad, (low + high) / 2, high - pad)
    )
    ends = "".join(
        f'<text x="{at(x, low).split(",")[0]}" y="{HEIGHT - 18}" text-anchor="{anchor}">{x:.3g}</text>'
        for x, anchor in ((left, "start"), (right, "end"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="10" fill="#5d6778">'
        f'<path d="M{MARGIN} 10V{HEIGHT - 34}H{WIDTH - 10}" fill="none" stroke="#c5cbd6"/>'
        f'<polygon points="{band}" fill="#2457d6" opacity=".12"/>'
        f'<polyline points="{line}" fill="none" stroke="#2457d6" stroke-width="1.5"/>{dots}{ticks}{ends}'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{across}</text></svg>'
    )
