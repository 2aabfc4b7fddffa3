"""Runs of the benchmark: every item scored once, interruptions, changed settings, processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmark_world import COUNT, Judge, memorability, rated
from PIL import Image
from typer.testing import CliRunner

from cogguided._cli.app import app
from cogguided._errors import InputError, ModelError, RecordError, UnknownNameError
from cogguided.scorers import FakeScorer
from cogguided.scorers.benchmark import build_results, read_ratings, score_items, write_report
from cogguided.scorers.benchmark.folder import read_answers
from cogguided.scorers.benchmark.report import explain
from cogguided.scorers.benchmark.run import Processes, plan_for


@pytest.fixture
def data(tmp_path):
    return rated(tmp_path)


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


LAUNCH = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--main_process_port", "0", "-m", "cogguided"]


@pytest.mark.parametrize("how", ["forked", pytest.param("accelerate launch", marks=pytest.mark.slow)])
def test_two_real_processes_give_the_same_table_as_one(how, data, forks, tmp_path):
    arguments = ["bench", "--scorer", "fake", "--data", str(data), "--batch-size", "2", "--quiet"]
    arguments += ["--resamples", "50", "--out"]
    assert CliRunner().invoke(app, [*arguments, str(tmp_path / "one")]).exit_code == 0
    two = [*arguments, str(tmp_path / "two")]
    if how == "forked":
        done = forks(two, tmp_path / "log", processes=2, env={"COLUMNS": "200"})
        code, said = done.code, done.said
    else:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, *two]
        real = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        code, said = real.returncode, real.stdout + real.stderr
    assert code == 0, said
    assert said.count("results.json, report.md") == 1
    files = sorted(f.name for f in (tmp_path / "two").glob("answers-*"))
    assert files == ["answers-0.jsonl", "answers-1.jsonl"]
    assert (tmp_path / "one/results.json").read_text() == (tmp_path / "two/results.json").read_text()
