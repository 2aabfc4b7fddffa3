"""Pages that show a run: every prompt with its chosen images and scores, and the way to the contact sheets."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..._texts import visible
from ...scorers.bulk.lines import read_json_lines
from ..records.record import write_whole
from ..records.streamed import ROWS, read_run

PROMPTS_A_PAGE = 500
PAGE = re.compile(r"index(_\d+)?\.html$")
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1200px;color:#1d1d1f;background:#fbfaf7}
section{border-top:1px solid #dedcd5;padding:.6em 0}h2{font-size:1.05em;margin:0}p,figcaption{color:#77767c;margin:0}
figure{display:inline-block;margin:.4em .8em 0 0}img{min-width:128px;max-width:256px;image-rendering:auto}"""


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
    sections: list[str] = []
    for request, section in _sections(folder, sheet_of):
        if request // PROMPTS_A_PAGE > number:
            _write(folder, number, last, prompts, "".join(sections))
            number, sections = request // PROMPTS_A_PAGE, []
        sections.append(section)
    _write(folder, number, last, prompts, "".join(sections))


def _sections(folder: Path, sheet_of: Callable[[int, int], str]) -> Iterator[tuple[int, str]]:
    for group in read_run(folder)[1]:
        first, asked = group["first_prompt"], group["record"]["call"]["prompts"]
        rows: dict[int, list[dict[str, Any]]] = {first + i: [] for i in range(len(asked))}
        for row in read_json_lines(folder / ROWS, group["start"], group["end"]):
            rows[row["request"]].append(row)
        for (request, mine), text in zip(rows.items(), asked, strict=True):
            yield request, _section(request, text, mine, sheet_of(first, request))


def _write(folder: Path, number: int, last: int, prompts: int, body: str) -> None:
    ways = " ".join(_ways(number, last))
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(visible(folder.name))}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(visible(folder.name))}</h1>"
        f'<p>{prompts} prompts; every candidate is a row of <a href="{ROWS}">{ROWS}</a>. {ways}</p>'
        f"{body}<p>{ways}</p></html>\n"
    )
    write_whole(folder / page_name(number), lambda file: file.write(page.encode("utf-8", "backslashreplace")))


def _ways(number: int, last: int) -> Iterator[str]:
    if number:
        yield f'<a href="{page_name(number - 1)}">earlier</a>'
    if last:
        yield f"page {number + 1} of {last + 1}"
    if number < last:
        yield f'<a href="{page_name(number + 1)}">later</a>'


def _section(request: int, asked: str, rows: list[dict[str, Any]], sheet: str) -> str:
    chosen = sorted((r for r in rows if r["chosen"]), key=lambda r: -(r["score"] or 0.0))
    figures = "".join(_figure(row, asked) for row in chosen) or "<p>no image with a valid score</p>"
    told = f'<a href="{sheet}">candidates: {len(rows)}</a>' if rows else "candidates: 0"
    heading = f"{request}. {html.escape(visible(asked))}"
    return f"<section id=p{request}><h2>{heading}</h2><p>{told}</p>{figures}</section>\n"


def _figure(row: dict[str, Any], asked: str) -> str:
    told = [f"{name} {value:.3f}" for name, value in row["scores"].items() if value is not None]
    words = "" if row["prompt"] == asked else f"<br>{html.escape(visible(row['prompt']))}"
    caption = html.escape(visible(", ".join([f"no. {row['index']}", f"seed {row['seed']}", *told]))) + words
    file = row["file"]
    image = "" if file is None else f'<a href="{file}"><img loading=lazy src="{file}" alt=""></a>'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
