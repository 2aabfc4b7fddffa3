"""Pages that show a run: every prompt with its chosen images and scores, and the way to the contact sheets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._reports.pages import render
from ..._texts import visible
from ...scorers.bulk.lines import read_json_lines
from ..records.record import write_whole
from ..records.streamed import ROWS, read_run

PROMPTS_A_PAGE = 500
PAGE = re.compile(r"index(_\d+)?\.html$")


def page_name(number: int) -> str:
    """Return the file of a page.

    >>> page_name(0), page_name(1)
    ('index.html', 'index_2.html')
    """
    return "index.html" if number == 0 else f"index_{number + 1}.html"


def write_pages(folder: Path, prompts: int, sheet_of: Callable[[int, int], str]) -> None:
    """Write the pages of a folder's first `prompts` prompts, each whole or not at all; one page is held at a time.

    `sheet_of(first, request)` is the contact sheet of a prompt whose group begins at `first`.
    """
    last = max(0, (prompts - 1) // PROMPTS_A_PAGE)
    number = 0
    sections: list[dict[str, Any]] = []
    for request, section in _sections(folder, sheet_of):
        if request // PROMPTS_A_PAGE > number:
            _write(folder, number, last, prompts, sections)
            number, sections = request // PROMPTS_A_PAGE, []
        sections.append(section)
    _write(folder, number, last, prompts, sections)


def _sections(folder: Path, sheet_of: Callable[[int, int], str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for group in read_run(folder)[1]:
        first, asked = group["first_prompt"], group["record"]["call"]["prompts"]
        rows: dict[int, list[dict[str, Any]]] = {first + i: [] for i in range(len(asked))}
        for row in read_json_lines(folder / ROWS, group["start"], group["end"]):
            rows[row["request"]].append(row)
        for (request, mine), text in zip(rows.items(), asked, strict=True):
            yield request, _section(request, text, mine, sheet_of(first, request))


def _write(folder: Path, number: int, last: int, prompts: int, sections: Sequence[Mapping[str, Any]]) -> None:
    page = render(
        "prompts.html", name=visible(folder.name), count=prompts, rows=ROWS, prompts=sections,
        place=f"page {number + 1} of {last + 1}" if last else "",
        earlier=page_name(number - 1) if number else "", later=page_name(number + 1) if number < last else "",
    )  # fmt: skip
    write_whole(folder / page_name(number), lambda file: file.write(page.encode("utf-8", "backslashreplace")))


def _section(request: int, asked: str, rows: list[dict[str, Any]], sheet: str) -> dict[str, Any]:
    chosen = sorted((r for r in rows if r["chosen"]), key=lambda r: -(r["score"] or 0.0))
    images = [_image(row, asked) for row in chosen]
    return {"number": request, "text": asked, "sheet": sheet if rows else "", "made": len(rows), "images": images}


def _image(row: dict[str, Any], asked: str) -> dict[str, Any]:
    told = [f"{name} {value:.3f}" for name, value in row["scores"].items() if value is not None]
    caption = ", ".join([f"no. {row['index']}", f"seed {row['seed']}", *told])
    return {"file": row["file"], "caption": caption, "wording": "" if row["prompt"] == asked else row["prompt"]}
