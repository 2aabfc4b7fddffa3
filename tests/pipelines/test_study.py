"""The study: arms, pairs, resume, the blinded page and the count of what people chose."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from tiny_diffusion import CALL, tiny_pipeline
from typer.testing import CliRunner

from cogguided import CogGuidedError, CogGuidedPipeline, FakeScorer, run_study
from cogguided._cli.app import app
from cogguided.pipelines import tally
from cogguided.pipelines.embedded import embedded_path
from cogguided.pipelines.study.page import vote_page
from cogguided.pipelines.study.study import _share, read_rows

PROMPTS = ["a cat", "a dog", "a red car"]


def aligned_folder(pipe, folder):
    copy = type(pipe.text_encoder)(pipe.text_encoder.config)
    copy.load_state_dict(pipe.text_encoder.state_dict())
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if "layers" in name and parameter.ndim > 1:
                parameter.add_(0.5 * torch.randn_like(parameter))
    copy.save_pretrained(str(folder))
    return folder


def study(tmp_path, pipe=None, **changes):
    pipe = tiny_pipeline("qwen_image") if pipe is None else pipe
    if not (tmp_path / "aligned").exists():
        aligned_folder(pipe, tmp_path / "aligned")
    options = {"seeds": [3, 9], "n": 2, "faithfulness": None, "progress": False, **CALL["qwen_image"], **changes}
    return run_study(pipe, tmp_path / "aligned", PROMPTS, FakeScorer(), tmp_path / "out", **options)


def test_the_arms_are_paired_and_the_pipeline_is_left_as_it_was(tmp_path):
    pipe = tiny_pipeline("qwen_image")
    before = pipe("a cat", generator=torch.Generator().manual_seed(3), **CALL["qwen_image"]).images[0]
    result = study(tmp_path, pipe, judges={"again": FakeScorer()})
    assert list(result.means) == ["original", "aligned", "original, best of 2", "aligned, best of 2"]
    rows = read_rows(tmp_path / "out")
    assert len(rows) == len(PROMPTS) * 2 * 2
    for arm, values in result.means.items():
        own = [r["arms"][arm]["values"]["target"] for r in rows if arm in r["arms"]]
        assert values["target"] == pytest.approx(np.mean(own))
        assert values["again"] == pytest.approx(values["target"])
    assert result.means["original, best of 2"]["target"] >= result.means["original"]["target"]
    found = result.differences["aligned"]["target"]
    assert found.mean == pytest.approx(result.means["aligned"]["target"] - result.means["original"]["target"])
    assert "comes without a tokenizer" in result.notes[0]
    first = next(r for r in rows if r["prompt"] == "a cat" and r["encoder"] == "original" and r["seed"] == 3)
    from PIL import Image

    kept = Image.open(tmp_path / "out" / first["arms"]["original"]["image"])
    assert np.array_equal(np.asarray(kept), np.asarray(before))
    after = pipe("a cat", generator=torch.Generator().manual_seed(3), **CALL["qwen_image"]).images[0]
    assert np.array_equal(np.asarray(after), np.asarray(before))


def test_a_study_cut_short_goes_on(tmp_path):
    whole = study(tmp_path)
    rows = (tmp_path / "out/rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out/rows.jsonl").write_text("".join(rows[:5]) + rows[5][:40])
    scorer = FakeScorer()
    options = {"seeds": [3, 9], "n": 2, "faithfulness": None, "progress": False, **CALL["qwen_image"]}
    again = run_study(
        tiny_pipeline("qwen_image"), tmp_path / "aligned", PROMPTS, scorer, tmp_path / "out", **options
    )
    for arm, of in whole.means.items():
        assert again.means[arm]["target"] == pytest.approx(of["target"], abs=1e-6)
    assert len(read_rows(tmp_path / "out")) == len(rows)
    assert scorer.num_scored == (len(rows) - 5) * 4, "two candidates are scored, and two arms are measured"
    with pytest.raises(CogGuidedError, match="holds another study; it differs in n"):
        study(tmp_path, n=3)
    assert len(study(tmp_path, n=1, overwrite=True).means) == 2


FACTS = {"model": "m", "aligned": "a", "prompts": [], "seeds": [], "target": "fake"}
"""What the sides of a pair are drawn from, with a strength; the same every time."""


def test_the_voting_page_is_blind_and_its_votes_are_counted(tmp_path):
    study(tmp_path)
    folder = tmp_path / "out"
    page = (folder / "vote.html").read_text()
    key = json.loads((folder / "key.json").read_text())
    assert len(key["pairs"]) == 6
    made = [vote_page(folder, {**FACTS, "strength": n}, read_rows(folder))[1]["pairs"].values() for n in range(10)]
    assert {pair["left"] for pairs in made for pair in pairs} == {"original", "aligned"}, "sides are shuffled"
    assert not re.search("aligned|original|images/", page), "nothing tells which is which"
    assert page.count("data:image/png") == 12
    assert f'data-study="{key["study"]}"' in page

    def vote(name, wants):
        sides = {}
        for pair, of in key["pairs"].items():
            sides[pair] = wants if wants == "neither" else next(s for s in ("left", "right") if of[s] == wants)
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"study": key["study"], "person": name, "choices": sides}))
        return file

    files = [vote("anna", "aligned"), vote("ben", "aligned"), vote("cleo", "original"), vote("dan", "neither")]
    found = tally(folder, files)
    assert (found.voters, found.wins, found.losses, found.ties) == (4, 12, 6, 6)
    assert found.ratio.mean == pytest.approx(2.0)
    assert found.share.low <= 2 / 3 <= found.share.high
    told = CliRunner().invoke(app, ["study", "tally", str(folder), *map(str, files)])
    assert told.exit_code == 0, told.output
    assert "preference 2.00 : 1" in told.output
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"study": "no", "choices": {}}))
    with pytest.raises(CogGuidedError, match="another study"):
        tally(folder, [other])
    other.write_text("{")
    with pytest.raises(CogGuidedError, match="no choices can be read"):
        tally(folder, [other])


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script in node")
def test_the_pages_script_records_and_saves_choices(tmp_path):
    """The script of the page, in node, with just enough of a browser: a click is kept, and the button saves it."""
    study(tmp_path)
    page = (tmp_path / "out/vote.html").read_text()
    script = re.search(r"<script>(.*)</script>", page, re.S)[1]
    harness = """
const saved = {}; let blob = "";
const button = side => ({dataset: {side}, classList: {toggle() {}}, onclick: null});
const buttons = ["left", "right", "neither"].map(button);
const pair = {id: "pair1", querySelectorAll: () => buttons};
const parts = {count: {}, save: {}, person: {value: "Anna B"}};
globalThis.document = {body: {dataset: {study: "s1"}}, querySelectorAll: () => [pair],
  getElementById: id => parts[id], createElement: () => ({click() {}})};
globalThis.localStorage = {getItem: k => saved[k] ?? null, setItem: (k, v) => { saved[k] = v; }};
globalThis.Blob = class { constructor(texts) { blob = texts[0]; } };
globalThis.URL = {createObjectURL: () => "blob:"};
"""
    ending = "\nbuttons[1].onclick(); parts.save.onclick(); console.log(blob); console.log(parts.count.textContent);"
    done = subprocess.run(["node", "-e", harness + script + ending], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, count = done.stdout.rsplit("\n", 2)[0], done.stdout.strip().splitlines()[-1]
    assert json.loads(told) == {"study": "s1", "person": "Anna B", "choices": {"pair1": "right"}}
    assert count == "1 of 1 chosen"


def test_the_command_line_runs_a_study_of_the_embedded_model(tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(["a face", "a cat"]))
    aligned = str(embedded_path() / "aligned")
    command = ["study", "--model", "embedded", "--aligned", aligned, "--prompts", str(prompts), "--n", "2"]
    command += ["--target", "emotional_valence", "--out", str(tmp_path / "out"), "--steps", "2", "--strength"]
    done = CliRunner().invoke(app, [*command, "0.5", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output[done.output.index("{") :])
    assert set(told["means"]["aligned"]) == {"target", "held-out judge", "independent judge", "faithfulness"}
    missing = CliRunner().invoke(app, [*command[:-1], "--aligned", str(tmp_path / "none")])
    assert missing.exit_code == 1


def test_votes_of_several_people_on_one_pair_count_as_one_observation():
    found = _share([(10, 10), (0, 10)])
    expected = binomtest(1, 2).proportion_ci(method="wilson")
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, expected.low, expected.high))


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"n": 0}, "n of at least 1"), ({"seeds": []}, "seeds that differ"), ({"widht": 3}, "did you mean 'width'")],
)
def test_bad_input_is_told(changes, match, tmp_path):
    with pytest.raises(CogGuidedError, match=match):
        study(tmp_path, **changes)


def test_a_model_that_does_not_fit_leaves_no_study_behind(tmp_path):
    pipe = tiny_pipeline("qwen_image")
    (tmp_path / "aligned").mkdir()
    with pytest.raises(CogGuidedError, match="no model and no adapter"):
        study(tmp_path, pipe)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(CogGuidedError, match="holds no study"):
        study(tmp_path)


def test_the_guided_pipeline_takes_an_encoder_by_name(tmp_path):
    pipe = CogGuidedPipeline.from_pretrained(
        "embedded", text_encoder=embedded_path() / "aligned", text_encoder_strength=0.0
    )
    pipe.set_progress_bar_config(disable=True)
    plain = CogGuidedPipeline.from_pretrained("embedded")
    plain.set_progress_bar_config(disable=True)
    few = {"seed": 1, "num_inference_steps": 2}
    assert np.array_equal(np.asarray(pipe("a face", **few).images[0]), np.asarray(plain("a face", **few).images[0]))
    pipe.unswap_text_encoder()
    pipe.save_pretrained(tmp_path)
