"""Runs of the benchmark: every item scored once, kills, changed settings, processes, figures and report."""

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cogguided._cli.app import app
from cogguided._errors import InputError, ModelError, RecordError, UnknownNameError
from cogguided.scorers import DIMENSIONS, FakeScorer, Scores
from cogguided.scorers.benchmark import build_results, compare_runs, read_ratings, score_items, write_report
from cogguided.scorers.benchmark import folder as folder_module
from cogguided.scorers.benchmark.folder import Answer, Scored, read_answers
from cogguided.scorers.benchmark.plots import MAX_POINTS, scatter
from cogguided.scorers.benchmark.report import explain
from cogguided.scorers.benchmark.run import Processes, plan_for
from cogguided.scorers.benchmark.tables import markdown, tables_of

COUNT = 12


@pytest.fixture
def data(tmp_path):
    """Grey pictures whose brightness is nearly their human memorability; one of them is broken."""
    lines = ["image,dimension,score"]
    for index in range(COUNT):
        level = index * 255 // COUNT
        Image.new("RGB", (4, 4), (level, level, level)).save(tmp_path / f"{index:02d}.png")
        human = 0.0 if index == 0 else round(level / 255 * 0.9 + 0.05 * (index % 3), 3)
        lines.append(f"{index:02d}.png,memorability,{human}")
        if index < 4:
            lines.append(f"{index:02d}.png,aesthetics,{index + 1}")
    (tmp_path / "03.png").write_bytes(b"not a picture")
    file = tmp_path / "ratings.csv"
    file.write_text("\n".join(lines))
    return file


class Judge:
    """Scores by brightness on each dimension's scale; greedy rounds, and fails on dark pictures."""

    name, low, high, differentiable, needs_prompt = "aesthetics", 0.0, 10.0, False, False
    dimension, core, options = "aesthetics", None, None

    def __init__(self, *dimensions):
        self.dimensions = dimensions or tuple(DIMENSIONS)
        self.looks = []

    def to(self, device):
        return self

    def with_dimension(self, name):
        return FakeScorer(name, DIMENSIONS[name].low, DIMENSIONS[name].high)

    def __call__(self, images, prompts=None):
        return self.score_all(images, [self.dimension])[self.dimension]

    def score_all(self, images, dimensions=None):
        return self.score_readouts(images, dimensions, ["expected"])["expected"]

    def score_readouts(self, images, dimensions=None, readouts=("expected", "greedy")):
        self.looks.append((len(images), tuple(dimensions)))
        shares = [sum(image.getpixel((0, 0))) / 765 for image in images]
        found = {}
        for readout in readouts:
            found[readout] = {}
            for name in dimensions:
                dim = DIMENSIONS[name]
                values = torch.tensor([dim.low + share * (dim.high - dim.low) for share in shares])
                if readout == "greedy":
                    values = torch.where(values < dim.low + 0.1 * (dim.high - dim.low), torch.nan, values.round())
                    errors = [None if v == v else f"no number in the answer 'dark {v}'" for v in values.tolist()]
                    found[readout][name] = Scores(values, errors=errors)
                else:
                    mass = torch.full_like(values, 0.9)
                    labels = [dim.label(v) for v in values.tolist()]
                    found[readout][name] = Scores(values, std=values * 0 + 0.1, mass=mass, labels=labels)
        return found


def memorability(**kwargs):
    return FakeScorer("memorability", **kwargs)


# ---------------------------------------------------------------------- what is compared with what


def test_every_item_is_scored_once_and_a_broken_image_is_counted(data, tmp_path):
    ratings = read_ratings(data)
    scorer = memorability()
    plan = score_items(scorer, ratings, tmp_path / "run", batch_size=5)
    assert (plan.dimensions, plan.readouts, plan.items) == (("memorability",), ("score",), COUNT)
    assert plan.notes == ("The scorer knows no aesthetics: those ratings are left out.",)
    assert scorer.num_scored == COUNT - 1
    answers = read_answers(tmp_path / "run")
    assert list(answers) == [r.key for r in ratings if r.dimension == "memorability"]
    broken = answers["memorability/03.png"].answers["score"]
    assert (broken.failed, broken.value != broken.value) == ("image", True)
    assert "03.png: cannot be read as an image" in broken.error
    bright = answers["memorability/11.png"]
    assert bright.answers["score"].value == pytest.approx(233 / 255)
    assert bright.human == ratings[-1].score
    assert Path(bright.image).is_absolute()


def test_two_readouts_share_one_look_and_dimensions_of_an_image_too(data, tmp_path):
    judge = Judge()
    plan = score_items(judge, read_ratings(data), tmp_path / "run", readouts=["expected", "greedy"], batch_size=5)
    assert plan.readouts == ("expected", "greedy")
    assert sorted(judge.looks) == [
        (3, ("aesthetics", "memorability")),
        (3, ("memorability",)),
        (5, ("memorability",)),
    ]
    answers = read_answers(tmp_path / "run")["memorability/11.png"].answers
    assert answers["expected"].mass == pytest.approx(0.9)
    assert answers["expected"].std == pytest.approx(0.1)
    assert (answers["greedy"].value, answers["greedy"].label) == (1.0, None)
    dark = read_answers(tmp_path / "run")["memorability/00.png"].answers["greedy"]
    assert (dark.failed, dark.error[:9]) == ("answer", "no number")


def test_a_scorer_of_something_else_is_ranked_only(data, tmp_path):
    ratings = read_ratings(data)
    plan = score_items(FakeScorer("brightness", 0, 255), ratings, tmp_path / "run")
    assert (plan.same_scale, plan.dimensions) == (False, ("aesthetics", "memorability"))
    assert "'brightness' (0 to 255) is none of the four dimensions: its numbers are ranked" in plan.notes[0]
    results = build_results(tmp_path / "run", num_resamples=0)
    row = next(r for r in results["rows"] if r["dimension"] == "memorability")
    assert row["metrics"]["spearman"]["value"] > 0.9
    assert row["metrics"]["mae"]["note"] == "the scorer is on another scale"
    assert 0 <= results["worst"]["memorability"][0]["gap"] <= 1


def test_plans(data):
    ratings = read_ratings(data)
    assert plan_for(Judge(), ratings).dimensions == ("aesthetics", "memorability")
    assert plan_for(Judge("memorability", "funniness"), ratings).items == COUNT
    assert plan_for(Judge(), ratings).readouts == ("expected",)
    other_scale = plan_for(FakeScorer("aesthetics", 1, 10), ratings)
    assert not other_scale.same_scale
    assert "is on a scale of its own" in other_scale.notes[1]
    with pytest.raises(InputError, match=r"none of the data's dimensions \(aesthetics, memorability\)"):
        plan_for(Judge("funniness"), ratings)
    with pytest.raises(InputError, match="has no choice of read-outs: leave --readout out"):
        plan_for(FakeScorer(), ratings, ["greedy"])
    with pytest.raises(UnknownNameError, match="did you mean 'greedy'"):
        plan_for(Judge(), ratings, ["gredy"])


def test_a_prompt_where_one_is_needed(data, tmp_path):
    ratings, scorer = read_ratings(data), FakeScorer("clip", needs_prompt=True)
    with pytest.raises(InputError, match="--prompt"):
        score_items(scorer, ratings, tmp_path / "run")
    score_items(scorer, ratings, tmp_path / "run", prompt="a dark picture")  # nothing was scored: begun anew
    results = write_report(tmp_path / "run", num_resamples=0)
    assert any('with the text "a dark picture"' in line for line in explain(results))


# ---------------------------------------------------------------------- long runs


def failing_after(batches):
    calls = []

    def brightness(pixels):
        calls.append(1)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return pixels.mean(dim=(1, 2, 3))

    return memorability(fn=brightness)


def test_an_interrupted_run_goes_on_and_ends_alike(data, tmp_path):
    ratings = read_ratings(data, dimensions=["memorability"])
    score_items(memorability(), ratings, tmp_path / "whole", batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        score_items(failing_after(7), ratings, tmp_path / "run", batch_size=4)
    kept = read_answers(tmp_path / "run")
    assert len(kept) == 8
    with pytest.raises(RecordError, match="cut short after 8 of 12 items; the command that began it goes on"):
        build_results(tmp_path / "run")
    scorer = memorability()
    score_items(scorer, ratings, tmp_path / "run", batch_size=4)
    assert scorer.num_scored == 4
    run, whole = (build_results(tmp_path / name, num_resamples=50) for name in ("run", "whole"))
    assert json.dumps(run) == json.dumps(whole)
    lazy = []
    score_items(lambda: lazy.append(1), ratings, tmp_path / "run", settings={"scorer": "memorability"})
    assert not lazy  # complete: not even loaded


def test_kill_minus_nine(data, tmp_path):
    code = f"""
import time
from cogguided.scorers import FakeScorer
from cogguided.scorers.benchmark import read_ratings, score_items
def slow(pixels):
    time.sleep(0.3)
    return pixels.mean(dim=(1, 2, 3))
scorer = FakeScorer("memorability", fn=slow)
score_items(scorer, read_ratings({str(data)!r}), {str(tmp_path / "run")!r}, batch_size=1)
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
    file = tmp_path / "run" / "answers-0.jsonl"
    deadline = time.monotonic() + 120
    while not (file.is_file() and file.read_bytes().count(b"\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = len(read_answers(tmp_path / "run"))
    assert 2 <= done < COUNT
    scorer = memorability()
    score_items(scorer, read_ratings(data), tmp_path / "run", batch_size=1)
    answers = read_answers(tmp_path / "run")
    assert len(answers) == COUNT
    assert scorer.num_scored == sum(a.answers["score"].failed is None for a in list(answers.values())[done:])


def test_a_line_without_its_end_is_scored_again(data, tmp_path):
    ratings = read_ratings(data)
    score_items(memorability(), ratings, tmp_path / "run")
    file = tmp_path / "run" / "answers-0.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[:-30])
    assert len(read_answers(tmp_path / "run")) == COUNT - 1
    scorer = memorability()
    score_items(scorer, ratings, tmp_path / "run")
    assert scorer.num_scored == 1
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("line", "message"), [(b"{}\n", "line 13: cannot be read"), (None, "memorability/00.png is there twice")]
)
def test_damaged_answers(data, tmp_path, line, message):
    score_items(memorability(), read_ratings(data), tmp_path / "run")
    file = tmp_path / "run" / "answers-0.jsonl"
    first = file.read_bytes().split(b"\n")[0] + b"\n"
    file.write_bytes(file.read_bytes() + (first if line is None else line))
    with pytest.raises(RecordError, match=message):
        build_results(tmp_path / "run")


def test_changed_settings_are_refused(data, tmp_path):
    ratings = read_ratings(data)
    score_items(memorability(), ratings, tmp_path / "run", settings={"dtype": "float32"})
    with pytest.raises(RecordError, match=r'dtype: "float32" there, "bfloat16" now.*--overwrite'):
        score_items(memorability(), ratings, tmp_path / "run", settings={"dtype": "bfloat16"})
    with pytest.raises(RecordError, match="items: 16 there, 4 now; items_digest:"):
        score_items(memorability(), ratings[:4], tmp_path / "run", settings={"dtype": "float32"})
    with pytest.raises(RecordError, match="prompt: null there"):
        score_items(memorability(), ratings, tmp_path / "run", prompt="a", settings={"dtype": "float32"})
    scorer = memorability()
    score_items(scorer, ratings, tmp_path / "run", settings={"dtype": "bfloat16"}, overwrite=True)
    assert scorer.num_scored == COUNT - 1


def test_changed_pictures_are_refused_and_moved_ones_are_not(data, tmp_path):
    ratings = read_ratings(data)
    score_items(memorability(), ratings, tmp_path / "run")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in data.parent.glob("*.png"):
        (moved / file.name).write_bytes(file.read_bytes())
    scorer = memorability()
    score_items(scorer, read_ratings(data, images=moved), tmp_path / "run")
    assert scorer.num_scored == 0
    Image.new("RGB", (4, 4), "red").save(moved / "05.png")
    with pytest.raises(RecordError, match=r"other settings \(pictures_digest: .* there, .* now\)"):
        score_items(memorability(), read_ratings(data, images=moved), tmp_path / "run")
    (data.parent / "05.png").unlink()
    with pytest.raises(RecordError, match="pictures_digest"):
        score_items(memorability(), ratings, tmp_path / "run")


def test_batches_and_bootstrap_seeds_may_change(data, tmp_path):
    ratings = read_ratings(data)
    score_items(memorability(), ratings, tmp_path / "run", batch_size=3)
    scorer = memorability()
    score_items(scorer, ratings[::-1], tmp_path / "run", batch_size=7)
    assert scorer.num_scored == 0


def test_folders_that_hold_something_else(data, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(RecordError, match="is not empty and holds no run"):
        score_items(memorability(), read_ratings(data), tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "thesis.txt").exists()
    (tmp_path / "other" / "settings.json").write_text('{"format": "a game"}')
    with pytest.raises(RecordError, match=r'expected cogguided benchmark version 1, got "a game"'):
        build_results(tmp_path / "other")
    for content in ("[]", "{"):
        (tmp_path / "other" / "settings.json").write_text(content)
        with pytest.raises(RecordError, match=r"settings\.json"):
            build_results(tmp_path / "other")


def test_out_of_memory_says_what_to_do(data, tmp_path):
    def greedy_for_memory(pixels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match="with 5 images at a time: run again with a smaller --batch-size"):
        score_items(memorability(fn=greedy_for_memory), read_ratings(data), tmp_path / "run", batch_size=5)


@pytest.mark.parametrize("kwargs", [{"ratings": []}, {"batch_size": 0}])
def test_arguments_out_of_range(data, tmp_path, kwargs):
    with pytest.raises(InputError, match="expected ratings and batch_size"):
        score_items(memorability(), **{"ratings": read_ratings(data), "out": tmp_path / "run", **kwargs})


def test_shares_of_processes_are_disjoint_and_whole(data, tmp_path):
    ratings = read_ratings(data)
    score_items(Judge(), ratings, tmp_path / "one", batch_size=2)
    for rank in range(3):  # one after the other, as if the others were slow
        score_items(Judge(), ratings, tmp_path / "three", batch_size=2, team=Processes(rank, 3))
    # a later process sees the answers of the earlier ones as done and takes its share of the rest
    assert len(read_answers(tmp_path / "three")) < len(ratings)
    score_items(Judge(), ratings, tmp_path / "three", batch_size=2)
    one, three = (read_answers(tmp_path / name) for name in ("one", "three"))
    assert {k: a.to_json() for k, a in one.items()} == {k: a.to_json() for k, a in three.items()}


def test_two_real_processes_give_the_same_table_as_one(data, tmp_path):
    arguments = ["bench", "--scorer", "fake", "--data", str(data), "--batch-size", "2", "--quiet"]
    arguments += ["--resamples", "50", "--out"]
    assert CliRunner().invoke(app, [*arguments, str(tmp_path / "one")]).exit_code == 0
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
        "-m",
        "cogguided",
    ]
    done = subprocess.run(
        [sys.executable, "-m", *launch, *arguments, str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results.json, report.md") == 1
    files = sorted(f.name for f in (tmp_path / "two").glob("answers-*"))
    assert files == ["answers-0.jsonl", "answers-1.jsonl"]
    assert (tmp_path / "one/results.json").read_text() == (tmp_path / "two/results.json").read_text()


# ---------------------------------------------------------------------- figures and report


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
        if tag not in ("p", "circle", "path"):
            while self.open[-1] in ("p", "circle", "path") and tag != self.open[-1]:
                self.open.pop()
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


def test_tables_and_plots():
    figure = {"value": -0.5, "low": -0.75, "high": -0.25, "note": ""}
    absent = {"value": float("nan"), "low": None, "high": None, "note": "nothing could be read"}
    row = {"dimension": "memorability", "subset": "all", "who": "a|b", "items": 3}
    (table,) = tables_of([{**row, "metrics": {"mae": figure, "mass": absent}}], signed=True)
    assert table.rows == (("a|b", "-0.5000 [-0.7500, -0.2500]", "–"),)
    assert table.notes == ("nothing could be read: a|b (captured probability)",)
    assert "| a\\|b |" in markdown(table)
    assert scatter([(0.5, 3.0)] * 5, (0, 1)).count("<circle") == 5
    assert scatter([], (0, 1)).count("<circle") == 0
    many = scatter([(i / 9000, i / 9000) for i in range(9000)], (0, 1), (0, 1)).count("<circle")
    assert MAX_POINTS / 2 < many <= MAX_POINTS
