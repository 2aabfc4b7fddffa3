"""Examples in docstrings (`>>>`), which Markdown takes for quotations, become blocks of code in the reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """Put each example of a docstring into a fence.

    >>> print(fenced("Add.\\n\\n>>> 1 + 1\\n2"))
    Add.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    """

    def fence(found: re.Match[str]) -> str:
        return f"{found['indent']}```pycon\n{found[0]}\n{found['indent']}```"

    return EXAMPLE.sub(fence, text)


class Doctests(griffe.Extension):
    """Does so to every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of what was read."""
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
