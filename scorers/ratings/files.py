"""Text and JSON files, and errors that name them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..._errors import InputError
from ..._texts import read_text as read_text


def read_json(file: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: not JSON.
    """
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: is not JSON ({error})") from error


def read_json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield "line 3" and what that line holds; empty lines are left out.

    Raises:
        InputError: a line is not JSON.
    """
    for number, line in enumerate(read_text(file).split("\n"), 1):  # not at U+2028, which JSON may hold
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{file}, line {number}: is not JSON ({error})") from error


def check_list(file: Path, content: Any) -> list[Any]:
    """Return what a file holds if it is a list.

    Raises:
        InputError: it is not.
    """
    if not isinstance(content, list):
        raise InputError(f"{file}: expected a JSON list, got {type(content).__name__}")
    return content
