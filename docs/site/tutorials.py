"""Runs the tutorials for their pictures and for what their blocks print."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from blocks import Page, read_page, run_page
from PIL import Image

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
WIDTH = 900
"""Pixels of a picture at most."""
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))


def digest(page: Page) -> str:
    """Of what is run, so that changed prose runs nothing again."""
    from cogguided import __version__

    code = [(b.language, b.code, b.before, b.reason) for b in page.blocks]
    return hashlib.sha256(json.dumps([__version__, code, page.pictures], sort_keys=True).encode()).hexdigest()


def make(path: Path, out: Path, docs: Path, keep: bool = False) -> None:
    """Run a tutorial in `out`, unless that was done, and put what it drew and printed into the pages of `docs`."""
    page, done = read_page(path), out / "done.json"
    if page.mistakes:
        raise SystemExit("\n".join(page.mistakes))
    if not done.is_file() or json.loads(done.read_text())["digest"] != digest(page):
        run(page, out)
    printed = {int(number): text for number, text in json.loads(done.read_text())["printed"].items()}
    for place in [docs, *([DOCS] if keep else [])]:
        fill(place / path.relative_to(DOCS), page, printed)
        for link in page.pictures:
            picture = (place / path.relative_to(DOCS)).parent / link
            picture.write_bytes((out / "pictures" / picture.name).read_bytes())


def run(page: Page, out: Path) -> None:
    """Run a page's blocks, and keep what they drew and printed in `out`."""
    import shutil

    shutil.rmtree(out, ignore_errors=True)
    print(f"running {page.path.relative_to(DOCS)}", flush=True)
    printed = run_page(page, out / "work")
    (out / "pictures").mkdir()
    for link, source in page.pictures.items():
        with Image.open(out / "work" / source) as picture:
            small = picture.convert("RGB")
            small.thumbnail((WIDTH, 4 * WIDTH))
            small.save(out / "pictures" / Path(link).name, quality=75, method=6)
    (out / "done.json").write_text(json.dumps({"digest": digest(page), "printed": printed}))


def fill(file: Path, page: Page, printed: dict[int, str]) -> None:
    """Put what blocks printed into the blocks of text after them."""
    places = read_page(file).outputs
    if sorted(places) != sorted(page.outputs):
        raise SystemExit(f"{file}: its blocks of printed lines are not those of {page.path}")
    text = file.read_text()
    for number, (start, end) in sorted(places.items(), reverse=True):
        text = text[:start] + printed[number] + text[end:]
    file.write_text(text)
