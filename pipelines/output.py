"""What a guided call returns, and how it is kept."""

from __future__ import annotations

import base64
import html
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers.utils import BaseOutput
from PIL import Image

from .._errors import RecordError, missing_extra
from ..guidance import Candidate, Run
from .records.fonts import undrawable
from .records.record import (
    FILE,
    FORMAT,
    VERSION,
    candidate_facts,
    read_single,
    to_json,
    versions,
    write_json,
    write_png,
    write_whole,
)
from .records.sheet import contact_sheet
from .records.trace import LATENTS, latents_file, to_facts

SHEET = "contact_sheet.png"
logger = logging.getLogger("cogguided")


@dataclass(repr=False)
class CogGuidedOutput(BaseOutput):
    """The images of a call and all that is known of how they came about.

    Attributes:
        images: the chosen ones, by prompt, best first.
        scores: for each of them, the raw value of each term of the target, in that scorer's own range.
        candidates: every candidate, in the order they were made.
        notes: what the user should know: memory that ran out, ties, scores that could not be read, budget.
        interrupted: whether Ctrl-C ended the call early.
        seconds: wall-clock of the call.
        nfe: network evaluations of one image, denoiser and scorers together.
        facts: model and call, as they are recorded.
        trace: what a search did with its images, from which `replay` makes them again (see `trace`).
    """

    images: list[Image.Image]
    scores: list[dict[str, float]]
    candidates: list[Candidate]
    notes: list[str]
    interrupted: bool
    seconds: float
    nfe: int
    facts: dict[str, Any]
    trace: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run, facts: dict[str, Any], trace: Sequence[dict[str, Any]] = ()) -> CogGuidedOutput:
        """Gather the output of a run, and the trace of its sampler."""
        chosen = in_order(run.candidates)
        return cls(
            images=[c.image for c in chosen],
            scores=[c.scores for c in chosen],
            candidates=run.candidates,
            notes=run.notes,
            interrupted=run.interrupted,
            seconds=run.seconds,
            nfe=run.nfe,
            facts={**facts, **({"guidance": to_json(run.facts)} if run.facts else {})},
            trace=list(trace),
        )

    def __repr__(self) -> str:
        """Say what there is in one line: prompts, seeds and scores are in `table()` and `candidates`."""
        ended = ", interrupted" if self.interrupted else ""
        return (
            f"CogGuidedOutput({len(self.images)} images, of {len(self.candidates)} candidates in {self.seconds:.1f} s"
            f"{ended}; scores={self.scores[:4]}{'...' if len(self.scores) > 4 else ''}, {len(self.notes)} notes)"
        )

    @property
    def base_output(self) -> list[dict[str, Any]]:
        """For each of `images`, what else the base pipeline's output said of it, e.g. nsfw_content_detected."""
        return [candidate.base_output for candidate in self.chosen]

    @property
    def chosen(self) -> list[Candidate]:
        """The candidates behind `images`, in the same order."""
        return in_order(self.candidates)

    def to_dict(self) -> dict[str, Any]:
        """Return the record of the call in JSON's types, as `candidates.json` has it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "versions": versions(),
            **self.facts,
            "seconds": round(self.seconds, 3),
            "nfe": self.nfe,
            "interrupted": self.interrupted,
            "notes": self.notes,
            **self.trace_of(self.candidates),
            "candidates": [candidate_facts(c, i) for i, c in enumerate(self.candidates)],
        }

    def table(self) -> Any:
        """Return all candidates as a pandas DataFrame: prompt, seed, total, each term, whether chosen, why not.

        Raises:
            MissingExtraError: pandas is not installed.

        Executed in ``tests/integrations/test_notebooks.py``.
        """
        try:
            import pandas
        except ImportError as error:
            raise missing_extra("pandas", "bench") from error
        facts = ("request", "prompt", "seed", "score", "valid", "chosen", "finished", "error", "held_back")
        rows = [{**{name: getattr(c, name) for name in facts}, **c.scores} for c in self.candidates]
        return pandas.DataFrame(rows)

    def _repr_html_(self) -> str:
        """What a notebook shows: the contact sheet with scores, and the notes."""
        sheet = base64.b64encode(self._repr_png_() or b"").decode()
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return f'<img alt="contact sheet" src="data:image/png;base64,{sheet}"><ul>{notes}</ul>'

    def _repr_png_(self) -> bytes | None:
        """What shows pictures only, such as a notebook made into a PDF: the contact sheet."""
        if not self.candidates:
            return None
        file = io.BytesIO()
        contact_sheet(self.candidates, prompts=self.facts["call"]["prompts"]).save(file, "PNG")
        return file.getvalue()

    def _note_undrawable(self) -> None:
        """Say once which characters the contact sheet shows as boxes."""
        missing = undrawable("".join([*self.facts["call"]["prompts"], *(c.prompt for c in self.candidates)]))
        if missing:
            shown = " ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
            note = f"{SHEET}: no font here has {shown}; install one that does, e.g. Noto Sans CJK or Noto Color Emoji"
            if note not in self.notes:
                self.notes.append(note)
                logger.warning(note)

    def trace_of(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """The part of the trace that some candidates rest on, to be merged into a record."""
        entries = {c.batch["entry"] for c in candidates if "entry" in c.batch}
        return {"trace": to_facts(self.trace, entries)} if entries else {}

    def save(self, directory: str | Path, overwrite: bool = False) -> Path:
        """Save the images, `contact_sheet.png` and `candidates.json` into a folder, and return it.

        The chosen images lie at the top, the others in `candidates/`; each PNG carries its own record. Files
        are written whole or not at all, the record last, so that it never names an image that is not there.

        Args:
            directory: made if it does not exist.
            overwrite: replace an earlier record there, and remove the images which it names.

        Raises:
            RecordError: a record is there already, or a file cannot be written; what was written stays.
        """
        folder = Path(directory)
        check_free(folder, overwrite)
        self._note_undrawable()
        record = self.to_dict()
        remove_record(folder)
        latents = latents_file(self.trace)
        if latents is not None:
            write_whole(folder / LATENTS, lambda file: file.write(latents))
        shared = {name: value for name, value in record.items() if name != "trace"}
        for candidate, facts in zip(self.candidates, record["candidates"], strict=True):
            own = {**shared, **self.trace_of([candidate]), "candidates": [facts]}
            write_png(candidate.image, folder / facts["file"], own)
        if self.candidates:
            sheet = contact_sheet(self.candidates, prompts=record["call"]["prompts"])
            write_whole(folder / SHEET, lambda file: sheet.save(file, "PNG"))
        write_json(record, folder / FILE)
        return folder


def remove_record(folder: Path) -> None:
    """Remove the images that a folder's record names; the record itself is there to be replaced.

    >>> remove_record(Path("no/such/folder"))
    """
    if (folder / FILE).exists():
        for old in read_single(folder).candidates:
            file = folder / old["file"]
            if file.resolve().is_relative_to(folder.resolve()):  # it may name anything
                file.unlink(missing_ok=True)
        (folder / LATENTS).unlink(missing_ok=True)


def check_free(folder: Path, overwrite: bool) -> None:
    """Check that a folder can take a record, before hours are spent on making one.

    Raises:
        RecordError: there is one already and `overwrite` is False, or the folder cannot be written to.

    >>> check_free(Path("/proc/nowhere"), overwrite=False)
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: cannot write ...
    """
    if (folder / FILE).exists():
        if not overwrite:
            raise RecordError(
                f"{folder} has a record already: choose another folder, or replace it (overwrite=True, --overwrite)"
            )
        read_single(folder)
    probe = folder / ".cogguided-probe"
    write_whole(probe, lambda file: None)
    probe.unlink()


def in_order(candidates: list[Candidate]) -> list[Candidate]:
    """Return the chosen candidates, by request and best first."""
    chosen = [c for c in candidates if c.chosen]
    return sorted(chosen, key=lambda c: (c.request, *c.rank))
