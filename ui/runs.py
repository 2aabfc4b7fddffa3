"""The Runs tab: folders of every command below the output folder, their reports, and how to go on with them."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .._errors import InputError, RecordError
from ..guidance.finetuning import recipe as finetune_recipe
from ..pipelines.records.streamed import read_run
from ..scorers.alignment import recipe as align_recipe
from ..scorers.benchmark.folder import FORMAT
from . import compare
from .models import inside
from .pieces import address, empty
from .working import Page

DEEPEST, MOST_FOLDERS, MOST_SEEN = 4, 500, 20_000
LARGEST_REPORT, MOST_PICTURES, LARGEST_PICTURES = 24 * 2**20, 200, 24 * 2**20
KINDS = {
    "candidates.json": "generate",
    "run.jsonl": "generate, many prompts",
    "alignment.json": "align",
    "finetuning.json": "finetune",
    "study.json": "study",
    compare.FILE: "compare",
    "settings.json": "bench",
}
"""Which command a folder is of, by the file that says so."""
REPORTS = ("report.html", "index.html")
FILES = (*KINDS, *REPORTS, "results.json", "report.md", "vote.html", "key.json", "candidates.jsonl")
FILES += ("contact_sheet.png",)
OPEN = "with what else it was begun with, where that was not the default"


@dataclass(frozen=True)
class Found:
    """A folder of a run."""

    folder: Path
    kind: str
    changed: float

    @property
    def title(self) -> str:
        """What a list shows of it."""
        return f"{self.folder.name} · {self.kind} · {time.strftime('%Y-%m-%d %H:%M', time.localtime(self.changed))}"


def find(out: Path) -> list[Found]:
    """Return the runs in a folder and below, the latest first; links are not followed."""
    found: list[Found] = []
    waiting, seen = [(out, 0)], 0
    while waiting and seen < MOST_SEEN:
        folder, depth = waiting.pop()
        kind = kind_of(folder)
        if kind is not None:
            found.append(Found(folder, kind, folder.stat().st_mtime))
        if depth == DEEPEST:
            continue
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    seen += 1
                    if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                        waiting.append((Path(entry.path), depth + 1))
        except OSError:
            continue
    return sorted(found, key=lambda run: -run.changed)[:MOST_FOLDERS]


def kind_of(folder: Path) -> str | None:
    """Return which command a folder is of; None: of none."""
    for name, kind in KINDS.items():
        file = folder / name
        if file.is_file() and (kind != "bench" or _is_bench(file)):
            return kind
    return None


def _is_bench(settings: Path) -> bool:
    try:
        return bool(_json(settings).get("format") == FORMAT)
    except RecordError:
        return False


def choose(out: Path, name: str | None) -> Found:
    """Return a run by its folder, which must lie in the output folder.

    Raises:
        InputError: it does not, or is no run.
    """
    folder = Path(name or "")
    if not name or not inside(out, folder):
        raise InputError(f"runs: {name!r} is not in {out}; choose one of the list")
    kind = kind_of(folder)
    if kind is None:
        raise InputError(f"runs: {folder} is no folder of a run any more; press Look again")
    return Found(folder, kind, folder.stat().st_mtime)


def view(out: Path, run: Found) -> str:
    """Return what a run's folder has to show: its report, or its contact sheet."""
    for name in REPORTS:
        file = run.folder / name
        if file.is_file() and inside(out, file):
            if file.stat().st_size > LARGEST_REPORT:
                return empty(f"{name} is larger than {LARGEST_REPORT // 2**20} MB: download it below.")
            page = with_pictures(out, file)
            return (
                f'<iframe class="cg-frame" sandbox title="{escape(name)} of {escape(run.folder.name)}" '
                f'srcdoc="{escape(page)}"></iframe>'
            )
    sheet = run.folder / "contact_sheet.png"
    if sheet.is_file():
        said = f"All candidates of {run.folder.name}, best first"
        return f'<img class="cg-sheet" src="{address(sheet)}" alt="{escape(said)}">'
    if run.kind == "compare":
        return empty("Pairs to vote on: vote.html below is one file, to open or to send.")
    return empty("This run has no report yet.")


def with_pictures(out: Path, file: Path) -> str:
    """Return a report with its own pictures inside it, as it cannot fetch any in its frame.

    Those of the output folder alone, and no more than a page holds.
    """
    text = file.read_text("utf-8", errors="replace")
    count = size = 0

    def put(match: re.Match[str]) -> str:
        nonlocal count, size
        picture = file.parent / unquote(match[2])
        kind = mimetypes.guess_type(picture.name)[0] or ""
        if "://" in match[2] or not kind.startswith("image/") or not inside(out, picture) or not picture.is_file():
            return match[0]
        count, size = count + 1, size + picture.stat().st_size
        if count > MOST_PICTURES or size > LARGEST_PICTURES:
            return match[0]
        return f"{match[1]}data:{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}{match[3]}"

    return re.sub(r'(<img\b[^>]*?\bsrc=")(?!data:)([^"]+)(")', put, text)


def files_of(out: Path, run: Found) -> list[str]:
    """Return the files of a run that may be downloaded."""
    found = [run.folder / name for name in FILES] + sorted(run.folder.glob("choices*.json"))
    return [str(file) for file in found if file.is_file() and inside(out, file)]


def how_to_go_on(run: Found, page: Page) -> str:
    """Return the command that goes on with a run or reads it; words in capitals are the reader's to fill in.

    Raises:
        RecordError: what the folder says of its run cannot be read.
    """
    words, left = {
        "generate": _replay,
        "generate, many prompts": _generate,
        "bench": _bench,
        "align": _align,
        "finetune": _finetune,
        "study": _study,
        "compare": _tally,
    }[run.kind](run.folder)
    words = [str(page.told(run.folder)) if word == str(run.folder) else word for word in words]
    line = shlex.join(words)
    if run.kind == "compare":
        line += f" {shlex.quote(str(page.told(run.folder)))}/choices*.json"
    return f"# {left}\n{line}" if left else line


Told = tuple[list[str], str]


def _replay(folder: Path) -> Told:
    facts = _json(folder / "candidates.json")
    chosen = next((c["index"] for c in facts.get("candidates", ()) if c.get("chosen")), 0)
    return ["cogguided", "replay", str(folder), str(chosen)], "it is complete; this makes a candidate again"


def _generate(folder: Path) -> Told:
    settings = read_run(folder)[0]
    words = ["cogguided", "generate", "--prompts", "PROMPTS.txt"]
    model, call = settings["model"], settings["call"]
    words += _option("--model", model.get("name"), "embedded") + _option("--dtype", model.get("dtype"), "float32")
    if call.get("target"):
        words += ["--target", ",".join(f"{name}={weight:g}" for name, weight in call["target"].items())]
    words += _option("--scorer", settings.get("scorer")) if isinstance(settings.get("scorer"), str) else []
    words += _search(call.get("guidance") or [])
    arguments = dict(call.get("arguments") or {})
    words += _option("--steps", arguments.pop("num_inference_steps", None))
    for name, value in arguments.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    words += _option("--seed", settings.get("seed")) if isinstance(settings.get("seed"), int) else []
    words += _option("--group", settings.get("group")) + _option("--keep-candidates", settings.get("keep_candidates"))
    limits = call.get("budget") or {}
    words += [] if limits.get("seconds") is None else ["--budget", f"{limits['seconds']:g}s"]
    words += [] if limits.get("nfe") is None else ["--budget", f"{limits['nfe']:g}nfe"]
    return [*words, "--out", str(folder), "--resume"], "PROMPTS.txt: the file that it was begun with"


def _search(steps: list[Mapping[str, Any]]) -> list[str]:
    """Options of the command line for a recorded guidance."""
    words: list[str] = []
    for step in steps:
        if step["name"] == "rewrite":
            words += _option("--rewrite", step.get("n"))
            continue
        drafts = step["name"] in ("joint", "drafts")
        words += _option("--search", step["name"]) + _option("--n", step.get("n"))
        words += _option("--keep", step.get("keep"), 1)
        words += _option("--rewrite", step.get("rewrites")) + _option("--batch-size", step.get("batch_size"))
        words += _option("--draft-steps", step.get("steps")) + _option("--full", step.get("full")) if drafts else []
    return words


def _bench(folder: Path) -> Told:
    facts = _json(folder / "settings.json")
    words = ["cogguided", "bench", "--scorer", str(facts.get("scorer", "SCORER")), "--data", "DATA"]
    words += _option("--adapter", facts.get("adapter")) + _option("--dtype", facts.get("dtype"))
    return [*words, "--out", str(folder)], f"DATA: the ratings that it was begun with; {OPEN}"


def _align(folder: Path) -> Told:
    facts = _json(folder / "alignment.json")
    model = str(facts.get("model", "MODEL"))
    words = ["cogguided", "align", "--model", model, "--data", "DATA", "--output", str(folder)]
    words += _option("--adapter", facts.get("adapter"))
    words += _changed(facts.get("config"), align_recipe(model).to_dict())
    return [*words, "--resume"], f"DATA: the ratings that it was begun with; {OPEN}"


def _finetune(folder: Path) -> Told:
    facts = _json(folder / "finetuning.json")
    model = str(facts.get("model", "MODEL"))
    words = ["cogguided", "finetune", "--model", model, "--target", _target(facts), "--prompts", "PROMPTS.txt"]
    usual = finetune_recipe(model == "embedded").to_dict()
    words += ["--output", str(folder), *_changed(facts.get("config"), usual)]
    return [*words, "--resume"], f"PROMPTS.txt: the file that it was begun with; {OPEN}"


def _study(folder: Path) -> Told:
    facts = _json(folder / "study.json").get("facts", {})
    seeds = facts.get("seeds") or [55]
    words = ["cogguided", "study", "--model", str(facts.get("model")), "--aligned", str(facts.get("aligned"))]
    words += ["--prompts", "PROMPTS.txt", "--target", _target(facts), "--seed", str(seeds[0])]
    words += _option("--seeds", len(seeds), 1) + _option("--n", facts.get("n"), 8)
    words += _option("--strength", facts.get("strength"), 1.0)
    return [*words, "--out", str(folder)], f"PROMPTS.txt: the file that it was begun with; {OPEN}"


def _tally(folder: Path) -> Told:
    return ["cogguided", "study", "tally", str(folder)], "what was chosen so far"


def _target(facts: Mapping[str, Any]) -> str:
    target = facts.get("target", "TARGET")
    if isinstance(target, Mapping):
        return ",".join(f"{name}={weight:g}" for name, weight in target.items())
    return str(target)


def _changed(config: Any, usual: Mapping[str, Any]) -> list[str]:
    """Settings that are not the recipe's own."""
    words: list[str] = []
    for name, value in (config or {}).items():
        if json.dumps(usual.get(name)) != json.dumps(value):
            words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return words


def _option(name: str, value: Any, usual: Any = None) -> list[str]:
    return [] if value is None or value == usual else [name, str(value)]


def _json(file: Path) -> dict[str, Any]:
    try:
        facts = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{file}: cannot be read ({error})") from error
    if not isinstance(facts, dict):
        raise RecordError(f"{file}: expected a JSON object")
    return facts
