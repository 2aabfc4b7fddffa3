"""The folder of many prompts: groups come into it whole or not at all, and a run cut short goes on in it.

::

    run.jsonl              settings, then a line for each group that is done
    candidates.jsonl       one row a candidate
    images/000000/         the chosen images of prompts 0 to 99, and so on
    candidates/000000/     the others
    contact_sheets/        a page of prompts each
    index.html             all of it, by prompt
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..._errors import InputError, RecordError
from ...guidance import Candidate
from ...scorers.bulk.lines import append, append_json, cut, cut_unfinished, differing, json_line
from ..output import SHEET, CogGuidedOutput, check_free, remove_record
from ..records.record import FILE, title, write_png, write_whole
from ..records.sheet import contact_sheet
from ..records.streamed import LOG, ROWS, is_run, read_run
from ..records.trace import latents_file
from .groups import Group
from .pages import PAGE, write_pages
from .settings import OTHERWISE

KEEP = ("none", "chosen", "all")
IMAGES, OTHERS, SHEETS, LATENTS, UNFINISHED = "images", "candidates", "contact_sheets", "latents", "unfinished"
SHEET_PROMPTS = 8
"""Prompts on a contact sheet."""
BLOCK = 100
"""Prompts whose images share a folder."""
NAMED = re.compile(r"\.?(\d{6,})(?:_\d{3,}_.*)?\.(?:png|safetensors)(?:\..*)?$")
"""Files of a prompt, and what a kill leaves of one that was being written."""
MAY_CHANGE = ("versions", "device", "drawn")
"""Settings in which a resumed run may differ; the first two are noted."""


class RunFolder:
    """A folder that takes groups of candidates one after the other.

    Args:
        folder: made if it does not exist.
        settings: all that its images depend on, in JSON's types (see `streaming.settings_of`).
        keep: which images are written: "all", "chosen", or "none" (contact sheets and rows only).
        resume: go on with a run that is there; without one, begin.
        overwrite: drop another record.

    Attributes:
        settings: as they are in the folder.
        notes: what differs from when the run began, though it may.
        groups: how many are done.
        prompts: how many are done.
        candidates: how many were made.
        unchosen: how many prompts are done and have no image with a valid score.
        rows: those of the latest group.

    Raises:
        RecordError: another record is there, or a run with other settings, or it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        keep: str = "all",
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        if keep not in KEEP:
            raise InputError(f"keep_candidates: expected {', '.join(KEEP)}, got {keep!r}")
        self.folder, self.keep = folder, keep
        self.notes: list[str] = []
        self.groups = self.prompts = self.candidates = self.unchosen = 0
        self.rows: list[dict[str, Any]] = []
        self._end = 0
        wanted: dict[str, Any] = json.loads(json.dumps({**settings, "keep_candidates": keep}))
        there = self._look()
        if overwrite:
            drop(folder)
        elif (folder / FILE).exists() or (self.groups and not resume):
            what = f"{self.prompts} prompts of a run" if self.groups else "a record"
            go_on = "go on with them (resume=True, --resume), " if self.groups else ""
            raise RecordError(
                f"{folder} has {what} already: {go_on}{OTHERWISE}"
            )
        if overwrite or not self.groups:
            self.groups = self.prompts = self.candidates = self.unchosen = self._end = 0
            check_free(folder, overwrite=False)
            (folder / LOG).unlink(missing_ok=True)
            append_json(folder / LOG, wanted)
            self.settings = wanted
        else:
            self._check(there, wanted)
            self.settings = there
        (folder / ROWS).touch()
        cut(folder / ROWS, self._end)
        drop_from(folder, self.prompts)

    def _look(self) -> dict[str, Any]:
        """Read what is there: its settings, and how far it came."""
        if not is_run(self.folder):
            return {}
        cut_unfinished(self.folder / LOG)
        settings, groups = read_run(self.folder)
        for group in groups:
            self.groups += 1
            self.prompts = group["first_prompt"] + len(group["record"]["call"]["prompts"])
            self.candidates = group["first"] + group["count"]
            self.unchosen += len(group["unchosen"])
            self._end = group["end"]
        return settings

    def _check(self, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        fixed = [{n: v for n, v in facts.items() if n not in MAY_CHANGE} for facts in (there, wanted)]
        changed = differing(*fixed)
        if changed:
            raise RecordError(
                f"{self.folder}: holds a run with other settings ({changed}): go on with those, {OTHERWISE}"
            )
        now = differing(*({n: facts.get(n) for n in MAY_CHANGE[:2]} for facts in (there, wanted)))
        if now:
            self.notes.append(f"{self.folder}: {now}; images made from here on may differ by rounding")

    def done(self) -> Iterator[list[str]]:
        """Yield the prompts of the groups that are done."""
        for group in read_run(self.folder)[1]:
            yield group["record"]["call"]["prompts"]

    def commit(self, group: Group, output: CogGuidedOutput) -> None:
        """Take a group: its images, sheets, rows, and last of all the line that says that it is done.

        Raises:
            RecordError: it cannot be written; the group is not done then, and those before it stay.
        """
        record = output.to_dict()
        rows = self._rows(group, output, record.pop("candidates"))
        latents = latents_file(output.trace)
        if latents is not None:
            record["latents"] = f"{LATENTS}/{group.first:06d}.safetensors"
            write_whole(self.folder / record["latents"], lambda file: file.write(latents))
        shared = {name: value for name, value in record.items() if name != "trace"}
        for candidate, row in zip(output.candidates, rows, strict=True):
            if row["file"] is not None:
                own = {**shared, **output.trace_of([candidate]), "candidates": [row]}
                write_png(candidate.image, self.folder / row["file"], own)
        self._draw_sheets(group, output.candidates)
        end = append(self.folder / ROWS, b"".join(map(json_line, rows)))
        chosen = {c.request for c in output.candidates if c.chosen}
        unchosen = [group.first + i for i in range(len(group.prompts)) if i not in chosen]
        entry = {
            "group": group.number, "first_prompt": group.first, "first": self.candidates, "count": len(rows),
            "start": self._end, "end": end, "unchosen": unchosen, "record": record,
        }  # fmt: skip
        append_json(self.folder / LOG, entry)
        self.groups, self.prompts = group.number + 1, group.first + len(group.prompts)
        self.candidates, self.unchosen, self._end = self.candidates + len(rows), self.unchosen + len(unchosen), end
        self.rows = rows
        shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)

    def _rows(self, group: Group, output: CogGuidedOutput, facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of a group: the facts of each candidate, numbered through the whole run."""
        places: Counter[int] = Counter()
        rows = []
        for i, (candidate, told) in enumerate(zip(output.candidates, facts, strict=True)):
            request = group.first + candidate.request
            asked = group.prompts[candidate.request]
            file = self._file(candidate, request, places[candidate.request])
            rows.append({**told, "index": self.candidates + i, "request": request, "asked": asked, "file": file})
            places[candidate.request] += 1
        return rows

    def _file(self, candidate: Candidate, request: int, place: int) -> str | None:
        if self.keep == "none" or (self.keep == "chosen" and not candidate.chosen):
            return None
        name = f"{request:06d}_{place:03d}_{title(candidate)}.png"
        return f"{IMAGES if candidate.chosen else OTHERS}/{request // BLOCK * BLOCK:06d}/{name}"

    def _draw_sheets(self, group: Group, candidates: list[Candidate]) -> None:
        for start in range(0, len(group.prompts), SHEET_PROMPTS):
            mine = [c for c in candidates if start <= c.request < start + SHEET_PROMPTS]
            if mine:
                sheet = contact_sheet(mine, group.prompts)
                file = self.folder / sheet_of(group.first, group.first + start)
                write_whole(file, lambda stream, sheet=sheet: sheet.save(stream, "PNG", compress_level=1))  # type: ignore[misc]

    def keep_unfinished(self, output: CogGuidedOutput) -> Path | None:
        """Save what a group had when it was stopped, in a folder of its own, until the group is made."""
        if not output.candidates:
            return None
        shutil.rmtree(self.folder / UNFINISHED, ignore_errors=True)
        return output.save(self.folder / UNFINISHED)

    def write_index(self) -> None:
        """Write the pages that show what is there."""
        write_pages(self.folder, self.prompts, sheet_of)


def sheet_of(first: int, request: int) -> str:
    """Return the contact sheet of a prompt whose group begins at `first`.

    >>> sheet_of(32, 43)
    'contact_sheets/000040.png'
    """
    return f"{SHEETS}/{request - (request - first) % SHEET_PROMPTS:06d}.png"


def drop(folder: Path) -> None:
    """Remove a record, of one call or of many prompts, and the images that it names.

    >>> drop(Path("no/such/folder"))
    """
    remove_record(folder)
    for file in (FILE, SHEET):
        (folder / file).unlink(missing_ok=True)
    if is_run(folder):
        (folder / ROWS).unlink(missing_ok=True)
        drop_from(folder, 0)
        for page in folder.glob("index*.html"):
            if PAGE.match(page.name):
                page.unlink()
        (folder / LOG).unlink()


def drop_from(folder: Path, prompt: int) -> None:
    """Remove what a run left behind of groups that are not done: files of this prompt and later ones, and halves.

    >>> drop_from(Path("no/such/folder"), 0)
    """
    for kind in (IMAGES, OTHERS, SHEETS, LATENTS):
        blocks = [b for b in sorted((folder / kind).glob("[0-9]*")) if b.is_dir() and int(b.name) + BLOCK > prompt]
        for below in [folder / kind, *blocks] if (folder / kind).is_dir() else []:
            for file in below.iterdir():
                named = NAMED.match(file.name)
                if named and int(named[1]) >= prompt and file.is_file():
                    file.unlink()
            if below in blocks and not any(below.iterdir()):
                below.rmdir()
    for half in [*folder.glob(".index*.html.*"), *folder.glob(".*cogguided-probe*")]:
        half.unlink()
