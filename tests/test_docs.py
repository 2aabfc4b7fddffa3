"""The README and the pages of docs/: nothing they point to is missing, and what they show can be typed."""

import ast
import re
import shlex
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
import staging
import yaml
from PIL import Image
from typer.testing import CliRunner

import cogguided
from cogguided._cli.app import app
from cogguided._errors import MissingExtraError

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), ROOT / "pipelines/embedded/README.md"]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = page.read_text()
    marked = re.findall(r'<a name="([^"]+)">', text)
    return {*marked, *(slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE))}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=named)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_picture_is_shown_and_opens():
    pictures = re.compile(r"!\[[^]]*\]\(([^)]+)\)")
    shown = {(page.parent / link).resolve() for page in PAGES for link in pictures.findall(page.read_text())}
    assert set((ROOT / "docs/images").iterdir()) == shown
    for file in shown:
        if file.suffix == ".svg":
            assert ElementTree.parse(file).getroot().tag.endswith("svg")
            continue
        with Image.open(file) as picture:
            picture.load()


def test_the_readme_is_short_and_names_every_page():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 120
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert f"(docs/{page.name}" in text


class Settings(yaml.SafeLoader):
    """Reads mkdocs.yml, in which one setting names a function."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def entries(nav):
    """Every page that a navigation names."""
    for item in nav:
        for below in item.values() if isinstance(item, dict) else [item]:
            yield from [below] if isinstance(below, str) else entries(below)


def test_the_sites_navigation_names_every_page_and_no_other():
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Settings)
    named_there = list(entries(settings["nav"]))
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    made = {"reference/commands.md", *staging.MADE.values()}
    assert len(named_there) == len(set(named_there))
    assert set(named_there) == written | made


def test_links_of_the_site_lead_to_its_pages(tmp_path):
    stage = staging.Stage(tmp_path / "pages")
    stage.add_docs()
    for page in stage.folder.rglob("*.md"):
        for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", staging.FENCE.sub("", page.read_text())):
            assert "://" in link or (page.parent / link).exists(), f"{page.relative_to(stage.folder)}: {link}"


def test_the_site_asks_no_other_host():
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Settings)
    assert settings["theme"]["font"] is False
    assert [*settings["extra"]["polyfills"], *settings["extra_css"]] == ["assets/iframe-worker.js", "assets/site.css"]
    for asset in (DOCS / "site/assets").iterdir():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", asset.read_text())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_blocks_are_python_and_import_what_there_is(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cogguided"):
                with suppress(MissingExtraError):  # any other error says what is not there
                    exec(ast.unparse(node), {})
            if isinstance(node, ast.ImportFrom) and node.module == "cogguided":
                assert {alias.name for alias in node.names} <= set(cogguided.__all__)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_have_the_options_that_are_shown(page):
    for block in blocks(page, "sh", "bash"):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            words = shlex.split(line, comments=True)
            if "cogguided" not in words or words[0] in ("git", "pip"):
                continue
            after = words[words.index("cogguided") + 1 :]
            command = after[:2] if after[1:2] in (["merge"], ["settings"], ["tally"]) else after[:1]
            shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "300"})
            assert shown.exit_code == 0, line
            known = set(re.findall(r"--[a-z][a-z-]*", shown.stdout))
            assert {word for word in after if word.startswith("--")} <= known, line
