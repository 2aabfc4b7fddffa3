"""The folder of a run: what was asked for, and the answers as they come; a killed run goes on from there."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..._errors import InputError, RecordError
from ..._texts import to_json_text, visible
from ..ratings.reading import Rating

FORMAT = "cogguided benchmark"
VERSION = 1
SETTINGS = "settings.json"
PLAN = "plan.json"
ANSWERS = "answers-*.jsonl"
RESULTS = "results.json"


@dataclass(frozen=True)
class Plan:
    """What of a scorer is compared with what of the data; known once the scorer is loaded.

    Attributes:
        scorer: the scorer's own name.
        dimensions: the dimensions of the data that it is compared with.
        readouts: "expected", "greedy", or "score" for a scorer without read-outs.
        same_scale: whether its numbers are on the dimensions' scales; else only ranks are compared.
        items: how many ratings that are.
        notes: sentences for the reader about what is compared and what is not.
    """

    scorer: str
    dimensions: tuple[str, ...]
    readouts: tuple[str, ...]
    same_scale: bool
    items: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a scorer said about one image in one dimension by one read-out.

    Attributes:
        value: NaN if there is none.
        std: spread of the scorer's belief, NaN if not known.
        mass: captured probability, NaN if not known.
        label: the word for it, or None.
        error: why there is no value, or None.
        failed: "image" if the image could not be read, "answer" if the answer could not, else None.
    """

    value: float
    std: float = math.nan
    mass: float = math.nan
    label: str | None = None
    error: str | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Scored:
    """One item with the answers of every read-out."""

    key: str
    dimension: str
    human: float
    image: str
    answers: Mapping[str, Answer]

    def to_json(self) -> str:
        """Write one line of the answers file; NaN is null.

        >>> line = Scored("funniness/1", "funniness", 2.0, "1.png", {"score": Answer(3.0)}).to_json()
        >>> Scored.from_json(line).answers["score"].value
        3.0
        """
        return to_json_text(without_nan(asdict(self)), allow_nan=False)

    @staticmethod
    def from_json(line: str) -> Scored:
        """Read a line back.

        Raises:
            ValueError, KeyError or TypeError: not such a line.
        """
        facts: dict[str, Any] = json.loads(line)
        answers: dict[str, Answer] = {}
        for name, given in facts.pop("answers").items():
            numbers = {key: math.nan if given[key] is None else given[key] for key in _NUMBERS}
            answers[name] = Answer(**{**given, **numbers})
        return Scored(**facts, answers=answers)


_NUMBERS = ("value", "std", "mass")


def without_nan(value: Any) -> Any:
    """Copy nested dicts and lists with None for every float that is not finite, as JSON needs it.

    >>> without_nan({"mae": math.nan, "items": (1, 2.5)})
    {'mae': None, 'items': [1, 2.5]}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(file: Path, content: Any) -> None:
    """Write a file whole or not at all; NaN becomes null."""
    write_text(file, to_json_text(without_nan(content), indent=1, allow_nan=False) + "\n")


def write_page(file: Path, text: str) -> None:
    """Write a report whole or not at all; control characters of users' texts are spelt out in it."""
    write_text(file, visible(text))


def write_text(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def items_digest(ratings: Sequence[Rating]) -> str:
    """Name the set of items and human scores, whatever their order.

    >>> items_digest([Rating(Path("a.png"), "funniness", 2.0, "funniness/a.png")])
    'b27bc518b78b35ae'
    """
    lines = sorted(f"{rating.key}\t{rating.score!r}" for rating in ratings)
    return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()[:16]


def pictures_digest(ratings: Sequence[Rating]) -> str:
    """Name the pictures behind the items: each one's key, its size, and its first and last 64 KiB.

    The same files elsewhere (another ``--images``, another machine) have the same name; others have not.

    >>> pictures_digest([Rating(Path("no/such.png"), "funniness", 2.0, "funniness/a.png")])
    '45ceadc812b05104'
    """
    digest = hashlib.sha256()
    for rating in sorted(ratings, key=lambda rating: rating.key):
        if rating.image.is_file():
            _add_file(digest, rating.key, rating.image, 2**16)
        else:
            digest.update(os.fsencode(f"{rating.key}\tmissing\n"))
    return digest.hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """Name the content of a model folder: names, sizes, and the first and last MiB of every file.

    >>> folder_digest(Path("no/such/folder"))
    'e3b0c44298fc1c14'
    """
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        _add_file(digest, file.relative_to(folder).as_posix(), file, 2**20)
    return digest.hexdigest()[:16]


def _add_file(digest: hashlib._Hash, name: str, file: Path, num_bytes: int) -> None:
    """Add a file's name, its size, and its first and last so many bytes."""
    size = file.stat().st_size
    digest.update(os.fsencode(f"{name}\t{size}\n"))
    with file.open("rb") as stream:
        digest.update(stream.read(num_bytes))
        stream.seek(max(0, size - num_bytes))
        digest.update(stream.read())


def open_folder(out: Path, settings: Mapping[str, Any], overwrite: bool = False) -> None:
    """Make the folder of a run, or check that the run in it is the same one, cut short or complete.

    A run without any answer is begun anew, whatever its settings.

    Raises:
        RecordError: the folder holds something else, or a run with other settings.

    Executed examples are in ``tests/scorers/test_benchmark_run.py``.
    """
    file = out / SETTINGS
    wanted = json.loads(json.dumps({"format": FORMAT, "version": VERSION, **settings}))
    if file.is_file():
        if overwrite or not any(answers.stat().st_size for answers in out.glob(ANSWERS)):
            for old in [*out.glob(ANSWERS), out / PLAN, out / RESULTS]:
                old.unlink(missing_ok=True)
            write_json(file, wanted)
        _check_settings(out, _read_json(file), wanted)
    elif out.is_dir() and any(out.iterdir()):
        raise RecordError(f"{out}: is not empty and holds no run of the benchmark; take another --out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, wanted)
    for answers in out.glob(ANSWERS):
        _cut_unfinished(answers)


def _check_settings(out: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    changed = [
        f"{key}: {_short(found.get(key))} there, {_short(wanted.get(key))} now"
        for key in dict.fromkeys([*wanted, *found])
        if found.get(key) != wanted.get(key)
    ]
    if changed:
        raise RecordError(
            f"{out}: holds a run with other settings ({'; '.join(changed)}); "
            "take another --out, or --overwrite to start again"
        )


def read_settings(out: Path) -> dict[str, Any]:
    """Read what a run was asked for.

    Raises:
        RecordError: the folder holds no run.

    >>> read_settings(Path("no/such/folder"))
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: no/such/folder: holds no run of the benchmark (no settings.json)
    """
    file = out / SETTINGS
    if not file.is_file():
        raise RecordError(f"{out}: holds no run of the benchmark (no {SETTINGS})")
    found = _read_json(file)
    if found.get("format") != FORMAT or found.get("version") != VERSION:
        raise RecordError(f"{file}: expected {FORMAT} version {VERSION}, got {_short(found.get('format'))}")
    return found


def read_plan(out: Path) -> Plan | None:
    """Read what is compared, None if the run was cut short before that was known."""
    file = out / PLAN
    if not file.is_file():
        return None
    facts = _read_json(file)
    try:
        return Plan(**dict(facts, **{key: tuple(facts[key]) for key in ("dimensions", "readouts", "notes")}))
    except (TypeError, KeyError) as error:
        raise RecordError(f"{file}: {error}") from error


def write_plan(out: Path, plan: Plan) -> None:
    """Keep the plan beside the settings."""
    write_json(out / PLAN, asdict(plan))


def read_answers(out: Path) -> dict[str, Scored]:
    """Read every answer so far, by key; those of all processes together.

    Raises:
        RecordError: a line cannot be read (other than an unfinished last one), or an item is there twice.

    >>> read_answers(Path("no/such/folder"))
    {}
    """
    found: dict[str, Scored] = {}
    for file in sorted(out.glob(ANSWERS)):
        lines = file.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is unfinished
            try:
                scored = Scored.from_json(line)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RecordError(f"{file}, line {number}: cannot be read ({error})") from error
            if scored.key in found:
                raise RecordError(f"{file}, line {number}: {scored.key} is there twice")
            found[scored.key] = scored
    return found


def load_run(out: Path) -> tuple[Plan, dict[str, Scored]]:
    """Read what a complete run compares, and its answers by key, sorted.

    Raises:
        RecordError: the folder holds no run, or one cut short.

    >>> load_run(Path("no/such/folder"))
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: no/such/folder: holds no run of the benchmark (no settings.json)
    """
    settings = read_settings(out)
    plan, items = read_plan(out), read_answers(out)
    if plan is None or len(items) != plan.items:
        raise RecordError(
            f"{out}: cut short after {len(items)} of {settings.get('items')} items; "
            "the command that began it goes on with it"
        )
    return plan, dict(sorted(items.items()))


def append_answers(out: Path, rank: int, scored: Iterable[Scored]) -> None:
    """Add answers to the file of a process, on the disk before this returns."""
    with (out / ANSWERS.replace("*", str(rank))).open("a", encoding="utf-8") as stream:
        stream.write("".join(item.to_json() + "\n" for item in scored))
        stream.flush()
        os.fsync(stream.fileno())


def _cut_unfinished(file: Path) -> None:
    """Drop a last line that a kill left without its end."""
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with file.open("rb+") as stream:
            stream.truncate(whole)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{file}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise RecordError(f"{file}: expected a JSON object")
    return content


def _short(value: Any) -> str:
    text = to_json_text(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_same_items(first: Mapping[str, Scored], second: Mapping[str, Scored]) -> list[str]:
    """Return the keys that two runs share, sorted.

    Raises:
        InputError: none, or a human score differs.

    >>> check_same_items({}, {})
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: the two runs have no item in common
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise InputError("the two runs have no item in common")
    differing = [key for key in shared if first[key].human != second[key].human]
    if differing:
        raise InputError(
            f"the human scores of {len(differing)} items differ between the two runs, such as {differing[0]}"
        )
    return shared
