"""The command line, with a tiny random model and the fake scorer; once as a real process."""

import csv
import importlib.metadata
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_diffusion import tiny_pipeline
from typer.testing import CliRunner

import cogguided
from cogguided import FakeScorer
from cogguided._cli.app import app
from cogguided._cli.service.serve import load_painter
from cogguided._defaults import EMBEDDED
from cogguided.pipelines import read_record
from cogguided.scorers import DIMENSIONS, load_scorer, register_scorer, unregister_scorer

SMALL = ["--steps", "2", "--size", "16", "--quiet"]
AUTO_IS = "joint"
runner = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    where = tmp_path_factory.mktemp("model")
    tiny_pipeline("sd15").save_pretrained(where)
    return str(where)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with two grey pictures, one in a folder below, a broken one and a text."""
    where = tmp_path_factory.mktemp("pictures")
    (where / "below").mkdir()
    Image.new("RGB", (8, 8), (51, 51, 51)).save(where / "dark.png")
    Image.new("RGB", (8, 8), (204, 204, 204)).save(where / "below" / "light.jpg")
    (where / "broken.png").write_bytes(b"not a picture")
    (where / "notes.txt").write_text("not meant to be one")
    return where


def call(*arguments, code=0, **kwargs):
    done = runner.invoke(app, [str(a) for a in arguments], **kwargs)
    assert done.exit_code == code, done.output
    return done


def generate(model, folder, *arguments, code=0, **kwargs):
    return call("generate", *arguments, "--model", model, "--out", folder, *SMALL, code=code, **kwargs)


# ---------------------------------------------------------------------- generate


def test_generate_leaves_images_sheet_and_record(model, tmp_path):
    folder = tmp_path / "out"
    done = generate(model, folder, "a face", "a cat", "--target", "fake", "--n", "3", "--seed", "5")
    assert "candidates.json" in done.stdout
    assert str(folder) in done.stdout.replace("\n", "")
    record = read_record(folder)
    assert {c["seed"] for c in record.candidates} == {
        5,
        6,
    }  # of each two drafts of the own wording, and one of another
    assert sum(c["chosen"] for c in record.candidates) == 2
    assert (folder / "contact_sheet.png").exists()
    assert record.facts["call"]["arguments"] == {"width": 16, "height": 16, "num_inference_steps": 2}


def test_generate_from_a_file_and_standard_input(model, tmp_path):
    (tmp_path / "prompts.txt").write_text("a face\n\n  a cat \n")
    generate(model, tmp_path / "a", "--prompts", tmp_path / "prompts.txt", "--seed", "1")
    assert read_record(tmp_path / "a").facts["call"]["prompts"] == ["a face", "a cat"]
    generate(model, tmp_path / "b", "--prompts", "-", input="a dog\n")
    assert read_record(tmp_path / "b").facts["call"]["prompts"] == ["a dog"]


@pytest.mark.parametrize("search", ["best_of_n", "joint", "drafts", "halving", "fk", "noise", "gradient", "auto"])
def test_generate_by_every_search(model, tmp_path, search):
    generate(
        model, tmp_path, "a face", "--target", "fake", "--search", search, "--n", "4", "--seed", "0", "--steps", "5"
    )
    record = read_record(tmp_path)
    assert sum(c["chosen"] for c in record.candidates) == 1
    assert record.facts["call"]["guidance"][0]["name"] == (search if search != "auto" else AUTO_IS)
    assert "pixel for pixel" in call("replay", tmp_path, str(len(record.candidates) - 1)).stdout


@pytest.mark.parametrize("search", ["joint", "drafts"])
def test_generate_with_drafts_as_the_images(model, tmp_path, search):
    flags = ["--target", "fake", "--search", search, "--n", "4", "--draft-steps", "3", "--full", "0"]
    generate(model, tmp_path, "a face", *flags)
    record = read_record(tmp_path)
    assert len(record.candidates) == 4
    (settings,) = record.facts["call"]["guidance"]
    assert (settings["steps"], settings["full"]) == (3, 0)
    assert "pixel for pixel" in call("replay", tmp_path, "0").stdout


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--target", "fake", "--search", "fk", "--full", "0"], "has no drafts"),
        (["--target", "fake", "--n", "1", "--draft-steps", "3"], "has no drafts"),
        (["--full", "0"], "nothing to search by"),
    ],
)
def test_draft_settings_where_there_are_no_drafts(model, tmp_path, flags, match):
    assert match in generate(model, tmp_path, "a face", *flags, code=1).stderr


def test_generate_with_other_wordings(model, tmp_path):
    flags = ["--target", "fake", "--rewrite", "2", "--search", "halving", "--n", "2", "--seed", "0"]
    generate(model, tmp_path, "a face", *flags)
    facts = read_record(tmp_path).facts
    (told,) = facts["guidance"]["rewrite"]["requests"]
    assert told["wordings"][0]["prompt"] == "a face"
    assert len(told["wordings"]) == 3
    assert any("emoji artwork only" in note for note in facts["notes"])  # CLIP is the embedded one


def test_generate_with_a_target_alone_searches_and_without_draws_one(model, tmp_path):
    generate(model, tmp_path / "a", "a face", "--target", "fake", "--seed", "0")
    assert len(read_record(tmp_path / "a").candidates) >= 9
    generate(model, tmp_path / "b", "a face", "--seed", "0")
    assert len(read_record(tmp_path / "b").candidates) == 1


def test_generate_json(model, tmp_path):
    done = generate(
        model, tmp_path, "a face", "--target", "fake=-1", "--n", "2", "--keep", "2", "--search", "best_of_n", "--json"
    )
    facts = json.loads(done.stdout)
    assert facts["out"] == str(tmp_path)
    assert facts["call"]["target"] == {"fake": -1.0}
    assert [c["chosen"] for c in facts["candidates"]] == [True, True]


def test_generate_takes_the_pipelines_own_arguments(model, tmp_path):
    generate(model, tmp_path, "a face", "--set", "guidance_scale=1.5", "--set", "negative_prompt=dull")
    arguments = read_record(tmp_path).facts["call"]["arguments"]
    assert (arguments["guidance_scale"], arguments["negative_prompt"]) == (1.5, "dull")


def test_generate_within_a_budget(model, tmp_path):
    generate(model, tmp_path, "a face", "--target", "fake", "--n", "50", "--budget", "20nfe")
    record = read_record(tmp_path)
    assert record.facts["nfe"] <= 20
    assert any("budget" in note for note in record.facts["notes"])


def test_generate_asks_an_mllm_as_score_does(model, tmp_path):
    """A question of one's own names the score by the target, and is asked as `load_scorer` asks it."""
    levels = {"very low": 0.0, "low": 1.0, "medium": 2.0, "high": 3.0, "very high": 4.0}
    question = DIMENSIONS["memorability"].question
    told = ",".join(f"{word}={value:g}" for word, value in levels.items())
    folder = EMBEDDED / "aligned"
    asked = ["--scorer", folder, "--question", question, "--readout", "levels", "--levels", told, "--high", "5"]
    generate(model, tmp_path, "a face", *asked, "--target", "kept", "--n", "1", "--seed", "1")
    (candidate,) = read_record(tmp_path).candidates
    own = {"dimension": "kept", "question": question, "readout": "levels", "levels": levels, "high": 5.0}
    judge = load_scorer("mllm", model=folder, **own)
    assert (judge.low, judge.high) == (0.0, 5.0)
    value = judge([tmp_path / candidate["file"]]).values.item()
    assert candidate["scores"] == {"kept": pytest.approx(value, abs=1e-3)}


def test_a_service_draws_by_an_mllm_that_is_read_as_said(model):
    own = {"readout": "levels"}
    for dimension, name in (("memorability", "memorability"), (None, "emotional_valence")):
        pipe = load_painter(model, None, str(EMBEDDED / "aligned"), dimension, "float32", "cpu", **own)
        (term,) = pipe.load_target().terms
        assert (term.name, term.scorer.readout) == (name, "levels")


def test_generate_does_not_overwrite_by_mistake(model, tmp_path):
    generate(model, tmp_path, "a face", "--seed", "1")
    done = generate(model, tmp_path, "a cat", code=1)
    assert "--overwrite" in done.stderr
    generate(model, tmp_path, "a cat", "--overwrite")
    assert [c["prompt"] for c in read_record(tmp_path).candidates] == ["a cat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a face", "--target", "memorabilty"], "did you mean 'memorability'"),
        (["a face", "--set", "guidance_scal=2"], "did you mean 'guidance_scale'"),
        (["a face", "--budget", "soon"], "expected seconds"),
        (["a face", "--n", "2", "--keep", "3"], "keep at most n"),
        (["a face", "--target", "fake", "--search", "halfing"], "did you mean 'halving'"),
        (["a face", "--rewrite", "2"], "give a target"),
        (["a face", "--device", "warp"], "device 'warp' cannot be used here"),
        (["--prompts", "/nowhere.txt"], "/nowhere.txt"),
        (["a face", "--scorer", "fake", "--readout", "levels"], "is no MLLM: --readout"),
        (["a face", "--question", "Is it {}?", "--readout", "yes_no"], "say by --scorer which MLLM"),
    ],
)
def test_generate_errors_are_one_line(model, tmp_path, arguments, message):
    done = generate(model, tmp_path / "out", *arguments, code=1)
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert len(done.stderr.strip().splitlines()) == 1


def test_generate_with_a_model_that_is_not_there(tmp_path):
    done = call("generate", "a face", "--model", "./nowhere", "--out", tmp_path, code=1)
    assert "no such folder" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a face", "--n", "0"],
        ["a face", "--size", "big"],
        ["a face", "--set", "x"],
        ["a face", "--wrong"],
    ],
)
def test_wrong_usage_is_code_2(model, tmp_path, arguments):
    done = call("generate", *arguments, "--model", model, "--out", tmp_path / "out", code=2)
    assert "Usage" in done.stderr
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path):
    done = runner.invoke(app, ["--debug", "generate", "x", "--model", "./nowhere", "--out", str(tmp_path)])
    assert isinstance(done.exception, cogguided.CogGuidedError)


def test_interrupted_generation_is_kept_and_code_130(model, tmp_path):
    class Interrupting(FakeScorer):
        def __call__(self, images, prompts=None):
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().__call__(images, prompts)

    register_scorer("interrupting", lambda: Interrupting("interrupting"))
    try:
        arguments = ["a face", "--target", "interrupting", "--n", "4", "--batch-size", "2"]
        generate(model, tmp_path / "some", *arguments, code=130)
        record = read_record(tmp_path / "some")
        assert record.facts["interrupted"]
        assert len(record.candidates) == 4
    finally:
        unregister_scorer("interrupting")


def test_images_without_a_valid_score_are_kept(model, tmp_path):
    nothing = FakeScorer("nothing", fn=lambda pixels: pixels.mean(dim=(1, 2, 3)) * float("nan"))
    register_scorer("nothing", lambda: nothing)
    try:
        done = generate(model, tmp_path, "a face", "--target", "nothing", "--n", "2", code=1)
    finally:
        unregister_scorer("nothing")
    assert "2 candidates are kept in" in done.stderr
    assert len(list((tmp_path / "candidates").glob("*.png"))) == 2


# ---------------------------------------------------------------------- score


def test_score_a_folder(pictures):
    done = call("score", pictures, "--scorer", "fake")
    assert "0.200" in done.stdout
    assert "0.800" in done.stdout
    assert "no score" in done.stdout
    assert "broken.png" in done.stderr
    assert "1 of 3 images have no score" in done.stderr


def test_score_json(pictures):
    rows = json.loads(call("score", pictures, "--scorer", "fake", "--format", "json").stdout)
    by_name = {row["file"].rpartition("/")[2]: row for row in rows}
    assert set(by_name) == {"dark.png", "light.jpg", "broken.png"}
    assert by_name["dark.png"]["fake"] == pytest.approx(0.2, abs=1e-3)
    assert by_name["broken.png"]["fake"] is None
    assert "broken.png" in by_name["broken.png"]["error"]


def test_score_csv(pictures):
    done = call("score", pictures, "--scorer", "fake", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["file"].rpartition("/")[2] for row in rows] == ["light.jpg", "broken.png", "dark.png"]
    assert rows[1]["fake"] == ""


def test_score_by_dimension_names(pictures):
    done = call("score", pictures / "dark.png", "--scorer", "fake", "--dimension", "fake", "--format", "json")
    assert json.loads(done.stdout)[0]["fake"] == pytest.approx(0.2, abs=1e-3)


def test_score_nothing_readable(pictures, tmp_path):
    call("score", pictures / "broken.png", "--scorer", "fake", code=1)
    done = call("score", tmp_path, "--scorer", "fake", code=1)
    assert "no images in" in done.stderr


def test_score_unknown_scorer(pictures):
    assert "did you mean 'clip'" in call("score", pictures, "--scorer", "clipp", code=1).stderr


# ---------------------------------------------------------------------- replay, scorers, info


def test_replay(model, tmp_path):
    generate(model, tmp_path, "a face", "--target", "fake", "--n", "3", "--seed", "5")
    done = call("replay", tmp_path / "candidates.json", "2", "--out", tmp_path / "again.png")
    assert "pixel for pixel" in done.stdout
    told = read_record(tmp_path).candidates[2]
    with Image.open(tmp_path / "again.png") as again, Image.open(tmp_path / told["file"]) as first:
        assert np.array_equal(np.asarray(again), np.asarray(first))
    call("replay", tmp_path / told["file"])


def test_replay_that_differs_is_an_error(model, tmp_path):
    generate(model, tmp_path, "a face", "--seed", "5")
    facts = json.loads((tmp_path / "candidates.json").read_text())
    facts["candidates"][0]["sha256"] = "0"
    facts["versions"]["torch"] = "1.13"
    (tmp_path / "candidates.json").write_text(json.dumps(facts))
    done = call("replay", tmp_path, "0", code=1)
    assert "torch was 1.13" in done.stderr


def test_scorers():
    done = call("scorers")
    assert "memorability" in done.stdout
    facts = {info["name"]: info for info in json.loads(call("scorers", "--json").stdout)}
    assert (facts["emotional_valence"]["low"], facts["emotional_valence"]["high"]) == (-3.0, 3.0)
    assert (facts["pyiqa"]["commercial"], facts["hpsv2"]["licence"]) == ("no", "Apache-2.0")
    assert "commercial use: ask" in " ".join(done.stdout.split())


def test_info():
    done = call("info")
    assert cogguided.__version__ in done.stdout
    assert "cpu" in done.stdout
    facts = json.loads(call("info", "--json").stdout)
    assert facts["extras"]["embedded"]["packages"].keys() == {"resvg_py", "scikit-learn", "scipy"}
    assert facts["packages"]["torch"]
    assert facts["attention"]["native"] is None
    assert "flash-attn" in facts["attention"]["flash"]


def test_info_describes_every_extra():
    from cogguided._cli.info import EXTRAS

    assert set(EXTRAS) == set(importlib.metadata.metadata("cogguided").get_all("Provides-Extra"))


@pytest.mark.parametrize("command", ["generate", "score", "replay"])
def test_help_has_examples(command):
    assert f"cogguided {command}" in call(command, "--help").stdout.partition("Examples")[2]


def test_as_a_process(tmp_path):
    command = [sys.executable, "-m", "cogguided"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == cogguided.__version__
    wrong = [*command, "generate", "--prompts", "nowhere.txt"]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == "error: [Errno 2] No such file or directory: 'nowhere.txt'"


def test_help_states_the_defaults_as_they_are():
    from cogguided import _defaults
    from cogguided.guidance.registry import GUIDANCE
    from cogguided.guidance.search.named import named_guidance

    told = CliRunner().invoke(app, ["generate", "--help"], env={"COLUMNS": "300"}).output
    few = named_guidance(few_steps=True)[0].n
    counts = [named_guidance(name)[0].n for name in ("joint", "halving")]
    assert f"default: {counts[0]} (joint), {few} (auto of embedded), {counts[1]} (other searches)" in told
    assert f"drafts of joint and drafts; default: {named_guidance('drafts')[0].steps}." in told
    assert set(_defaults.SEARCHES) == {"auto", *GUIDANCE} - {"rewrite"}
