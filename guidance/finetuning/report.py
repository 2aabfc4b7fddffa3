"""The report of a run: one HTML page with curves, differences with intervals, and images before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._reports.pages import change, data_url, render
from ..._reports.plots import Line, Scale, curves
from .checkpoints import State
from .config import FinetuneConfig
from .grids import MOST_ROWS
from .panel import Evaluation, interval


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
    alarm = f"the target rose while {state.alarm} fell beyond noise; training was stopped." if state.alarm else ""
    return render(
        "finetuning.html", model=str(facts["model"]), alarm=alarm, said=said, rows=_rows(start, saved, last),
        plots=_plots(state), grids=_grids(folder, {"last": last, "saved": saved, "before": start}),
        prompts="; ".join(facts["evaluation"][:MOST_ROWS]),
    )  # fmt: skip


def _plots(state: State) -> list[dict[str, str]]:
    """What was measured on the way: the panel's means with their intervals, then what training itself says."""
    time, found = Scale("minutes"), {}
    for name in state.evaluations[-1].values:
        of = [interval(e.values[name]) for e in state.evaluations]
        at = [e.seconds / 60 for e in state.evaluations]
        points = [(x, mean) for x, (mean, _, _) in zip(at, of, strict=True)]
        found[f"held-out prompts: {name}"] = Line(points, [(low, high) for _, low, high in of])
    for key, name in (("score", "target on training prompts"), ("loss", "loss"), ("grad_norm", "gradient norm")):
        found[name] = Line([(h["seconds"] / 60, h[key]) for h in state.history if h[key] is not None])
    return [
        {"drawing": curves([line], time, Scale(), _says(name, line)), "caption": name} for name, line in found.items()
    ]


def _says(name: str, line: Line) -> str:
    values = [value for _, value, _, _ in line.finite()]
    return f"{name}, over minutes: from {values[0]:.3g} to {values[-1]:.3g}" if values else name


def _grids(folder: Path, evaluations: Mapping[str, Evaluation]) -> list[dict[str, str]]:
    """Images of the evaluations, each once, under the last of its names."""
    grids = []
    for made, what in {made.round: (made, what) for what, made in evaluations.items()}.values():
        file = folder / "evaluations" / f"round-{made.round:05d}.png"
        if file.is_file():
            caption = f"{what}: round {made.round}, target {made.mean('target'):.3f}"
            grids.append({"picture": data_url(file.read_bytes(), "image/png"), "caption": caption})
    return grids


def _rows(start: Evaluation, saved: Evaluation, last: Evaluation) -> list[list[str]]:
    rows = []
    for name in last.values:
        cells = [name, f"{start.mean(name):.3f}"]
        for made in (saved, last):
            mean, low, high = interval(made.values[name] - start.values[name])
            cells += [f"{made.mean(name):.3f}", change(mean, low, high)]
        rows.append(cells)
    return rows
