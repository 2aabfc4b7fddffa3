"""A search and a proposer of another package, through the front door: entry points and the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cogguided import CogGuidedPipeline
from cogguided._cli.app import app
from cogguided._errors import InputError, UnknownNameError
from cogguided.guidance import guidance_from_dict, guidance_to_dict
from cogguided.guidance.search.named import named_guidance, searches

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_search.py"
PROPOSER = """
class Louder:
    name = "louder"

    def propose(self, prompt, target, history, n, seed):
        return [prompt + "!" * k for k in range(1, n + 1)]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package the way pip does: a module and its metadata on sys.path."""

    def make(package, group, *lines, source=""):
        info = tmp_path / "site" / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(lines) + "\n")
        (tmp_path / "site" / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "site")

    return make


def test_a_search_on_the_command_line(install, tmp_path):
    install("own_search_a", "cogguided.guidance", "until_good = own_search_a:UntilGood", source=EXAMPLE.read_text())
    out = tmp_path / "out"
    arguments = ["--target", "emotional_valence", "--n", "3", "--batch-size", "2", "--steps", "1", "--seed", "0"]
    arguments += ["--search", "until_good", "--out", str(out)]
    told = CliRunner().invoke(app, ["generate", "a face", *arguments])
    assert told.exit_code == 0, told.output
    record = json.loads((out / "candidates.json").read_text())
    step = record["call"]["guidance"][0]
    assert (step["name"], step["n"], step["batch_size"]) == ("until_good", 3, 2)
    assert len(record["candidates"]) in (2, 4)
    assert guidance_to_dict(guidance_from_dict(step)) == step
    told = CliRunner().invoke(app, ["generate", "a face", "--target", "clip", "--search", "until_god"])
    assert told.exit_code == 1
    assert "did you mean 'until_good'" in told.output.replace("\n", " ")


def test_it_stops_when_the_threshold_is_passed(install):
    install("own_search_b", "cogguided.guidance", "until_good = own_search_b:UntilGood", source=EXAMPLE.read_text())
    pipe = CogGuidedPipeline.from_pretrained("embedded", target="emotional_valence")
    for threshold, count in ((0.0, 4), (2.0, 8)):
        step = guidance_from_dict({"name": "until_good", "n": 8, "threshold": threshold})
        out = pipe("a face", guidance=step, seed=0, num_inference_steps=1)
        assert len(out.candidates) == count
        assert any("reached" in note for note in out.notes) == (count == 8)
        assert out.chosen[0].score == max(c.score for c in out.candidates)


def test_a_plug_in_is_listed_last_and_may_not_take_a_name(install):
    install("thief", "cogguided.guidance", "halving = thief:Halving")
    with pytest.raises(InputError, match=r"'thief:Halving' \(thief\) brings a guidance 'halving', .* taken"):
        named_guidance("halving")


def test_what_is_no_guidance_is_told(install):
    install("nothing", "cogguided.guidance", "nothing = nothing:x", source="x = 3")
    assert searches()[-1] == "nothing"
    with pytest.raises(InputError, match="is no guidance 'nothing': expected a dataclass"):
        named_guidance("nothing")
    with pytest.raises(UnknownNameError):
        named_guidance("no")


def test_a_proposer(install):
    install("loud", "cogguided.proposers", "louder = loud:Louder", source=PROPOSER)
    pipe = CogGuidedPipeline.from_pretrained("embedded", target="emotional_valence")
    guidance = named_guidance("best_of_n", 1, rewrite=2, proposer="louder")
    out = pipe("a face", guidance=guidance, seed=0, num_inference_steps=1)
    assert {c.prompt for c in out.candidates} >= {"a face", "a face!", "a face!!"}
