"""From the answers in a run's folder to figures: of the scorer, of the references, of two runs compared."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ..._errors import InputError
from ..dimensions import DIMENSIONS, Dimension
from .folder import Plan, Scored, check_same_items, load_run, read_settings
from .metrics import AGREEMENT, NUM_RESAMPLES, Estimate, Judged, compare, evaluate, judged
from .references import COGIP_TRAIN, REFERENCES, TrainFigures, reference

ALL, WITHOUT_ZEROS = "all", "without zeros"
NUM_WORST = 10


def build_results(
    out: str | Path,
    *,
    train: Mapping[str, TrainFigures] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute every figure of a complete run, in JSON's types; nothing is written.

    Memorability comes twice: as it is, and without the human scores that are exactly 0, which in CogIP-Bench
    are very likely missing values.

    Args:
        out: the run's folder.
        train: figures for the reference rows; default: those of CogIP-Bench's training split.
        num_resamples: bootstrap resamples of an interval; 0 for none.
        seed: of the bootstrap.

    Returns:
        "settings" and "plan" of the run; "rows": a dict of dimension, subset, who, items, broken_images and
        metrics (each value, low, high, note) for every read-out and reference; "readouts_compared": the same
        for the first read-out minus the second; "unread": why answers could not be read; "worst": the items
        furthest from people.

    Raises:
        RecordError: the folder holds no run, or one cut short.

    An executed example is in ``tests/scorers/test_benchmark_run.py``.
    """
    plan, items = load_run(Path(out))
    figures = COGIP_TRAIN if train is None else train
    rows, compared = [], []
    for name, subset, part in _subsets(plan, items):
        dim = DIMENSIONS[name]
        said = {readout: _judge(part, readout, plan, dim) for readout in plan.readouts}
        guessed = {r: reference(r, [item.human for item in part], dim, figures[name]) for r in REFERENCES}
        broken = sum(item.answers[plan.readouts[0]].failed == "image" for item in part)
        for who, answers in said.items():
            found = evaluate(answers, num_resamples, seed)
            rows.append(_row(name, subset, who, len(part), broken, found))
        for who, answers in guessed.items():
            found = evaluate(answers, num_resamples, seed, AGREEMENT)
            rows.append(_row(name, subset, who, len(part), 0, found))
        if len(plan.readouts) == 2:
            first, second = plan.readouts
            found = compare(said[first], said[second], num_resamples, seed)
            compared.append(_row(name, subset, f"{first} - {second}", len(part), broken, found))
    return {
        "settings": read_settings(Path(out)),
        "plan": asdict(plan),
        "bootstrap": {"resamples": num_resamples, "seed": seed, "confidence": 0.95},
        "train": {name: asdict(figures[name]) for name in plan.dimensions},
        "rows": rows,
        "readouts_compared": compared,
        "unread": {readout: _reasons(items.values(), readout) for readout in plan.readouts},
        "worst": {name: _worst(plan, items, name) for name in plan.dimensions},
    }


def compare_runs(
    first: str | Path, second: str | Path, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Compute first minus second on the items that both runs hold, with paired bootstrap intervals.

    Read-outs of the same name are compared; where there is none and each run has one, those two.

    Returns:
        "first" and "second": the folders; "items": how many are shared; "left_out": how many only the one and
        only the other holds; "rows" as in `build_results`.

    Raises:
        RecordError: a folder holds no complete run.
        InputError: no items or no read-out in common, or human scores that differ.

    An executed example is in ``tests/scorers/test_benchmark_run.py``.
    """
    (plan, items), (other_plan, others) = load_run(Path(first)), load_run(Path(second))
    shared = check_same_items(items, others)
    pairs = [(r, r) for r in plan.readouts if r in other_plan.readouts]
    if not pairs and len(plan.readouts) == len(other_plan.readouts) == 1:
        pairs = [(plan.readouts[0], other_plan.readouts[0])]
    if not pairs:
        raise InputError(
            f"no read-out in common: {first} has {', '.join(plan.readouts)}, "
            f"{second} has {', '.join(other_plan.readouts)}"
        )
    rows = []
    for name, subset, part in _subsets(plan, {key: items[key] for key in shared}):
        dim = DIMENSIONS[name]
        for one, two in pairs:
            mine = _judge(part, one, plan, dim)
            theirs = _judge([others[item.key] for item in part], two, other_plan, dim)
            found = compare(mine, theirs, num_resamples, seed)
            rows.append(_row(name, subset, one if one == two else f"{one} - {two}", len(part), 0, found))
    return {
        "first": str(first),
        "second": str(second),
        "items": len(shared),
        "left_out": [len(items) - len(shared), len(others) - len(shared)],
        "bootstrap": {"resamples": num_resamples, "seed": seed, "confidence": 0.95},
        "rows": rows,
    }


def _subsets(plan: Plan, items: Mapping[str, Scored]) -> list[tuple[str, str, list[Scored]]]:
    found = []
    for name in plan.dimensions:
        part = [item for item in items.values() if item.dimension == name]
        if part:
            found.append((name, ALL, part))
        without = [item for item in part if item.human != 0]
        if name == "memorability" and 0 < len(without) < len(part):
            found.append((name, WITHOUT_ZEROS, without))
    return found


def _judge(items: Sequence[Scored], readout: str, plan: Plan, dim: Dimension) -> Judged:
    answers = [item.answers[readout] for item in items]
    return judged(
        [item.human for item in items],
        [answer.value for answer in answers],
        dim if plan.same_scale else None,
        [answer.label if answer.label in dim.labels else None for answer in answers],
        [answer.mass for answer in answers],
    )


def _row(
    name: str, subset: str, who: str, count: int, broken: int, metrics: Mapping[str, Estimate]
) -> dict[str, Any]:
    figures = {metric: asdict(estimate) for metric, estimate in metrics.items()}
    return {
        "dimension": name,
        "subset": subset,
        "who": who,
        "items": count,
        "broken_images": broken,
        "metrics": figures,
    }


def _reasons(items: Any, readout: str) -> list[dict[str, Any]]:
    """Count why answers are missing, alike but for the numbers and texts in them; the commonest first."""
    found: dict[str, list[str]] = {}
    for item in items:
        answer = item.answers[readout]
        if answer.failed == "image":
            found.setdefault("image cannot be read", []).append(answer.error)
        elif answer.failed is not None:
            kind = re.sub(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", "N", answer.error.partition(" in the answer ")[0])
            found.setdefault(kind, []).append(answer.error)
    ranked = sorted(found.items(), key=lambda pair: -len(pair[1]))
    return [{"reason": kind, "count": len(errors), "example": errors[0]} for kind, errors in ranked]


def _worst(plan: Plan, items: Mapping[str, Scored], name: str) -> list[dict[str, Any]]:
    """List the items that the first read-out puts furthest from people: by difference, or else by rank."""
    readout = plan.readouts[0]
    read = [i for i in items.values() if i.dimension == name and not math.isnan(i.answers[readout].value)]
    human = np.array([item.human for item in read])
    score = np.array([item.answers[readout].value for item in read])
    if plan.same_scale:
        gaps = np.abs(score - human)
    else:
        gaps = np.abs(stats.rankdata(score) - stats.rankdata(human)) / max(1, len(read))
    order = np.argsort(-gaps, kind="stable")[:NUM_WORST].tolist()
    return [
        {
            "key": read[index].key,
            "image": read[index].image,
            "human": read[index].human,
            "answers": {r: read[index].answers[r].value for r in plan.readouts},
            "gap": float(gaps[index]),
        }
        for index in order
    ]
