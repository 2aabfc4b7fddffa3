"""Runs: the command shown for a run that was cut short finishes it, and does nothing again."""

import csv
import json
import shlex

import numpy as np
import pytest
import tiny_mllm
from PIL import Image
from safetensors.torch import load_file
from tiny_diffusion import CALL, tiny_pipeline
from typer.testing import CliRunner

from cogguided import FakeScorer
from cogguided._cli.app import app
from cogguided.pipelines import read_candidates
from cogguided.scorers import register_scorer, unregister_scorer
from cogguided.scorers.dimensions import DIMENSIONS
from cogguided.ui import runs
from cogguided.ui.models import Models
from cogguided.ui.pieces import Pictures
from cogguided.ui.working import Page


class Stopping(FakeScorer):
    """Presses Ctrl-C at a call."""

    def __init__(self):
        super().__init__("stopping")
        self.at = -1

    def __call__(self, images, prompts=None):
        if self.calls == self.at:
            raise KeyboardInterrupt
        return super().__call__(images, prompts)


@pytest.fixture
def scorer():
    made = Stopping()
    register_scorer("stopping", lambda: made)
    yield made
    unregister_scorer("stopping")


def invoke(*words, code=0):
    done = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output[:3000]
    return done.output


def go_on(out, folder, *more, **files):
    """Run what the page shows for a run, with the reader's words filled in."""
    page = Page(Models(device="cpu"), out, Pictures(out / ".pictures"), out)
    told, line = runs.how_to_go_on(runs.choose(out, str(folder)), page).split("\n")
    assert all(name.partition("_")[0] in told for name in files)
    filled = {name.replace("_", "."): str(file) for name, file in files.items()}
    words = [filled.get(word, word) for word in shlex.split(line)]
    assert words[0] == "cogguided"
    return invoke(*words[1:], *more)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight ratings of noise."""
    folder = tmp_path_factory.mktemp("rated")
    rows = []
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append([f"{i}.png", "memorability", 0.1 * i])
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "dimension", "score"], *rows])
    return folder / "ratings.csv"


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "my prompts.txt"
    file.write_text("a cat\na dog\na red car\na tree\n")
    return file


@pytest.mark.slow  # 3 seconds
def test_generate_of_many_prompts(scorer, prompts, tmp_path):
    tiny_pipeline("sd15").save_pretrained(tmp_path / "model")
    words = ["generate", "--prompts", prompts, "--model", tmp_path / "model", "--target", "stopping=-0.5"]
    words += ["--seed", 3, "--search", "best_of_n", "--n", 2, "--steps", 1, "--size", 16, "--group", 1]
    invoke(*words, "--out", tmp_path / "whole")
    scorer.at = scorer.calls + 2
    invoke(*words, "--out", tmp_path / "cut", code=130)
    scorer.at = -1
    assert "4 prompts (2 were there before)" in go_on(tmp_path, tmp_path / "cut", PROMPTS_txt=prompts)
    whole, cut = (
        [{n: v for n, v in row.items() if n != "seconds"} for row in read_candidates(tmp_path / name)]
        for name in ("whole", "cut")
    )
    assert cut == whole


@pytest.mark.slow  # 5 seconds
def test_align(table, tmp_path):
    model = tiny_mllm.build("smolvlm", tmp_path / "model")
    told = {"name": "tiny", "questions": {name: f"{name}?" for name in DIMENSIONS}}
    (model / "cogguided_scorer.json").write_text(json.dumps(told))
    words = ["align", "--model", model, "--data", table, "--rank", 2, "--max-steps", 4, "--batch-size", 2]
    words += ["--micro-batch", 2, "--loss", "answers", "--set", "save_every=2", "--set", "pixels=null"]
    invoke(*words, "--output", tmp_path / "run")
    whole = load_file(tmp_path / "run" / "adapter_model.safetensors")
    record = tmp_path / "run" / "alignment.json"
    facts = json.loads(record.read_text())
    assert facts.pop("steps") == 4
    facts.pop("metrics")
    record.write_text(json.dumps(facts))  # as a run that was killed after a checkpoint left it
    (tmp_path / "run" / "adapter_model.safetensors").unlink()
    (tmp_path / "run" / "checkpoint-4").rename(tmp_path / "kept")
    before = (tmp_path / "run" / "checkpoint-2" / "trainer_state.json").stat().st_mtime_ns
    assert "4 steps in" in go_on(tmp_path, tmp_path / "run", DATA=table)
    assert (tmp_path / "run" / "checkpoint-2" / "trainer_state.json").stat().st_mtime_ns == before
    for name, weight in load_file(tmp_path / "run" / "adapter_model.safetensors").items():
        assert (weight - whole[name]).abs().max() < 1e-5, name


@pytest.mark.slow  # 5 seconds
def test_finetune(scorer, prompts, tmp_path):
    tiny_pipeline("flux").save_pretrained(tmp_path / "model")
    rest = ["--faithfulness", "none", *(f"--call={name}={value}" for name, value in CALL["flux"].items())]
    words = ["finetune", "--model", tmp_path / "model", "--target", "stopping", "--prompts", prompts, *rest]
    words += ["--rounds", 2, "--rank", 2, "--set", "prompts_per_round=2", "--set", "images_per_prompt=2"]
    words += ["--set", "timesteps=1", "--set", "images_per_evaluation=1", "--set", "evaluate_every=1"]
    invoke(*words, "--output", tmp_path / "whole")
    calls, scorer.calls = scorer.calls, 0
    scorer.at = calls - 1
    invoke(*words, "--output", tmp_path / "cut", code=130)
    scorer.calls, scorer.at = 0, -1
    assert "LoRA" in go_on(tmp_path, tmp_path / "cut", *rest, PROMPTS_txt=prompts)
    assert scorer.calls < calls, "the first round is not made again"
    whole, cut = (load_file(tmp_path / name / "pytorch_lora_weights.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all((whole[name] - cut[name]).abs().max() < 1e-5 for name in whole)


@pytest.mark.slow  # 3 seconds
def test_bench(scorer, table, tmp_path):
    words = ["bench", "--scorer", "stopping", "--data", table]
    scorer.at = 1
    invoke(*words, "--out", tmp_path / "cut", "--batch-size", 2, code=130)
    made, scorer.at = scorer.num_scored, -1
    assert 0 < made < 8
    go_on(tmp_path, tmp_path / "cut", DATA=table)
    assert scorer.num_scored == 8, "what was scored is not scored again"
