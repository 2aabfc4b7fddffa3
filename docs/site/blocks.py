"""The code blocks of a page, and how they are run: in order, as one session, offline, in an empty folder.

Comments in a page's source, which no reader sees, say what a reader would know:

    <!-- not run: needs a GPU -->           the next block is only read, and why
    <!-- first:                             code that goes before the next block: files it reads, names it uses
    write_pictures("photos")
    -->
    <!-- picture: out/contact_sheet.png --> the next picture is made from this file, which the blocks have written
    <!-- output -->                         the next block of text is what the block before has printed

Python blocks share their names; of shell blocks, lines that begin with `cogguided` are run in this process, comments
and `pip install` are passed over, and any other line is an error: such a block says why it is not run.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTS = re.compile(
    r"^<!-- (?P<mark>not run|first|picture|output)(?::\s*(?P<what>.*?))? *-->$"
    r"|^```(?P<language>\w*)\n(?P<code>.*?)^```$"
    r"|^!\[[^]]*\]\((?P<image>[^)]+)\)$",
    re.MULTILINE | re.DOTALL,
)
UNKNOWN = re.compile(r"^<!-- (?!not run:|first:|picture:|output).*-->\s*^```(?:python|sh|bash)$", re.MULTILINE)
RUNNABLE = ("python", "sh", "bash")


@dataclass
class Block:
    """A block of code: its language, its text, why it is not run ("": it is), and what goes before it."""

    language: str
    code: str
    line: int
    reason: str = ""
    before: str = ""


@dataclass
class Page:
    """What a page's source holds: blocks, pictures made by them (file to path), and places of printed output."""

    path: Path
    blocks: list[Block] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    outputs: dict[int, tuple[int, int]] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)


def read_page(path: Path) -> Page:
    """Return the blocks of a page and what its comments say of them; mistakes in comments are listed."""
    text, page, waiting = path.read_text(), Page(path), {}
    for part in PARTS.finditer(text):
        line = text.count("\n", 0, part.start()) + 1
        if part["mark"]:
            if part["mark"] in waiting or (part["mark"] != "output" and not part["what"]):
                page.mistakes.append(f"{path.name}:{line}: {part[0].splitlines()[0]}")
            waiting[part["mark"]] = part["what"] or "yes"
        elif part["image"]:
            if "picture" in waiting:
                page.pictures[part["image"]] = waiting.pop("picture")
        elif part["language"] in RUNNABLE:
            reason, before = waiting.pop("not run", ""), waiting.pop("first", "")
            page.blocks.append(Block(part["language"], part["code"], line, reason, before))
        elif "output" in waiting:
            del waiting["output"]
            page.outputs[len(page.blocks) - 1] = part.span("code")
    page.mistakes += [f"{path.name}: unknown comment: {found[0].splitlines()[0]}" for found in UNKNOWN.finditer(text)]
    page.mistakes += [f"{path.name}: nothing follows '{mark}: {what}'" for mark, what in waiting.items()]
    return page


def run_shell(code: str) -> None:
    """Run the lines that begin with `cogguided`."""
    from cogguided._cli.app import app

    for line in re.sub(r"\\\n", " ", code).splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[:2] == ["pip", "install"]:
            continue
        if words[0] != "cogguided":
            raise ValueError(f"not a command of the package, so say why it is not run: {line}")
        try:
            app(words[1:], prog_name="cogguided")
        except SystemExit as ending:
            if ending.code:
                raise RuntimeError(f"{line}: exit code {ending.code}") from ending


@contextlib.contextmanager
def _within(folder: Path) -> Iterator[None]:
    old = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(old)


def run_page(page: Page, folder: Path, names: dict[str, Any] | None = None) -> dict[int, str]:
    """Run a page's blocks in a folder, with `names` at hand, and return what each Python block printed, by number.

    Raises:
        RuntimeError: a block failed; the message names page and line, the cause is what it raised.
    """
    session: dict[str, Any] = {"__name__": "__page__", **(names or {})}
    printed = {}
    with _within(folder):
        for number, block in enumerate(page.blocks):
            said = io.StringIO()
            try:
                exec(compile(block.before, f"{page.path.name}, before line {block.line}", "exec"), session)
                if block.reason:
                    continue
                if block.language == "python":
                    # tracebacks and inspect count lines as the page does
                    code = compile("\n" * block.line + block.code, str(page.path), "exec")
                    with contextlib.redirect_stdout(said):
                        exec(code, session)
                else:
                    run_shell(block.code)
            except Exception as error:
                raise RuntimeError(f"{page.path.name}, block at line {block.line}: {error!r}") from error
            printed[number] = said.getvalue()
    return printed
