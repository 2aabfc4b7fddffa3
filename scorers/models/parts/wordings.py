"""The exact wording in which a model's authors ask it, read from the file in which they publish it.

Long wordings belong to their authors and are not part of this package; the models were trained on them to the letter.
"""

from __future__ import annotations

import ast
from pathlib import Path

from ...._errors import ModelError
from .files import fetch_file

_RAW = "https://raw.githubusercontent.com/{}/{}/{}"


def published(repository: str, commit: str, path: str, *marks: str) -> list[str]:
    """Return for each mark the text with it in a Python file on GitHub; kept in torch's cache, nothing is run.

    Raises:
        ModelError: the file cannot be fetched, or has no such text.

    Executed, without a network, in ``tests/scorers/test_hpsv3.py``.
    """
    file = fetch_file(_RAW.format(repository, commit, path))
    return [text_with(file, mark) for mark in marks]


def text_with(file: Path, mark: str) -> str:
    """Return the longest text with a mark that stands in a Python file; names in an f-string become ``{name}``.

    Raises:
        ModelError: there is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "ask.py"
    ...     _ = file.write_text('ask = "Rate " f"[{prompt}] from 1 to 5."')
    ...     text_with(file, "from 1")
    'Rate [{prompt}] from 1 to 5.'
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read as the authors' Python file ({error})") from error
    found = [text for text in map(_text, ast.walk(tree)) if text is not None and mark in text]
    if not found:
        raise ModelError(f"{file}: has no text with {mark!r}; pass the question yourself")
    return max(found, key=len)


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [_text(part) for part in node.values]
        return None if None in parts else "".join(part for part in parts if part is not None)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        return "{" + node.value.id + "}"
    return None
