"""`cogguided bench`: the embedded judge, clip, a model that knows one dimension, errors."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from cogguided import FakeScorer
from cogguided._cli.app import app
from cogguided.scorers import register_scorer, registry, unregister_scorer

runner = CliRunner()


@pytest.fixture
def data(tmp_path):
    """Six coloured pictures, rated in two dimensions and three splits."""
    lines = ["image,dimension,score,split"]
    for index in range(6):
        colour = (40 * index, 255 - 40 * index, 90)
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{index}.png")
        split = "train" if index < 2 else "test"
        lines.append(f"{index}.png,emotional_valence,{index - 3},{split}")
        lines.append(f"{index}.png,Memorability,{index / 6},{split}")
    (tmp_path / "ratings.csv").write_text("\n".join(lines))
    return tmp_path / "ratings.csv"


def bench(*arguments, code=0):
    done = runner.invoke(app, ["bench", *map(str, arguments), "--quiet"], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output + repr(done.exception)
    return done


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def quick():
    """A registered scorer of memorability which counts, and takes no device."""
    made = []

    def factory():
        made.append(FakeScorer("memorability"))
        return made[-1]

    register_scorer("quick", factory)
    yield made
    unregister_scorer("quick")


def test_the_embedded_judge_by_both_readouts(data, tmp_path):
    arguments = [
        "--scorer",
        "emotional_valence",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        "--resamples",
        "30",
    ]
    done = bench(*arguments, "--readout", "greedy, expected")
    assert "emotional valence, 4 items" in done.stdout
    assert "Split: test." in done.stdout
    results = results_of(tmp_path / "run")
    assert results["plan"]["readouts"] == ["greedy", "expected"]
    assert results["plan"]["dimensions"] == ["emotional_valence"]  # the one it is named after
    assert set(results["settings"]["model_files"]) == {"scorer"}
    expected = next(r for r in results["rows"] if r["who"] == "expected")
    assert expected["metrics"]["mass"]["value"] > 0.5
    assert results["train"]["emotional_valence"]["count"] == 2
    assert results["train"]["emotional_valence"]["source"] == f"the training split of {data}"


def test_two_runs_compared(data, tmp_path, quick):
    bench("--scorer", "quick", "--data", data, "--out", tmp_path / "a", "--resamples", "0", "--split", "all")
    bench("--scorer", "quick", "--data", data, "--out", tmp_path / "b", "--resamples", "0")
    compare = ["--compare", tmp_path / "a", tmp_path / "b", "--resamples", "30"]
    done = bench(*compare, "--out", tmp_path / "c")
    assert "paired on 4 items (left out: 2 only in the first, 0 only in the second)" in done.stdout.replace("\n", "")
    difference = json.loads((tmp_path / "c/comparison.json").read_text())["rows"][0]
    assert (difference["who"], difference["metrics"]["mae"]["value"]) == ("score", 0)
    assert "| score | +0.000" in (tmp_path / "c/comparison.md").read_text()
    assert json.loads(bench(*compare, "--json").stdout)["items"] == 4


def test_clip_against_a_text(data, tmp_path):
    arguments = ["--scorer", "clip", "--data", data, "--out", tmp_path / "run", "--resamples", "0"]
    assert '--prompt "a beautiful picture"' in bench(*arguments, code=1).stderr
    done = bench(*arguments, "--prompt", "a heart", "--dimension", "memorability", "--split", "all")
    assert "its numbers are ranked with" in " ".join(done.stdout.split())
    rows = results_of(tmp_path / "run")["rows"]
    assert rows[0]["items"] == 6
    assert rows[0]["metrics"]["mae"]["note"] == "the scorer is on another scale"


def test_a_model_that_knows_one_dimension(model_folder, data, tmp_path):
    folder = model_folder("qwen2_5_vl")
    facts = json.loads((folder / "cogguided_scorer.json").read_text())
    own = tmp_path / "own"
    own.mkdir()
    for file in folder.iterdir():
        (own / file.name).symlink_to(file)
    (own / "cogguided_scorer.json").unlink()
    facts = {"dimensions": ["memorability"], "questions": {"memorability": "m?"}}
    (own / "cogguided_scorer.json").write_text(json.dumps(facts))
    arguments = ["--data", data, "--resamples", "0", "--readout", "greedy", "--batch-size", "2"]
    bench("--scorer", own, *arguments, "--out", tmp_path / "run", "--dtype", "float32", "--device", "cpu")
    results = results_of(tmp_path / "run")
    assert results["plan"]["dimensions"] == ["memorability"]
    assert results["plan"]["notes"] == ["The scorer knows no emotional_valence: those ratings are left out."]
    assert results["rows"][0]["metrics"]["unread"]["value"] == 1  # random weights
    assert "in the answer" in results["unread"]["greedy"][0]["example"]
    done = bench("--scorer", own, *arguments, "--out", tmp_path / "no", "--dimension", "emotional_valence", code=1)
    assert "knows memorability; the data have emotional_valence" in done.stderr


def test_pixels_are_limits_of_the_processor(model_folder, data, tmp_path):
    arguments = ["--data", data, "--resamples", "0", "--dimension", "memorability", "--limit", "2"]
    arguments += ["--readout", "greedy", "--device", "cpu", "--out", tmp_path / "run"]
    bench("--scorer", model_folder("qwen2_vl"), *arguments, "--pixels", "784,3136")
    assert results_of(tmp_path / "run")["settings"]["pixels"] == [784, 3136]
    done = bench("--scorer", model_folder("qwen2_vl"), *arguments, code=1)
    assert "pixels: [784, 3136] there, null now" in done.stderr.replace("\n", " ")
    done = bench("--scorer", model_folder("gemma3"), *arguments, "--pixels", "784,3136", "--overwrite", code=1)
    assert "Gemma3ImageProcessor has no limits in pixels" in done.stderr.replace("\n", " ")


def test_the_same_command_goes_on(data, tmp_path, quick):
    arguments = ["--scorer", "quick", "--data", data, "--out", tmp_path / "run", "--resamples", "0"]
    bench(*arguments)
    bench(*arguments, "--json")
    assert [scorer.num_scored for scorer in quick] == [4]  # loaded once
    assert "min_mass: null there, 0.2 now" in bench(*arguments, "--min-mass", "0.2", code=1).stderr
    assert "items: 8 there, 4 now" in bench(*arguments, "--limit", "2", code=1).stderr
    bench(*arguments, "--limit", "2", "--overwrite")
    assert [scorer.num_scored for scorer in quick] == [4, 2]
    assert "at most 2 items a dimension" in (tmp_path / "run/report.md").read_text()


def test_limit_takes_the_same_items_whatever_the_seed(data, tmp_path, quick):
    for seed in (0, 7):
        bench("--scorer", "quick", "--data", data, "--out", tmp_path / f"{seed}", "--limit", "2", "--seed", seed)
    zero, seven = (results_of(tmp_path / name) for name in ("0", "7"))
    assert zero["settings"] == seven["settings"]
    assert zero["worst"] == seven["worst"]
    assert zero["bootstrap"]["seed"] != seven["bootstrap"]["seed"]


def test_json_is_json(data, tmp_path, quick):
    done = bench("--scorer", "quick", "--data", data, "--out", tmp_path / "run", "--resamples", "0", "--json")
    assert json.loads(done.stdout)["plan"]["scorer"] == "memorability"


def test_interrupted(data, tmp_path):
    def stop(pixels):
        raise KeyboardInterrupt

    register_scorer("stops", lambda: FakeScorer("memorability", fn=stop))
    try:
        done = bench("--scorer", "stops", "--data", data, "--out", tmp_path / "run", code=130)
    finally:
        unregister_scorer("stops")
    assert "what was scored is kept" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scorer", "memorabilty"], "did you mean 'memorability'"),
        (["--data", "gone.csv"], "no file or folder 'gone.csv'"),
        (
            ["--data", "bad.csv", "--dimension", "all"],
            "2 of 2 ratings cannot be used (1 missing image, 1 unknown dimension)",
        ),
        (["--split", "valid"], "unknown split of"),
        (["--dimension", "memory"], "unknown dimension 'memory': did you mean 'memorability'"),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--readout", "gredy"], "unknown readout 'gredy': did you mean 'greedy'"),
        (["--scorer", "fake", "--adapter", "x"], "scorer 'fake'"),
        (["--scorer", "fake", "--pixels", "1,2"], "scorer 'fake'"),
        (["--pixels", "1280"], "--pixels 1280: expected MIN,MAX in pixels, such as 200704,1003520"),
        (["--pixels", "9,4"], "--pixels 9,4: expected MIN,MAX"),
        (["--compare", "x", "y"], "x: holds no run of the benchmark"),
    ],
)
def test_errors_are_one_line_before_a_model_is_loaded(data, tmp_path, monkeypatch, arguments, message):
    def no_model(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(registry, "_mllm", no_model)
    monkeypatch.chdir(tmp_path)
    Path("bad.csv").write_text("image,dimension,score\ngone.png,memorability,0.5\n0.png,beauty,0.5\n")
    given = {"--scorer": "emotional_valence", "--data": str(data), "--out": "run"}
    rest = [text for pair in given.items() if pair[0] not in arguments for text in pair]
    assert message in bench(*rest, *arguments, code=1).stderr.replace("\n", " ")


def test_options_in_the_docs_are_those_of_the_command():
    root = Path(__file__).resolve().parents[2]
    known = set(re.findall(r"--[a-z][a-z-]+", runner.invoke(app, ["bench", "--help"], env={"COLUMNS": "200"}).stdout))
    for page in ("docs/benchmark.md", "README.md"):
        lines = re.sub(r"\\\n", " ", (root / page).read_text()).splitlines()
        told = " ".join(line for line in lines if "cogguided bench" in line or page.startswith("docs"))
        assert set(re.findall(r"--[a-z][a-z-]+", told)) <= known | {"--num"}  # accelerate's --num_processes


def test_usage():
    assert "give --scorer, --data and --out, or --compare A B" in bench(code=2).stderr
    shown = runner.invoke(app, ["bench", "--help"], env={"COLUMNS": "120"}).stdout
    for text in (
        "foolen/CogIP-Bench",
        "--compare runs/aligned runs/base",
        "accelerate launch",
        "*_messages.json",
    ):
        assert text in shown


def test_a_training_score_out_of_range_is_named_before_anything_is_scored(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "ratings.csv").write_text(
        "image,dimension,score,split\na.png,memorability,0.5,test\na.png,memorability,7.0,train\n"
    )
    loaded = "cogguided.scorers.benchmark.setup.load_scorer"
    monkeypatch.setattr(loaded, lambda *args, **kwargs: pytest.fail("a model was loaded"))
    data, out = str(tmp_path / "ratings.csv"), str(tmp_path / "run")
    told = runner.invoke(app, ["bench", "--scorer", "memorability", "--data", data, "--out", out])
    assert told.exit_code == 1
    assert "ratings.csv" in told.output
    assert "7 is out of range; memorability runs from 0 to 1" in told.output
    assert not (tmp_path / "run" / "results.json").exists()
