"""What a call leaves on disk, and how it is made again."""

import json
import math
import os
import shutil

import diffusers
import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer, replay
from cogguided._errors import ModelError, RecordError
from cogguided.guidance import Candidate
from cogguided.pipelines import read_record
from cogguided.pipelines.output import CogGuidedOutput
from cogguided.pipelines.records.record import from_json, pixels_sha256, to_json, write_whole
from cogguided.scorers import Scores

diffusers.utils.logging.disable_progress_bar()
SD = CALL["sd15"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model: a record names the folder it was loaded from."""
    where = tmp_path_factory.mktemp("model")
    tiny_pipeline("sd15").save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def pipe(model):
    pipe = CogGuidedPipeline.from_pretrained(model, scorer=FakeScorer())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def out(pipe):
    return pipe(["A happy face!", "a cat"], guidance=BestOfN(3, keep=1), seed=7, **SD)


@pytest.fixture
def folder(out, tmp_path):
    return out.save(tmp_path / "out")


def test_the_folder(folder, out):
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    best = [out.candidates.index(c) for c in out.chosen]
    assert {"candidates.json", "contact_sheet.png"} <= files
    assert len(files) == 8
    for i in best:
        candidate = out.candidates[i]
        slug = "a-happy-face" if candidate.request == 0 else "a-cat"
        assert f"{i:03d}_{slug}_seed{candidate.seed}.png" in files
    assert sum(f.startswith("candidates/") for f in files) == 4
    assert not [f for f in files if f.startswith(".")]


def test_the_record(folder, out, model):
    facts = json.loads((folder / "candidates.json").read_text(), parse_constant=pytest.fail)
    assert facts["model"]["name"] == str(model)
    assert facts["model"]["class"] == "StableDiffusionPipeline"
    assert facts["model"]["scheduler"]["_class_name"] == "DDIMScheduler"
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["call"]["prompts"] == ["A happy face!", "a cat"]
    assert facts["call"]["seeds"] == [7, 7]
    assert facts["call"]["target"] == {"fake": 1.0}
    assert facts["call"]["ranges"] == {"fake": [0.0, 1.0]}
    assert facts["call"]["guidance"] == [{"name": "best_of_n", "n": 3, "batch_size": None, "keep": 1}]
    assert facts["call"]["arguments"] == SD
    assert facts["nfe"] == out.nfe == 6 * (2 * 2 + 1)
    for i, (told, candidate) in enumerate(zip(facts["candidates"], out.candidates, strict=True)):
        assert told["index"] == i
        assert (told["seed"], told["prompt"], told["chosen"]) == (
            candidate.seed,
            candidate.prompt,
            candidate.chosen,
        )
        assert told["scores"] == candidate.scores
        assert set(told["seconds"]) == {"sample", "score"}
        with Image.open(folder / told["file"]) as image:
            assert pixels_sha256(image) == told["sha256"] == pixels_sha256(candidate.image)


def test_a_png_carries_its_own_record(folder, out):
    whole = read_record(folder)
    for told in whole.candidates:
        record = read_record(folder / told["file"])
        assert record.candidates == [told]
        assert record.facts["call"] == whole.facts["call"]
        with Image.open(folder / told["file"]) as image:
            assert image.info["Description"] == told["prompt"]
            assert image.info["Software"].startswith("cogguided ")


def test_invalid_scores_are_null(tmp_path):
    record = {"model": {}, "call": {"prompts": ["a"]}}
    candidate = Candidate(
        Image.new("RGB", (8, 8)), "a", 0, scores={"x": math.nan}, valid=False, error="could not read"
    )
    out = CogGuidedOutput([], [], [candidate], [], False, 1.0, 0, record)
    out.save(tmp_path)
    (told,) = json.loads((tmp_path / "candidates.json").read_text(), parse_constant=pytest.fail)["candidates"]
    assert (told["score"], told["scores"], told["valid"]) == (None, {"x": None}, False)


def test_an_earlier_record_is_not_overwritten_by_mistake(folder, pipe):
    other = pipe("a dog", seed=1, **SD)
    with pytest.raises(RecordError, match="overwrite"):
        other.save(folder)
    note = folder / "mine.txt"
    note.write_text("keep")
    other.save(folder, overwrite=True)
    assert {p.name for p in folder.rglob("*") if p.is_file()} == {
        "000_a-dog_seed1.png",
        "candidates.json",
        "contact_sheet.png",
        "mine.txt",
    }


def test_overwriting_removes_nothing_outside(folder, pipe, tmp_path):
    precious = tmp_path / "precious.png"
    precious.write_bytes(b"mine")
    facts = json.loads((folder / "candidates.json").read_text())
    facts["candidates"][0]["file"] = "../precious.png"
    (folder / "candidates.json").write_text(json.dumps(facts))
    pipe("a dog", seed=1, **SD).save(folder, overwrite=True)
    assert precious.read_bytes() == b"mine"


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_written(out, tmp_path, monkeypatch):
    written = []
    real = os.fsync

    def fsync(handle):
        if len(written) == 4:  # the probe and three images
            raise OSError(28, "No space left on device")
        written.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RecordError, match=r"cannot write .*\.png: No space left on device"):
        out.save(tmp_path)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == 3
    for file in files:
        assert read_record(file).candidates  # whole images, each with its record
    assert not (tmp_path / "candidates.json").exists()


def test_a_folder_that_cannot_be_written(out, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write"):
        out.save(tmp_path / "file" / "out")


def test_writing_is_whole_or_not_at_all(tmp_path):
    target = tmp_path / "x.json"
    target.write_text("old")

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("candidates.json", "{", "cannot read"),
        ("candidates.json", "{}", "not a record of cogguided"),
        ("candidates.json", "[1]", "not a record of cogguided"),
        ("other.png", None, "carries no cogguided record"),
        ("missing.json", None, "cannot read"),
        ("future.json", '{"format": "cogguided candidates", "version": 9, "candidates": [1]}', "version 9"),
    ],
)
def test_records_that_cannot_be_read(tmp_path, name, content, match):
    if name == "other.png":
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    elif content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(RecordError, match=match):
        read_record(tmp_path / name)


@pytest.mark.parametrize("value", [(1, 2), [(0, 0)], {"scale": 0.5}, -math.inf, None, "text", True])
def test_arguments_survive_json(value):
    assert from_json(json.loads(json.dumps(to_json(value)))) == value


# ---------------------------------------------------------------------- replay


def test_replay_from_json_folder_and_png(folder, out):
    for where, index in ((folder / "candidates.json", 3), (folder, 3)):
        again = replay(where, index)
        assert again.same
        assert again.differences == []
        assert np.array_equal(np.asarray(again.image), np.asarray(out.candidates[3].image))
    chosen = replay(folder)
    assert chosen.candidate["chosen"]
    png = folder / chosen.candidate["file"]
    assert replay(png).same


def test_replay_of_what_was_drawn_in_one_call(pipe, tmp_path):
    out = pipe(["a", "b"], num_images_per_prompt=2, negative_prompt=["x", "y"], seed=[3, 9], **SD)
    out.save(tmp_path)
    for index in range(4):
        assert replay(tmp_path, index, pipe=pipe).same


def test_replay_restores_the_scheduler(model, tmp_path):
    pipe = CogGuidedPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    pipe("a cat", seed=3, **SD).save(tmp_path)
    assert replay(tmp_path).same


def test_replay_tells_what_differs(folder, model):
    facts = json.loads((folder / "candidates.json").read_text())
    facts["versions"]["torch"] = "1.13"
    facts["candidates"][0]["sha256"] = "0" * 64
    (folder / "candidates.json").write_text(json.dumps(facts))
    again = replay(folder, 0)
    assert not again.same
    assert again.differences == [f"torch was 1.13, is {torch.__version__}"]


def test_replay_with_a_pipeline(folder, pipe):
    assert replay(folder, 0, pipe=pipe).same
    flux = CogGuidedPipeline.from_pipe(tiny_pipeline("flux"))
    with pytest.raises(ModelError, match="of a StableDiffusionPipeline, the pipeline a FluxPipeline"):
        replay(folder, 0, pipe=flux)


def test_replay_of_a_candidate_that_is_not_there(folder):
    with pytest.raises(RecordError, match="no candidate 9; it has 0 to 5"):
        replay(folder, 9)


def test_what_is_not_in_the_record_cannot_be_replayed(pipe, tmp_path):
    latents = torch.randn(1, 4, 8, 8)
    pipe("a cat", seed=3, latents=latents, **SD).save(tmp_path / "latents")
    with pytest.raises(RecordError, match=r"latents \(Tensor \(1, 4, 8, 8\)\)"):
        replay(tmp_path / "latents")
    generator = torch.Generator().manual_seed(3)
    torch.randn(1, generator=generator)
    pipe("a cat", generator=generator, **SD).save(tmp_path / "used")
    with pytest.raises(RecordError, match="not a fresh CPU one"):
        replay(tmp_path / "used")


def test_a_model_without_a_name_needs_the_pipeline(tmp_path):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"))
    pipe("a cat", seed=3, **SD).save(tmp_path)
    with pytest.raises(RecordError, match="pass pipe="):
        replay(tmp_path)
    assert replay(tmp_path, pipe=pipe).same


def test_a_model_that_has_gone(folder, model, tmp_path):
    facts = json.loads((folder / "candidates.json").read_text())
    moved = tmp_path / "moved"
    shutil.copytree(model, moved)
    facts["model"]["name"] = str(moved)
    (folder / "candidates.json").write_text(json.dumps(facts))
    assert replay(folder, 0).same
    shutil.rmtree(moved)
    with pytest.raises(ModelError, match="no such folder"):
        replay(folder, 0)


def test_unscored_candidates_are_recorded(pipe, tmp_path):
    class Blind(FakeScorer):
        def __call__(self, images, prompts=None):
            return Scores(torch.tensor([0.5] + [math.nan] * (len(images) - 1)), errors=[None, "x", "x"])

    out = pipe("a cat", target=Blind(), guidance=BestOfN(3), seed=0, **SD)
    out.save(tmp_path)
    assert [c["valid"] for c in read_record(tmp_path).candidates] == [True, False, False]
    assert "2 of 3 candidates have no valid score" in read_record(tmp_path).facts["notes"][0]
