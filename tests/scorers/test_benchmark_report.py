"""What comes of a run of the benchmark: figures, the report, and the comparison of two runs."""

import json
from html.parser import HTMLParser

import pytest
from benchmark_world import Judge, memorability, rated

from cogguided._errors import InputError
from cogguided.scorers.benchmark import build_results, compare_runs, read_ratings, score_items, write_report
from cogguided.scorers.benchmark import folder as folder_module
from cogguided.scorers.benchmark.folder import Answer, Scored
from cogguided.scorers.benchmark.tables import markdown, tables_of


@pytest.fixture
def data(tmp_path):
    return rated(tmp_path)


@pytest.fixture
def run(data, tmp_path):
    score_items(Judge(), read_ratings(data), tmp_path / "run", readouts=["expected", "greedy"])
    return tmp_path / "run"


def test_results_have_every_row(run):
    results = build_results(run, num_resamples=50)
    who = ["expected", "greedy", "train mean", "train median", "true label known"]
    rows = [(r["dimension"], r["subset"], r["who"], r["items"], r["broken_images"]) for r in results["rows"]]
    assert rows == (
        [("aesthetics", "all", w, 4, int(w in who[:2])) for w in who]
        + [("memorability", "all", w, 12, int(w in who[:2])) for w in who]
        + [("memorability", "without zeros", w, 11, int(w in who[:2])) for w in who]
    )
    greedy = results["rows"][6]["metrics"]
    assert greedy["unread"]["value"] == pytest.approx(3 / 12)  # two too dark, one broken
    assert results["rows"][5]["metrics"]["mass"]["value"] == pytest.approx(0.9)
    assert results["rows"][5]["metrics"]["label_accuracy"]["value"] > 0.5
    assert results["unread"]["greedy"] == [
        {"reason": "no number", "count": 4, "example": "no number in the answer 'dark nan'"},
        {"reason": "image cannot be read", "count": 2, "example": results["unread"]["greedy"][1]["example"]},
    ]
    assert [c["who"] for c in results["readouts_compared"]] == ["expected - greedy"] * 3
    assert results["readouts_compared"][1]["metrics"]["mae"]["value"] < 0
    worst = results["worst"]["memorability"]
    assert len(worst) == 10
    assert [w["gap"] for w in worst] == sorted((w["gap"] for w in worst), reverse=True)


def test_same_seed_same_results(run):
    first, again, other = (json.dumps(build_results(run, num_resamples=60, seed=s)) for s in (1, 1, 2))
    assert first == again != other


class Balanced(HTMLParser):
    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.images, self.drawings = [], 0, 0

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        self.drawings += tag == "svg"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_folder(run, data):
    (data.parent / "11.png").unlink()  # gone since it was scored
    results = write_report(run, about={"data": "<my> data", "split": "test", "limit": 12}, num_resamples=50)
    on_disk = json.loads((run / "results.json").read_text())
    assert on_disk["about"]["split"] == "test"
    assert on_disk["rows"][2]["metrics"]["spearman"]["value"] is None  # a constant: null, not NaN
    text = (run / "report.md").read_text()
    for line in (
        "### memorability, without zeros, 11 items",
        "| true label known |",
        "Split: test.",
        "## What could",
    ):
        assert line in text
    assert "at most 12 items a dimension" in text
    page = (run / "report.html").read_text()
    assert "&lt;my&gt; data" in page
    assert "not there any more" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # one page, nothing to fetch
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.drawings == 4
    assert parser.images == 3 + 9  # aesthetics: 3 could be read; memorability: ten, one of them gone
    assert results["about"]["data"] == "<my> data"


def test_comparison_of_runs(run, data, tmp_path):
    ratings = read_ratings(data)
    score_items(Judge("memorability"), ratings, tmp_path / "less", readouts=["greedy"])
    found = compare_runs(run, tmp_path / "less", num_resamples=50)
    assert (found["items"], found["left_out"]) == (12, [4, 0])
    assert [(r["dimension"], r["subset"], r["who"]) for r in found["rows"]] == [
        ("memorability", "all", "greedy"),
        ("memorability", "without zeros", "greedy"),
    ]
    assert found["rows"][0]["metrics"]["mae"]["value"] == 0
    score_items(memorability(), ratings, tmp_path / "fake")
    single = compare_runs(tmp_path / "fake", tmp_path / "less", num_resamples=50)
    assert single["rows"][0]["who"] == "score - greedy"
    assert single["rows"][0]["metrics"]["mae"]["value"] < 0
    with pytest.raises(InputError, match="no read-out in common"):
        compare_runs(run, tmp_path / "fake")
    data.write_text("image,dimension,score\n05.png,memorability,0.9\n")
    score_items(memorability(), read_ratings(data), tmp_path / "other")
    with pytest.raises(InputError, match="human scores of 1 items differ"):
        compare_runs(tmp_path / "fake", tmp_path / "other")


def test_lines_of_answers_round_trip():
    line = Scored("k", "funniness", 1.5, "a.png", {"greedy": Answer(float("nan"), error="é\nno", failed="answer")})
    assert Scored.from_json(line.to_json()).to_json() == line.to_json()
    assert "\n" not in line.to_json()
    assert "NaN" not in line.to_json()


def test_model_folders_are_told_apart(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"x" * 3_000_000)
    first = folder_module.folder_digest(tmp_path)
    assert folder_module.folder_digest(tmp_path) == first
    (tmp_path / "a.safetensors").write_bytes(b"x" * 2_999_999 + b"y")
    assert folder_module.folder_digest(tmp_path) != first


def test_tables():
    figure = {"value": -0.5, "low": -0.75, "high": -0.25, "note": ""}
    absent = {"value": float("nan"), "low": None, "high": None, "note": "nothing could be read"}
    row = {"dimension": "memorability", "subset": "all", "who": "a|b", "items": 3}
    (table,) = tables_of([{**row, "metrics": {"mae": figure, "mass": absent}}], signed=True)
    assert table.rows == (("a|b", "-0.5000 [-0.7500, -0.2500]", "–"),)
    assert table.notes == ("nothing could be read: a|b (captured probability)",)
    assert "| a\\|b |" in markdown(table)
