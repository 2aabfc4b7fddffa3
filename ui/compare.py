"""The Compare tab: two ways of making images side by side from the same seeds, and a blinded vote between them."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from .._errors import InputError
from ..guidance.text_encoder.swap import swap_text_encoder
from ..pipelines.records.record import candidate_facts, write_json, write_whole
from ..pipelines.study.page import vote_page
from ..pipelines.study.study import Tally, tally
from .code import python_code, short
from .generate import EVERY
from .models import ORIGINAL, Models
from .pieces import Pictures, number, problem, status
from .settings import Settings
from .working import Page, Session, Work, told

MOST_PROMPTS, MOST_PAIRS = 64, 256
FILE = "compare.json"
ARMS = {"A": "original", "B": "aligned"}
"""What `cogguided study tally` calls the two sides."""


@dataclass(frozen=True)
class Side:
    """One of two ways of making images: settings, and what is in the text encoder's place at which strength."""

    settings: Settings
    encoder: str = ORIGINAL
    strength: float = 1.0

    def told(self) -> str:
        """Say what it is, in a line.

        >>> Side(Settings("a face", search="best_of_n", n=4)).told()
        'embedded, BestOfN(4)'
        """
        steps = ", ".join(map(short, self.settings.guidance())) or "one image"
        more = [] if self.settings.steps is None else [f"steps {self.settings.steps}"]
        swap = [] if self.encoder == ORIGINAL else [f"text encoder {self.encoder} at {self.strength:g}"]
        return ", ".join([self.settings.model, steps, *more, *swap])


@dataclass
class Compared:
    """Pairs of images, and what was chosen of them.

    Attributes:
        sides: "A" and "B".
        folder: with key.json, vote.html and the images.
        rows: a pair each, as a study has them.
        images: of each pair, by side.
        key: what is behind each side of each pair in the vote.
        choices: of the person at this page, by pair.
    """

    sides: dict[str, Side]
    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Image.Image]] = field(default_factory=list)
    key: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)

    @property
    def open_pair(self) -> str | None:
        """The first pair nothing was chosen of."""
        return next((name for name in self.key.get("pairs", {}) if name not in self.choices), None)

    def pair(self, name: str) -> dict[str, Image.Image]:
        """Return the pictures of a pair by where they stand in the vote: left and right."""
        facts = self.key["pairs"][name]
        for row, images in zip(self.rows, self.images, strict=True):
            if (row["prompt"], row["seed"]) == (facts["prompt"], facts["seed"]):
                by_arm = {ARMS[side]: image for side, image in images.items()}
                return {place: by_arm[facts[place]] for place in ("left", "right")}
        raise InputError(f"{name}: no such pair")


def read_prompts(text: str | None) -> list[str]:
    """Return prompts, one a line.

    Raises:
        InputError: none, or too many.

    >>> read_prompts("a face\\n\\na cat")
    ['a face', 'a cat']
    """
    found = list(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))
    if not found:
        raise InputError("prompts: type at least one, a line each")
    if len(found) > MOST_PROMPTS:
        raise InputError(f"prompts: expected at most {MOST_PROMPTS}, got {len(found)}")
    return found


def jobs_of(sides: dict[str, Side], prompts: Sequence[str], repeats: int) -> list[tuple[str, int]]:
    """Return prompt and first seed of each pair; a prompt's pairs have no seed in common.

    Raises:
        InputError: the sides are the same, or there would be too many pairs.
    """
    if sides["A"] == sides["B"]:
        raise InputError("A and B are the same: change the model, text encoder, strength, search, number or steps")
    if not 1 <= repeats * len(prompts) <= MOST_PAIRS:
        raise InputError(f"pairs: expected 1 to {MOST_PAIRS} in all, got {repeats} x {len(prompts)} prompts")
    stride = max(side.settings.expected for side in sides.values())
    return [(prompt, sides["A"].settings.seed + k * stride) for prompt in prompts for k in range(repeats)]


def make(compared: Compared, models: Models, jobs: Sequence[tuple[str, int]]) -> None:
    """Make the pairs one after the other; a call that is stopped ends it with those that are whole."""
    folder = compared.folder
    for place, (prompt, seed) in enumerate(jobs):
        images: dict[str, Image.Image] = {}
        arms: dict[str, Any] = {}
        for name, side in compared.sides.items():
            pipe = models.pipe(side.settings.model)
            swap = nullcontext() if side.encoder == ORIGINAL else swap_text_encoder(pipe, side.encoder, side.strength)
            with swap:
                output = replace(side.settings, prompt=prompt, seed=seed).make(pipe)
            if output.interrupted:
                return
            best = output.chosen[0]
            file = f"images/{place:04d}_{name.lower()}.png"
            write_whole(folder / file, lambda opened, image=best.image: image.save(opened, "PNG"))  # type: ignore[misc]
            facts = candidate_facts(best, output.candidates.index(best))
            images[name] = best.image
            arms[ARMS[name]] = {"image": file, "values": facts["scores"], "prompt": best.prompt, "seed": best.seed}
        compared.rows.append({"prompt": prompt, "seed": seed, "arms": arms})
        compared.images.append(images)


def run(
    session: Session, page: Page, sides: dict[str, Side], prompts: Sequence[str], repeats: int, folder: Path
) -> Iterator[str]:
    """Make the pairs in the background, and yield what to say; the session has them, ready to be voted on."""
    if session.work is not None and not session.work.wait(0):
        raise InputError("this page is at work already: stop it, or wait for it")
    jobs = jobs_of(sides, prompts, repeats)
    for side in sides.values():
        if side.encoder not in page.models.encoders:
            known = ", ".join(page.models.encoders)
            raise InputError(f"text encoder: expected one of {known}, got {side.encoder}")
    session.compared = None
    compared = Compared(sides, folder)

    def pairs() -> None:
        try:
            make(compared, page.models, jobs)
        finally:  # so that they are kept if the page is closed meanwhile
            if compared.images:
                finish(compared)

    work = Work(pairs)
    session.work = work
    try:
        while not work.wait(EVERY):
            done = len(compared.images)
            yield status(f"{done} of {len(jobs)} pairs", done / len(jobs) if done else None, busy=True)
        said = "" if work.error is None else problem(told(work.error))
        if not compared.images:
            yield said or status("stopped before the first pair was made")
            return
        session.compared = compared
        less = "" if len(compared.images) == len(jobs) else f" of {len(jobs)}"
        plural = "s" if len(jobs) > 1 else ""
        yield said + status(f"{len(compared.images)}{less} pair{plural}, kept in {page.told(folder)}")
    finally:
        work.stop()


def finish(compared: Compared) -> None:
    """Write what the pairs are, the page to vote on, and the key that `cogguided study tally` reads."""
    first = compared.sides["A"].settings
    facts = {
        "model": compared.sides["A"].told(),
        "aligned": compared.sides["B"].told(),
        "prompts": list(dict.fromkeys(row["prompt"] for row in compared.rows)),
        "seeds": [row["seed"] for row in compared.rows],
        "strength": compared.sides["B"].strength,
        "target": first.target_text or "what you like better",
    }
    page, key = vote_page(compared.folder, facts, compared.rows)
    key["names"] = {arm: f"{side}: {compared.sides[side].told()}" for side, arm in ARMS.items()}
    compared.key = key
    write_json({"facts": facts, "rows": compared.rows}, compared.folder / FILE)
    write_json(key, compared.folder / "key.json")
    write_whole(compared.folder / "vote.html", lambda opened: opened.write(page.encode()))


def ballot(compared: Compared | None, pictures: Pictures) -> str:
    """Return the pair that is to be voted on; nothing in it tells the sides apart."""
    if compared is None:
        return ""
    name = compared.open_pair
    if name is None:
        return ""
    facts, images = compared.key["pairs"][name], compared.pair(name)
    count = len(compared.key["pairs"])
    asked = compared.sides["A"].settings.target_text
    what = f"has more of: {asked.replace('_', ' ')}" if asked else "you like better"
    both = "".join(
        f'<figure><img src="{pictures.url(images[place])}" alt="{place} image of pair {len(compared.choices) + 1}">'
        f"<figcaption>{place}</figcaption></figure>"
        for place in ("left", "right")
    )
    head = f"Pair {len(compared.choices) + 1} of {count}: <b>{escape(facts['prompt'])}</b>"
    return f'<p>{head}. Which one {escape(what)}?</p><div class="cg-pair">{both}</div>'


def vote(compared: Compared | None, choice: str, person: str | None) -> Path:
    """Take a choice of the open pair, and write all so far to a file; returns it.

    Raises:
        InputError: there is no open pair, or no such choice.
    """
    name = None if compared is None else compared.open_pair
    if compared is None or name is None:
        raise InputError("vote: there is no pair left to choose from; make some first")
    if choice not in ("left", "right", "neither"):
        raise InputError(f"vote: expected left, right or neither, got {choice!r}")
    compared.choices[name] = choice
    slug = re.sub(r"[^a-z0-9]+", "-", (person or "").lower()).strip("-")[:40]
    file = compared.folder / (f"choices-{slug}.json" if slug else "choices.json")
    write_json({"study": compared.key["study"], "person": person or "", "choices": compared.choices}, file)
    return file


def result(compared: Compared, file: Path) -> str:
    """Say what was chosen, once nothing is open."""
    found = tally(compared.folder, [file])
    return f'<div class="cg-status">{escape(in_words(found))}</div>'


def in_words(found: Tally) -> str:
    """Return what people chose as a sentence."""
    share = found.share
    counts = f"A was chosen {found.losses} times, B {found.wins} times, neither {found.ties} times"
    if math.isnan(share.mean):
        return counts
    return f"{counts}; share of B {share.mean:.2f} ({share.low:.2f} to {share.high:.2f})"


def side_by_side(compared: Compared | None, pictures: Pictures) -> str:
    """Return all pairs with what each is: no longer blinded."""
    if compared is None:
        return ""
    heads = "".join(f"<dt>{name}</dt><dd>{escape(side.told())}</dd>" for name, side in compared.sides.items())
    parts = []
    for row, images in zip(compared.rows, compared.images, strict=True):
        figures = []
        for name, image in images.items():
            values = row["arms"][ARMS[name]]["values"]
            said = ", ".join(f"{term.replace('_', ' ')} {number(value)}" for term, value in values.items())
            alt = escape(f"{name}: {row['prompt']}")
            figures.append(
                f'<figure><img src="{pictures.url(image)}" alt="{alt}"><figcaption>{name}: {said or "not scored"}'
                "</figcaption></figure>"
            )
        seed = f"{escape(row['prompt'])}, seed {row['seed']}"
        parts.append(f'<li><p>{seed}</p><div class="cg-pair">{"".join(figures)}</div></li>')
    return f'<div class="cg-details"><dl>{heads}</dl></div><ul class="cg-pairs">{"".join(parts)}</ul>'


def codes(compared: Compared | None, page: Page) -> tuple[str, str]:
    """Return the Python that makes the first pair, and the command that counts votes."""
    if compared is None or not compared.rows:
        return "", ""
    row, parts, folder = compared.rows[0], [], page.told(compared.folder)
    for name, side in compared.sides.items():
        settings = replace(side.settings, prompt=row["prompt"], seed=row["seed"])
        script = python_code(settings, folder / f"again-{name.lower()}")
        if side.encoder != ORIGINAL:
            head, _, rest = script.partition("\nout = ")
            body = "out = " + rest
            swap = f'with swap_text_encoder(pipe, "{side.encoder}", {side.strength:g}):'
            indented = "\n".join(f"    {line}" for line in body.splitlines())
            script = f"from cogguided import swap_text_encoder\n{head}\n{swap}\n{indented}"
        parts.append(f"# {name}, the first pair\n{script}")
    command = shlex.join(["cogguided", "study", "tally", str(folder)])
    files = shlex.quote(str(folder)) + "/choices*.json"
    return "\n\n".join(parts), f"{command} {files}"
