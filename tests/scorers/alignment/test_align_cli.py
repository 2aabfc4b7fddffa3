"""`cogguided align` at the command line."""

import json

import pytest
from typer.testing import CliRunner

from cogguided._cli.app import app

runner = CliRunner()
TINY = ["--set=rank=2", "--set=pixels=null", "--set=batch_size=4", "--set=micro_batch=4", "--max-steps", "2"]


def call(*arguments, code=0):
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def test_align_then_merge_then_score(model_folder, table, ratings, tmp_path):
    where = ["--model", model_folder("gemma3"), "--data", table, "--output", tmp_path / "aligned"]
    told = call("align", *where, *TINY, "--held-out", "0.3", "--loss", "answers", "--json")
    facts = json.loads(told.stdout[told.stdout.rindex('{\n  "folder"') :])
    assert facts["steps"] == 2
    assert set(facts["metrics"]) == {"unread_memorability", "mass_memorability"}
    assert facts["metrics"]["unread_memorability"] == 1  # two steps teach nothing
    run = json.loads((tmp_path / "aligned/alignment.json").read_text())
    assert (run["config"]["loss"], run["config"]["rank"], run["config"]["held_out"]) == ("answers", 2, 0.3)
    assert run["metrics"] == facts["metrics"]
    assert "not empty" in call("align", *where, *TINY, code=1).output
    assert "2 steps" in call("align", *where, *TINY, "--held-out", "0.3", "--loss", "answers", "--resume").output

    assert "saved" in call("align", "merge", tmp_path / "aligned", tmp_path / "plain").output
    for folder in ("aligned", "plain"):
        asked = ["--scorer", tmp_path / folder, "--dimension", "memorability", "--format", "json"]
        scored = call("score", ratings[0].image, *asked, code=1)
        assert "probability" in scored.output  # two steps teach nothing: said, not hidden


def test_the_help_teaches():
    told = call("align", "--help").output
    for words in ("Examples", "accelerate launch", "merge", "--resume", "grpo", "triangular"):
        assert words in told
    told = call("align", "settings").output
    assert "vision_learning_rate" in told
    for words in ("Qwen3-VL", "Llama 3.2 Vision", "InternVL3", "9e-05", "untried"):
        assert words in told
    settings = json.loads(call("align", "settings", "--json").output)
    assert settings["rank"] == 64
    assert json.loads(call("align", "settings", "--model", "embedded", "--json").output)["answer_tokens"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give --model"),
        (["--set", "rang=3"], 1, "did you mean 'rank'"),
        (["--set", "rank=many"], 1, "wrong kind"),
        (["--loss", "binomial"], 1, "unknown loss"),
        (["--data", "no-such-file.csv"], 1, "no-such-file.csv"),
        (["--dimension", "beauty"], 1, "unknown dimension"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, code, said, table, tmp_path):
    where = ["--model", "nowhere/model", "--data", table, "--output", tmp_path / "new"] if arguments else []
    told = call("align", *where, *arguments, code=code)
    assert said in told.output
    assert not (tmp_path / "new").exists()
