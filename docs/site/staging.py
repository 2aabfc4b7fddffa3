"""Puts the site's pages into one folder: those of docs/, and those made from the rest of the repository."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

MADE = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "pipelines/embedded/README.md": "project/embedded-model.md",
}
"""Pages outside docs/ that have a place of their own; the README's is the start page, which says the same."""

LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^(```|~~~).*?^\1 *$", re.MULTILINE | re.DOTALL)
ITEM = re.compile(
    r"(?P<before>^(?![ \t]*(?:[-*]|\d+\.) )(?! )[^\n]*\S[^\n]*\n)(?P<item>(?:[-*]|\d+\.) )", re.MULTILINE
)
LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".sh": "sh", ".yml": "yaml"}


class Stage:
    """The folder with the site's pages; what they link to outside docs/ comes along as pages too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        self.waiting: list[Path] = []
        self.done: set[Path] = set()

    def add_docs(self) -> None:
        """Add all pages and pictures of docs/, and the pages of `MADE`."""
        for file in sorted(DOCS.rglob("*")):
            place = file.relative_to(DOCS)
            if not self.is_page(file):
                continue
            if file.suffix == ".md":
                self.write(str(place), self.rewritten(file.read_text(), file, str(place)))
            else:
                self.copy(file, str(place))
        for source, place in list(MADE.items())[1:]:
            file = ROOT / source
            self.write(place, self.rewritten(file.read_text(), file, place))
        while self.waiting:
            file = self.waiting.pop()
            if file not in self.done:
                self.done.add(file)
                self.write(self.place_of(file), self.page_of(file))

    def write(self, place: str, text: str) -> None:
        """Write a page."""
        file = self.folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def copy(self, file: Path, place: str) -> None:
        """Copy a file."""
        (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, self.folder / place)

    def is_page(self, file: Path) -> bool:
        """Whether a file is one of the pages and pictures of docs/."""
        return file.is_relative_to(DOCS) and not file.is_relative_to(DOCS / "site") and file.is_file()

    def place_of(self, file: Path) -> str:
        """Return where a file or folder of the repository has its page."""
        path = file.relative_to(ROOT).as_posix()
        if path in MADE:
            return MADE[path]
        if self.is_page(file):
            return file.relative_to(DOCS).as_posix()
        return f"source/{path}/index.md" if file.is_dir() else f"source/{path}.md"

    def rewritten(self, text: str, file: Path, place: str) -> str:
        """Return a page's text with links from its new place, and a blank line before each list, as Markdown wants.

        GitHub's Markdown needs no such line; the site's does.
        """

        def lead(found: re.Match[str]) -> str:
            target = (file.parent / found["path"]).resolve()
            there = self.place_of(target)
            if not target.exists() or not target.is_relative_to(ROOT):
                raise SystemExit(f"{file.relative_to(ROOT)}: a link leads nowhere: {found['path']}")
            if not self.is_page(target) and str(target.relative_to(ROOT)) not in MADE:
                self.waiting.append(target)
            up = "../" * place.count("/")
            return f"{up}{there}{found['anchor'] or ''}"

        parts, end = [], 0
        for fence in [*FENCE.finditer(text), None]:
            prose = text[end : fence.start()] if fence else text[end:]
            prose = ITEM.sub(r"\g<before>\n\g<item>", LINK.sub(lead, prose))
            parts += [prose, fence[0] if fence else ""]
            end = fence.end() if fence else end
        return "".join(parts)

    def page_of(self, file: Path) -> str:
        """Return the page that shows a file of the repository, or lists a folder."""
        path = file.relative_to(ROOT).as_posix()
        head = f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n"
        if file.is_dir():
            files = sorted(f for f in file.iterdir() if f.suffix in LANGUAGES and not f.name.startswith("_"))
            self.waiting += files
            return head + "\n".join(f"- [{f.name}]({f.name}.md){_first_line(f)}" for f in files) + "\n"
        text = file.read_text()
        fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", text)), 3)
        return f"{head}{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


def _first_line(file: Path) -> str:
    said = re.match(r'"""(.+?)(?:"""|\n)', file.read_text()) if file.suffix == ".py" else None
    return f": {said[1]}" if said else ""
