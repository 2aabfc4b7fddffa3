"""`cogguided finetune`, as typed."""

import json

import pytest
from tiny_diffusion import CALL, tiny_pipeline
from typer.testing import CliRunner

from cogguided._cli.app import app

SMALL = [
    "--rounds", "1", "--rank", "2", "--set", "prompts_per_round=2", "--set", "images_per_prompt=2",
    "--set", "timesteps=1", "--set", "images_per_evaluation=1", "--faithfulness", "none",
    *(f"--call={name}={value}" for name, value in CALL["flux"].items()),
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flux")
    tiny_pipeline("flux").save_pretrained(folder)
    return folder


@pytest.fixture
def command(model, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n\na red car\na tree\n")
    where = ["--model", str(model), "--prompts", str(prompts), "--output", str(tmp_path / "run")]
    return ["finetune", *where, "--target", "fake", *SMALL]


def invoke(*words):
    return CliRunner().invoke(app, [*map(str, words)])


def test_a_run_tells_before_and_after(command, tmp_path):
    done = invoke(*command)
    assert done.exit_code == 0, done.output
    assert "target" in done.output
    assert "the LoRA of round" in done.output
    assert (tmp_path / "run/pytorch_lora_weights.safetensors").is_file()
    again = invoke(*command)
    assert again.exit_code == 1
    assert "is not empty: resume" in " ".join(again.output.split())
    more = invoke(*command, "--rounds", 2, "--resume", "--json")
    assert more.exit_code == 0, more.output
    told = json.loads(more.output[more.output.index("{") :])
    assert told["rounds"] == 2
    assert set(told["held_out"]) == {"target"}


@pytest.mark.parametrize("method", ["rwr", "dpo", "drtune"])
def test_the_other_methods(method, command, tmp_path):
    (tmp_path / "anchors.txt").write_text("a lamp\na cloud\n")
    done = invoke(*command, "--method", method, "--anchors", tmp_path / "anchors.txt")
    assert done.exit_code == 0, done.output
    (tmp_path / "anchors.txt").write_text("a cat\na dog\na red car\na tree\n")
    done = invoke(*command, "--overwrite", "--anchors", tmp_path / "anchors.txt")
    assert done.exit_code == 1
    assert "is trained on" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--method", "ppo"], "unknown method 'ppo'"),
        (["--set", "rnak=3"], "did you mean 'rank'"),
        (["--set", "timesteps=many"], "timesteps must be a whole number"),
        (["--call", "widht=16"], "did you mean 'width'"),
        (["--prompts", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["--judge", "no/such/scorer"], "no/such/scorer"),
    ],
)
def test_mistakes_are_told_in_one_line(words, match, command, tmp_path):
    done = invoke(*command, *words)
    assert done.exit_code == 1
    assert match in " ".join(done.output.split())
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_told():
    done = invoke("finetune", "--model", "embedded")
    assert done.exit_code == 2
    assert "--prompts" in done.output


def test_settings_are_listed_with_what_they_are():
    done = invoke("finetune", "settings", "--json")
    assert json.loads(done.output)["method"] == "nft"
    table = " ".join(invoke("finetune", "settings").output.split())
    for name in json.loads(done.output):
        assert name[:20] in table.replace("│ ", "")
    assert "Examples" in invoke("finetune", "--help").output
