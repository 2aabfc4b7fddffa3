"""Texts that a user brings: files, whatever editor wrote them, and what may not pass as it is."""

from __future__ import annotations

import codecs
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ._errors import InputError

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins alike
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
SURROGATE = re.compile("[\ud800-\udfff]")


def decode(data: bytes, name: str) -> str:
    """Return what bytes say: UTF-8 with or without a byte order mark, UTF-16 or UTF-32 by theirs.

    Raises:
        InputError: anything else, with the line and what it seems to be; `name` is the file's.

    >>> decode(codecs.BOM_UTF16_LE + "a cat".encode("utf-16-le"), "prompts.txt")
    'a cat'
    >>> decode(b"a cat\\ncaf\\xe9", "prompts.txt")
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: prompts.txt, line 2: is not UTF-8 text (byte 0xe9; it seems to be Latin-1 or ...
    """
    mark, kind = next(((m, k) for m, k in MARKS if data.startswith(m)), (b"", "utf-8"))
    body = data[len(mark) :]
    try:
        text = body.decode(kind)
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", body[: error.start])) + 1
        if kind != "utf-8":
            raise InputError(f"{name}: is cut off or damaged, its mark says {kind} ({error.reason})") from error
        seems = "a binary file" if b"\0" in body else "Latin-1 or Windows-1252"
        raise InputError(
            f"{name}, line {line}: is not UTF-8 text (byte 0x{body[error.start]:02x}; it seems to be {seems}): "
            "save it as UTF-8"
        ) from error
    if "\0" in text:
        seems = "UTF-16 without its mark" if body[1::2].count(0) + body[::2].count(0) > len(body) / 4 else "binary"
        raise InputError(f"{name}: is not text, it holds NUL (it seems to be {seems}): save it as UTF-8")
    return text


def read_text(file: Path) -> str:
    """Return a text file's content (see `decode`).

    Raises:
        InputError: not text.
        OSError: it cannot be read.

    >>> read_text(Path(__file__))[:12]
    '\"\"\"Texts tha'
    """
    return decode(file.read_bytes(), str(file))


def prompt_lines(text: str) -> list[str]:
    """Return the prompts of a text, one a line, whatever ends the lines; empty ones and those after "#" are left out.

    >>> prompt_lines("a cat\\r\\n# animals that bark\\r\\na dog\\n")
    ['a cat', 'a dog']
    """
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
    return [line for line in lines if line and not line.startswith("#")]


def visible(text: str) -> str:
    """Return a text whose control characters, and bytes of a file name that are no UTF-8, are spelt out.

    >>> visible("\x1b[31mred.png")
    '\\\\x1b[31mred.png'
    """
    return CONTROL.sub(_spelt_out, text)


def to_json_text(value: Any, **options: Any) -> str:
    """Return JSON that any encoder takes: bytes of a file name that are no UTF-8 stand as lone surrogates in escapes.

    In Python `os.fsencode(json.loads(text)["file"])` gives the name's bytes again.

    >>> to_json_text({"file": "caf\\udce9"})
    '{"file": "caf\\\\udce9"}'
    """
    return SURROGATE.sub(_spelt_out, json.dumps(value, ensure_ascii=False, **options))


def cell(text: str) -> str:
    """Return a text for a CSV file that no spreadsheet takes for a formula: an apostrophe before = + - @ and tabs.

    Bytes of a file name that are no UTF-8 are spelt out.

    >>> cell("=SUM(A1)"), cell("a.png")
    ("'=SUM(A1)", 'a.png')
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _spelt_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def html_table(head: Sequence[str], rows: Sequence[Sequence[object]], most: int = 20) -> str:
    """Write a table for a notebook: floats in three decimals, None as nothing, the first `most` rows.

    >>> html_table(["score"], [[0.25], [None]], most=1)
    '<table><tr><th>score</th></tr><tr><td>0.250</td></tr></table><p>1 of 2 rows</p>'
    """
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in head)]
    for row in rows[:most]:
        cells = ["" if v is None else f"{v:.3f}" if isinstance(v, float) else str(v) for v in row]
        lines.append("".join(f"<td>{html.escape(visible(cell))}</td>" for cell in cells))
    left_out = f"<p>{most} of {len(rows)} rows</p>" if len(rows) > most else ""
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>{left_out}"
