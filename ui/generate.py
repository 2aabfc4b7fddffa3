"""The Generate tab: a prompt, what people should feel, and candidates that come, best first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from .._claiming import free_name
from .._errors import GenerationError, InputError
from ..guidance import Candidate, Noise, Variations
from ..pipelines import CogGuidedOutput
from ..pipelines.records.record import file_name
from ..scorers import DIMENSIONS
from . import drawing
from .code import command, python_code
from .models import Models
from .pieces import Pictures, empty, notes, number, problem, status, tiles
from .settings import VARIATIONS, Settings
from .working import Page, Session, Work, told

EVERY = 0.25
"""Seconds between looks at work under way."""


def best_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates as they are shown: chosen ones, then by rank, those held back and not valid last.

    >>> from PIL import Image
    >>> made = [Candidate(Image.new("RGB", (1, 1)), "a", seed, score=seed / 10) for seed in range(3)]
    >>> [c.seed for c in best_first(made)]
    [2, 1, 0]
    """
    return sorted(candidates, key=lambda c: (not c.chosen, c.held_back is not None, *c.rank))


@dataclass(frozen=True, eq=False)
class Made:
    """What a call made, where it is kept, and what went wrong."""

    output: CogGuidedOutput
    folder: Path | None
    error: str = ""


def make(settings: Settings, page: Page) -> Made:
    """Make images and save them in a folder of their own, so that they are kept if the page is closed meanwhile."""
    said = ""
    try:
        output = settings.make(page.models.pipe(settings.model))
    except GenerationError as error:
        if error.output is None:
            raise
        output, said = error.output, problem(told(error))
    folder = page.out / settings.folder_name
    try:
        return Made(output, output.save(free_name(folder) if folder.exists() else folder), said)
    except Exception as error:
        return Made(output, None, said + problem(told(error)))


def run(session: Session, page: Page, settings: Settings) -> Iterator[tuple[str, list[Candidate]]]:
    """Make images, and yield what to say and the candidates so far, whenever there is something new.

    The session has the output in the end, saved in a folder of its own; stopping keeps what there is.

    Args:
        session: of the page; its work is what `stop` ends.
        page: whose models make them, and whose folder they go to.
        settings: what to make.
    """
    if session.work is not None and not session.work.wait(0):
        raise InputError("this page is at work already: stop it, or wait for it")
    session.settings, session.output, session.folder = settings, None, None
    session.shown, session.picked, session.looked = [], None, {}
    expected = settings.expected
    work = Work(lambda: make(settings, page))
    session.work = work
    try:
        seen: Any = None
        while not work.wait(EVERY):
            made = work.watch.candidates
            now = [(id(c.image), c.score, c.finished) for c in made]
            if now != seen or not made:
                seen, session.shown = now, best_first(made)
                done = len(made) / expected if made else None
                yield status(_progress(work, made, expected), done, busy=True), list(made)
        yield _finish(session, work, page), list(session.shown)
    finally:
        work.stop()  # the page was closed, if it still runs


def _progress(work: Work[Any], made: Sequence[Candidate], expected: int) -> str:
    if work.watch.stopped:
        return "stopping …"
    if not made:
        return f"drawing … {work.watch.evaluations} network evaluations" if work.watch.evaluations else "loading …"
    return f"{len(made)} of {expected} candidates, {work.watch.seconds:.1f} s"


def _finish(session: Session, work: Work[Made], page: Page) -> str:
    """Take over what was made, and return what to say."""
    if work.error is not None:
        return problem(told(work.error))
    if work.result is None:
        return status("stopped before the first image was made")
    output, session.folder = work.result.output, work.result.folder
    session.output, session.shown = output, best_first(output.candidates)
    stopped = "stopped: " if output.interrupted else ""
    where = "" if session.folder is None else f", kept in {page.told(session.folder)}"
    kept = f"{stopped}{len(output.candidates)} candidates in {output.seconds:.1f} s{where}"
    return work.result.error + status(kept) + notes(output.notes)


def shown(session: Session, pictures: Pictures) -> str:
    """Return the candidates as the page shows them."""
    if session.settings is None or not session.shown:
        return empty("Nothing yet: type a prompt, say what people should feel, and press Generate.")
    return tiles(session.shown, pictures, session.settings.prompt, session.picked)


def pick(session: Session, index: int) -> Candidate:
    """Choose the candidate whose details are shown.

    Raises:
        InputError: there is none of that number.
    """
    if not 0 <= index < len(session.shown):
        raise InputError(f"candidate {index + 1}: there are {len(session.shown)}; make images first")
    session.picked = index
    return session.shown[index]


def details(session: Session, models: Models, pictures: Pictures) -> str:
    """Return all that is known of the chosen candidate, its scores beside the others'."""
    candidate = session.candidate()
    if candidate is None or session.settings is None:
        return empty("Choose a candidate to see why it is where it is.")
    if session.output is not None and id(candidate.image) not in session.looked:
        looked = models.look(models.pipe(session.settings.model), session.shown)
        session.looked = {id(c.image): found for c, found in zip(session.shown, looked, strict=True)}
    facts = {
        "wording": candidate.prompt,
        "seed": "–" if candidate.seed is None else str(candidate.seed),
        "made by": str(candidate.origin.get("guidance", "one call")),
        "state": _state(candidate),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    picture = f'<img src="{pictures.url(candidate.image)}" alt="The chosen candidate: {escape(candidate.prompt)}">'
    return (
        f'<div class="cg-details"><figure>{picture}</figure><div><dl>{rows}</dl>'
        f"{_scores(session, candidate)}</div></div>"
    )


def _state(candidate: Candidate) -> str:
    if not candidate.valid:
        return f"not valid: {candidate.error}"
    if candidate.held_back is not None:
        return f"cannot win: {candidate.held_back}"
    return "chosen" if candidate.chosen else "finished" if candidate.finished else "a draft"


def _scores(session: Session, candidate: Candidate) -> str:
    """A table of the candidate's scores, those it was chosen by first, each among the others'."""
    assert session.settings is not None
    assert session.picked is not None
    weights = dict(session.settings.target)
    ranges = {name: (dim.low, dim.high) for name, dim in DIMENSIONS.items()}
    if session.output is not None:
        ranges |= {name: (low, high) for name, (low, high) in session.output.facts["call"]["ranges"].items()}
    names = list(dict.fromkeys([*weights, *candidate.scores, *(DIMENSIONS if session.looked else ())]))
    lines = []
    for name in names:
        values = [_value(session, c, name) for c in session.shown]
        mine = values[session.picked]
        spread = candidate.stds.get(name, session.looked.get(id(candidate.image), {}).get(name, (0.0, None))[1])
        said = number(mine) + ("" if spread is None or mine is None else f" ± {spread:.2f}")
        low, high = ranges.get(name, (0.0, 1.0))
        weight = f"{weights[name]:+g}" if name in weights else ""
        lines.append(
            f"<tr><th scope='row'>{escape(name.replace('_', ' '))}</th><td>{weight}</td><td>{said}</td>"
            f"<td>{drawing.strip(values, session.picked, low, high, name)}</td></tr>"
        )
    if not lines:
        return "<p class='cg-note'>Nothing is scored yet.</p>"
    head = "<tr><th scope='col'>score</th><th scope='col'>weight</th><th scope='col'>this one</th>"
    later = "<p class='cg-note'>The other dimensions follow when all is done.</p>"
    more = later if session.output is None else ""
    return f"<table class='cg-table'>{head}<th scope='col'>among all</th></tr>{''.join(lines)}</table>{more}"


def _value(session: Session, candidate: Candidate, name: str) -> float | None:
    value = candidate.scores.get(name)
    if value is None or not math.isfinite(value):
        value = session.looked.get(id(candidate.image), {}).get(name, (math.nan, None))[0]
    return value if math.isfinite(value) else None


def belief(session: Session, models: Models, dimension: str) -> str:
    """Return a drawing of what the judge itself believes of the chosen candidate in a dimension."""
    candidate = session.candidate()
    if candidate is None or session.settings is None or session.output is None:
        return ""
    if dimension not in DIMENSIONS:
        raise InputError(f"dimension: expected one of {', '.join(DIMENSIONS)}, got {dimension!r}")
    found = models.distribution(models.pipe(session.settings.model), candidate.image, dimension)
    if found is None:
        return "<p class='cg-note'>This judge gives a number, not a distribution over answers.</p>"
    return drawing.distribution(*found, dimension)


def file_of(session: Session) -> Path | None:
    """Return the chosen candidate's PNG, which carries its record."""
    candidate = session.candidate()
    if candidate is None or session.output is None or session.folder is None:
        return None
    return session.folder / file_name(candidate, session.output.candidates.index(candidate))


def begun(output: CogGuidedOutput, candidate: Candidate) -> tuple[Noise, dict[str, Any]] | None:
    """Return the noise that a candidate began with and what was asked otherwise for it (fewer steps); None if it is
    not that noise alone which made it: fresh noise on the way, or latents that were put in its place.
    """
    if "entry" not in candidate.batch:
        return None if candidate.seed is None else (Noise.of(candidate.seed), {})
    place = output.trace[candidate.batch["entry"]]["decode"][candidate.batch["index"]]
    while True:
        entry, row = output.trace[place[0]], place[1]
        if "begin" in entry:
            noise: Noise = entry["noise"][row]
            return None if noise.latents is not None else (noise, dict(entry["arguments"]))
        if "advance" not in entry or entry["eta"] or entry["seeds"] is not None:
            return None
        place = entry["advance"][row]


def varied(session: Session) -> Settings:
    """Return settings that make variations of the chosen candidate.

    Raises:
        InputError: none is chosen, or its noise is not that of one seed.
    """
    candidate = session.candidate()
    if candidate is None or session.output is None or session.settings is None:
        raise InputError("variations: choose a candidate first, when all is made")
    found = begun(session.output, candidate)
    if found is None or candidate.seed is None or found[0].mix != ((candidate.seed, 1.0),):
        raise InputError(
            "variations: this image's noise is not that of one seed, so it has no variations; choose one that "
            "another search made, or the first of these"
        )
    steps = found[1].get("num_inference_steps", session.settings.steps)
    return replace(
        session.settings, prompt=candidate.prompt, seed=candidate.seed, search=Variations.name, n=VARIATIONS,
        keep=1, rewrite=None, steps=steps, budget=None,
    )  # fmt: skip


def codes(settings: Settings | None, folder: Path | None) -> tuple[str, str]:
    """Return the Python and the command that make the same."""
    if settings is None:
        return "", ""
    place = folder or "out/again"
    again = place if folder is None else f"{place}-again"
    return python_code(settings, again), command(settings, again)
