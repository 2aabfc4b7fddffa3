"""Score every item once, keep each answer as it comes, and report when all are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..._errors import InputError, ModelError, unknown_name
from ..base import DimensionScorer, ReadoutScorer, Scorer, Scores
from ..dimensions import DIMENSIONS
from ..images import load_images
from ..mllm.options import NUMBERED
from ..ratings.reading import Rating
from .folder import (
    Answer,
    Plan,
    Scored,
    append_answers,
    items_digest,
    open_folder,
    pictures_digest,
    read_answers,
    read_plan,
    write_plan,
)

SCORE = "score"
"""Name of the one read-out of a scorer that has no choice of them."""


@dataclass(frozen=True)
class Processes:
    """This process among those of `accelerate launch`.

    Attributes:
        rank: 0 is the one that opens the folder and reports.
        count: how many there are.
        wait: returns when all have called it.
        device: what the launcher gave to this process, None without a launcher.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None
    device: torch.device | None = None


def processes(device: str | None = None) -> Processes:
    """Join the processes of `accelerate launch` (or `torchrun`), or be the only one.

    They talk by way of the processor if `device` is "cpu" or there is no other.

    >>> processes().count
    1
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    from accelerate import PartialState

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    on_cpu = device == "cpu" or accelerator is None or accelerator.type == "mps"
    # One process may have to wait long for another that scores slower.
    state = PartialState(cpu=on_cpu, timeout=timedelta(days=30))
    return Processes(state.process_index, state.num_processes, state.wait_for_everyone, state.device)


def plan_for(scorer: Scorer, ratings: Sequence[Rating], readouts: Sequence[str] | None = None) -> Plan:
    """Say what of a scorer can be compared with what of the data.

    A scorer of dimensions is asked for each of the data's that it knows. One that bears a dimension's name is
    compared with that dimension. Any other is ranked against every dimension of the data, since its numbers
    mean something else.

    Raises:
        InputError: nothing in common, or read-outs asked of a scorer that has no choice of them;
            UnknownNameError for a read-out that there is not.

    >>> from ..models.fake import FakeScorer
    >>> item = Rating(Path("a.png"), "memorability", 0.5, "memorability/a.png")
    >>> plan_for(FakeScorer(), [item]).same_scale, plan_for(FakeScorer("memorability"), [item]).same_scale
    (False, True)
    """
    _check_readouts(readouts)
    in_data = [name for name in DIMENSIONS if any(r.dimension == name for r in ratings)]
    if isinstance(scorer, ReadoutScorer):
        names = tuple(dict.fromkeys(readouts or NUMBERED[:1]))
    elif readouts:
        raise InputError(f"scorer '{scorer.name}' has no choice of read-outs: leave --readout out")
    else:
        names = (SCORE,)
    if isinstance(scorer, DimensionScorer):
        known = [name for name in in_data if name in scorer.dimensions]
        scales = [(s.low, s.high) for s in map(scorer.with_dimension, known)]
    elif scorer.name in DIMENSIONS:
        known = [name for name in in_data if name == scorer.name]
        scales = [(scorer.low, scorer.high) for _ in known]
    else:
        note = _ranked_note(scorer, "none of the four dimensions")
        return Plan(scorer.name, tuple(in_data), names, False, len(ratings), (note,))
    if not known:
        raise InputError(f"scorer '{scorer.name}' has none of the data's dimensions ({', '.join(in_data)})")
    left_out = [name for name in in_data if name not in known]
    notes = [f"The scorer knows no {', '.join(left_out)}: those ratings are left out."] if left_out else []
    same = scales == [(DIMENSIONS[name].low, DIMENSIONS[name].high) for name in known]
    if not same:
        notes.append(_ranked_note(scorer, "on a scale of its own"))
    count = sum(rating.dimension in known for rating in ratings)
    return Plan(scorer.name, tuple(known), names, same, count, tuple(notes))


def _check_readouts(names: Sequence[str] | None) -> None:
    for name in names or ():
        if name not in NUMBERED:
            raise unknown_name("readout", name, NUMBERED)


def _ranked_note(scorer: Scorer, why: str) -> str:
    return (
        f"Scorer '{scorer.name}' ({scorer.low:g} to {scorer.high:g}) is {why}: its numbers are ranked with "
        "the human scores of each dimension; errors and label accuracy would compare two different scales."
    )


def score_items(
    scorer: Scorer | Callable[[], Scorer],
    ratings: Sequence[Rating],
    out: str | Path,
    *,
    readouts: Sequence[str] | None = None,
    prompt: str | None = None,
    batch_size: int = 16,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    team: Processes | None = None,
) -> Plan:
    """Score every item that the folder has no answer for; answers are kept batch by batch.

    Called again after a kill, it goes on where the other stopped. Under `accelerate launch` every process
    takes its share of the batches, and all return when all are done. An image that cannot be read, or an
    answer, is kept with the reason.

    Args:
        scorer: a scorer, or a function that loads it, called only if there is something to score.
        ratings: what `read_ratings` gave.
        out: the run's folder.
        readouts: "expected", "greedy" or both, on one load and one look at each image; default: expected.
        prompt: text to compare every image with, for a scorer that needs one.
        batch_size: images at a time.
        settings: what else the answers depend on, in JSON's types; a run with others is not gone on with.
        overwrite: drop an earlier run in the folder.
        progress: show a bar: True, False, or None for only on a terminal.
        team: the processes; default: those of the launcher.

    Raises:
        RecordError: the folder holds something else, or a run with other settings.
        InputError: nothing to compare, a prompt missing, or the ratings empty; UnknownNameError for another
            read-out.
        ModelError: the device is out of memory.

    Executed examples are in ``tests/scorers/test_benchmark_run.py``.
    """
    if not ratings or batch_size < 1:
        raise InputError(f"expected ratings and batch_size >= 1, got {len(ratings)} and {batch_size}")
    _check_readouts(readouts)
    out, team = Path(out), team or processes()
    if team.rank == 0:
        asked = {
            "scorer": scorer.name if isinstance(scorer, Scorer) else "",
            "readouts": None if readouts is None else list(readouts),
            "prompt": prompt,
            "items": len(ratings),
            "items_digest": items_digest(ratings),
            "pictures_digest": pictures_digest(ratings),
            **(settings or {}),
        }
        open_folder(out, asked, overwrite)
    team.wait()
    done, plan = read_answers(out), read_plan(out)
    team.wait()  # before anyone adds to what others still read
    if plan is None or any(r.key not in done for r in ratings if r.dimension in plan.dimensions):
        loaded = scorer if isinstance(scorer, Scorer) else scorer()
        plan = plan_for(loaded, ratings, readouts)
        if team.rank == 0:
            write_plan(out, plan)
        batches = _batches([r for r in ratings if r.key not in done], plan, batch_size)
        _score(loaded, plan, batches[team.rank :: team.count], prompt, out, team.rank, progress)
    team.wait()
    return plan


def _batches(ratings: Sequence[Rating], plan: Plan, size: int) -> list[dict[Path, list[Rating]]]:
    """Group items to batches of images that are asked for the same dimensions."""
    by_image: dict[Path, list[Rating]] = {}
    for rating in ratings:
        if rating.dimension in plan.dimensions:
            by_image.setdefault(rating.image, []).append(rating)
    alike: dict[tuple[str, ...], list[Path]] = {}
    for image, items in by_image.items():
        alike.setdefault(tuple(item.dimension for item in items), []).append(image)
    return [
        {image: by_image[image] for image in images[start : start + size]}
        for images in alike.values()
        for start in range(0, len(images), size)
    ]


def _score(
    scorer: Scorer,
    plan: Plan,
    batches: Sequence[Mapping[Path, Sequence[Rating]]],
    prompt: str | None,
    out: Path,
    rank: int,
    progress: bool | None,
) -> None:
    if scorer.needs_prompt and prompt is None:
        raise InputError(
            f"scorer '{scorer.name}' compares images with a text: give the one to compare every image with, "
            'such as --prompt "a beautiful picture"'
        )
    total = sum(len(items) for batch in batches for items in batch.values())
    hidden = rank > 0 or (None if progress is None else not progress)
    with tqdm(total=total, desc="scoring", unit="answer", disable=hidden, leave=False) as bar:
        for batch in batches:
            try:
                scored = list(_score_batch(scorer, plan, batch, prompt))
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"out of memory with {len(batch)} images at a time: run again with a smaller "
                    "--batch-size; what was scored is kept"
                ) from error
            append_answers(out, rank, scored)
            bar.update(len(scored))


def _score_batch(
    scorer: Scorer, plan: Plan, batch: Mapping[Path, Sequence[Rating]], prompt: str | None
) -> Iterator[Scored]:
    pictures, broken = load_images(list(batch), on_error="nan")
    good = [picture for picture in pictures if picture is not None]
    names = [item.dimension for item in next(iter(batch.values()))]
    found: dict[str, dict[str, Scores]] = {}
    if good and isinstance(scorer, ReadoutScorer):
        found = scorer.score_readouts(good, names, plan.readouts)
    elif good and isinstance(scorer, DimensionScorer):
        found = {SCORE: scorer.score_all(good, names)}
    elif good:
        scores = scorer(good, None if prompt is None else [prompt] * len(good))
        found = {SCORE: dict.fromkeys(names, scores)}
    found = {readout: {name: s.cpu() for name, s in by_name.items()} for readout, by_name in found.items()}
    place = 0
    for items, reason in zip(batch.values(), broken, strict=True):
        for item in items:
            answers = {
                readout: (
                    Answer(float("nan"), error=reason, failed="image")
                    if reason is not None
                    else _answer(found[readout][item.dimension], place)
                )
                for readout in plan.readouts
            }
            yield Scored(item.key, item.dimension, item.score, str(item.image.absolute()), answers)
        place += reason is None


def _answer(scores: Scores, index: int) -> Answer:
    valid = bool(scores.valid[index])
    error = None if scores.errors is None else scores.errors[index]
    return Answer(
        float(scores.values[index].detach()),
        float("nan") if scores.std is None else float(scores.std[index]),
        float("nan") if scores.mass is None else float(scores.mass[index]),
        None if scores.labels is None else scores.labels[index],
        None if valid else (error or "not valid"),
        None if valid else "answer",
    )
