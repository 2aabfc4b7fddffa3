"""The code blocks of README and docs/ run: start, first tutorial and notebook always, small; all pages, slowly."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import blocks
import pytest
from PIL import Image

import cogguided
from cogguided import BestOfN, CogGuidedPipeline, JointSearch
from cogguided.guidance import finetuning
from cogguided.guidance.finetuning import recipe as finetuning_recipe

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), ROOT / "pipelines/embedded/README.md"]
SMALL = {"prompts_per_round": 2, "images_per_prompt": 4, "images_per_evaluation": 1, "updates": 2, "timesteps": 2}
SMALL |= {"num_inference_steps": 4, "rounds": 1, "minutes": None}


def named(page):
    return str(page.relative_to(ROOT))


def in_steps(pipe, steps):
    defaults = {**pipe._settings.call_defaults, "num_inference_steps": steps}
    pipe._settings = replace(pipe._settings, call_defaults=defaults)
    return pipe


@pytest.fixture
def _tidy(monkeypatch):
    """What pages register is forgotten, and libraries' bars are off."""
    from diffusers.utils import logging

    from cogguided.scorers import registry

    logging.disable_progress_bar()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


@pytest.fixture
def _quick(monkeypatch, _tidy):
    """One embedded model for all, in one step; best of four in the place of more."""
    pipe = in_steps(CogGuidedPipeline.from_pretrained("embedded"), 1)
    ours = ("target", "scorer", "guidance")
    view = classmethod(lambda cls, name, **how: cls.from_pipe(pipe, **{k: how[k] for k in ours if k in how}))
    monkeypatch.setattr(CogGuidedPipeline, "from_pretrained", view)
    monkeypatch.setattr(cogguided, "BestOfN", lambda n: BestOfN(4))
    monkeypatch.setattr(cogguided, "JointSearch", lambda n, **how: JointSearch(4, rewrites=1, steps=1, full=0))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_comments_about_blocks_are_understood(page):
    read = blocks.read_page(page)
    assert not read.mistakes
    for block in read.blocks:
        compile(block.before, str(page), "exec")
        if block.language != "python" and not block.reason:
            for line in re.sub(r"\\\n", " ", block.code).splitlines():
                assert line.startswith(("cogguided ", "pip install ")), f"{line}: not run, so say why"


def test_a_page_is_run_in_order_and_says_where_it_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- first:\na = 1\n-->\n```python\nprint(a + 1)\n```\n\n<!-- output -->\n```text\n```\n\n"
        "<!-- not run: no network -->\n```sh\ncurl x\n```\n\n```python\nimport pathlib\n"
        "pathlib.Path('b.txt').write_text(str(a))\n```\n\n"
        "<!-- picture: b.txt -->\n![b](b.webp)\n"
    )
    read = blocks.read_page(page)
    assert blocks.run_page(read, tmp_path / "work") == {0: "2\n", 2: ""}
    assert (tmp_path / "work/b.txt").read_text() == "1"
    assert list(read.outputs) == [0]
    assert read.pictures == {"b.webp": "b.txt"}
    page.write_text("text\n\n```python\nx = 1\nx / 0\n```\n<!-- not run: nothing follows -->\n")
    with pytest.raises(RuntimeError, match=r"page.md, block at line 3: ZeroDivisionError"):
        blocks.run_page(blocks.read_page(page), tmp_path / "work")
    assert blocks.read_page(page).mistakes
    page.write_text("<!-- not rn: no network -->\n```sh\ncogguided scorers\n```\n")
    assert blocks.read_page(page).mistakes
    page.write_text("```sh\nrm -r x\n```\n")
    with pytest.raises(RuntimeError, match="say why it is not run"):
        blocks.run_page(blocks.read_page(page), tmp_path / "work")
    page.write_text("```sh\ncogguided score nothing-here\n```\n")
    with pytest.raises(RuntimeError, match="exit code"):
        blocks.run_page(blocks.read_page(page), tmp_path / "work")


@pytest.mark.usefixtures("_quick")
def test_the_start_and_the_first_tutorial_run(tmp_path):
    readme = blocks.read_page(ROOT / "README.md")
    start = blocks.read_page(DOCS / "index.md")
    assert readme.blocks[0].code == start.blocks[0].code
    blocks.run_page(start, tmp_path / "start")
    with Image.open(tmp_path / "start/face.png") as face:
        assert face.size == (64, 64)
    page = blocks.read_page(DOCS / "tutorials/images.md")
    page.blocks = [block for block in page.blocks if "generate" not in block.code]
    said = "".join(blocks.run_page(page, tmp_path / "work").values())
    values = [float(v) for v in re.findall(r"^seed \d+  valence ([+-]\d\.\d\d) ± ", said, re.MULTILINE)]
    assert len(values) == 4
    assert values == sorted(values, reverse=True)
    for picture in page.pictures.values():
        with Image.open(tmp_path / "work" / picture) as made:
            made.load()


@pytest.mark.usefixtures("_quick")
def test_the_notebook_runs_and_is_kept_without_outputs():
    notebook = json.loads((ROOT / "examples/tour.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    names, shown = {}, []
    for cell in cells:  # plain Python: a cell's last value is what a notebook shows
        *before, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(before, []), "tour.ipynb", "exec"), names)
        shown.append(eval(compile(ast.Expression(last.value), "tour.ipynb", "eval"), names))
    assert shown[0].size == (64, 64)
    for out in (shown[1], shown[3]):
        assert out._repr_html_() or out._repr_png_()
    scores = [row[1] for row in shown[2]]
    assert scores == sorted(scores, reverse=True)
    assert set(shown[5]) == {"aesthetics", "funniness", "emotional_valence", "memorability"}
    assert shown[6] == sorted(shown[6], reverse=True)


@pytest.mark.slow
@pytest.mark.usefixtures("_tidy")
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_runs_or_says_why_not(page, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "recipe", lambda **how: replace(finetuning_recipe(**how), **SMALL))
    read = blocks.read_page(page)
    if page.stem == "teaching":  # the build runs it as it stands
        for block in read.blocks:
            block.code = re.sub(r"rounds=\d+, evaluate_every=\d+", "rounds=1", block.code)
    printed = blocks.run_page(read, tmp_path / "work")
    assert len(printed) == sum(not block.reason for block in read.blocks)
    for number in read.outputs:
        assert printed[number].strip()
    for picture in read.pictures.values():
        with Image.open(tmp_path / "work" / picture) as made:
            made.load()
