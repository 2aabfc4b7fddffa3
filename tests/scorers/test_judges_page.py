"""docs/judges.md says what scorers/judges.py says."""

import runpy
from pathlib import Path

import pytest

from cogguided.scorers.judges import JUDGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page():
    return runpy.run_path(str(ROOT / "benchmarks" / "judges_page.py"))


def test_the_table_is_not_stale(page):
    text = (ROOT / "docs" / "judges.md").read_text("utf-8")
    assert page["table"]() in text, "run: python benchmarks/judges_page.py"
    assert set(page["USE"]) == {info.name for info, _ in JUDGES}


def test_sizes_agree_with_published_files(page):
    for name, (size, width) in page["PUBLISHED"].items():
        assert float(size.split()[0]) == pytest.approx(page["PARAMETERS"][name] * width / 1e3, rel=0.005), name


@pytest.mark.parametrize("name", ["clip_iqa", "imagereward"])
def test_sizes_are_counted(page, name):
    assert page["count"](name) == pytest.approx(page["PARAMETERS"][name], abs=0.1)
