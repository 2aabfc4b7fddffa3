"""The judge of another kind: it reads drawings as described, and what fools the MLLM judges fools it less."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from cogguided import load_scorer
from cogguided._errors import ModelError
from cogguided.pipelines.embedded import embedded_path
from cogguided.scorers.models.independent.features import framed, measured
from cogguided.scorers.models.independent.members import Trees
from cogguided.scorers.models.independent.scorer import MEMBERS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = embedded_path() / "independent"


@pytest.fixture(scope="module")
def judge():
    return load_scorer("independent")


@pytest.fixture(scope="module")
def hacked():
    return runpy.run_path(str(ROOT / "benchmarks" / "hacked.py"))


def face(up, place=(8, 8, 56, 56), color="gold"):
    """A smiley, or one that frowns."""
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = place
    wide, tall = right - left, bottom - top
    draw.ellipse(place, fill=color)
    for x in (0.32, 0.68):
        draw.ellipse(
            (left + (x - 0.07) * wide, top + 0.28 * tall, left + (x + 0.07) * wide, top + 0.42 * tall), fill="black"
        )
    high = top + (0.4 if up else 0.65) * tall
    mouth = (left + 0.25 * wide, high, right - 0.25 * wide, high + 0.4 * tall)
    draw.arc(mouth, *((20, 160) if up else (200, 340)), fill="black", width=4)
    return image


def pixels(image):
    return torch.tensor(list(image.tobytes()), dtype=torch.float32).view(1, 64, 64, 3).permute(0, 3, 1, 2) / 255


def test_a_mouth_is_measured():
    smile, frown = (measured(pixels(face(up)))[0] for up in (True, False))
    bent = -6  # the curvature of dark marks: they are lower in the middle than at the sides where it smiles
    assert smile[bent] < -0.002 < 0.002 < frown[bent]


def test_place_and_size_of_a_drawing_change_nothing_within_its_frame():
    whole = framed(pixels(face(True, (4, 4, 60, 60))))
    small = framed(pixels(face(True, (30, 22, 58, 50))))
    assert (whole - small).abs().mean() < 0.06
    assert framed(torch.ones(1, 3, 64, 64)).min() == 1


def test_trees_go_left_where_a_feature_is_at_most_the_threshold():
    trees = Trees(trees=2, nodes=5, depth=2)
    trees.feature[0, 0], trees.threshold[0, 0], trees.left[0, 0], trees.right[0, 0] = 1, 0.5, 1, 2
    trees.feature[0, 2], trees.threshold[0, 2], trees.left[0, 2], trees.right[0, 2] = 0, 0.0, 3, 4
    for leaf, value in ((1, 10.0), (3, 20.0), (4, 30.0)):
        trees.left[0, leaf] = trees.right[0, leaf] = leaf
        trees.value[0, leaf] = value
    trees.value[1, 0] = 1.0  # a tree of one leaf
    seen = torch.tensor([[0.0, 0.5], [0.0, 0.6], [0.1, 0.6]])
    assert trees.grown(seen).tolist() == [11.0, 21.0, 31.0]


def test_scores(judge, tmp_path):
    images = [face(True), face(False, color="tomato"), tmp_path / "none.png", face(True).resize((200, 200))]
    scores = judge(images)
    assert scores.valid.tolist() == [True, True, False, True]
    assert "no such file" in scores.errors[2]
    assert (scores.std[scores.valid] > 0).all()
    assert scores.values[0] == pytest.approx(float(judge(images[:1]).values), abs=1e-4)  # alone as in a batch
    assert scores.values[0] == pytest.approx(float(scores.values[3]), abs=0.5)  # in another size
    assert scores.values[0] > scores.values[1]
    with torch.no_grad():
        own = judge.standardised(pixels(images[0]))
    offset, slope = judge.calibration["offset"], judge.calibration["slope"]
    assert scores.values[0] == pytest.approx(offset + slope * float(own.mean()), abs=1e-4)
    assert own.shape == (1, len(MEMBERS))


def test_nothing_can_follow_its_gradient(judge):
    image = pixels(face(True)).requires_grad_()
    assert not judge.differentiable
    assert not judge(image).values.requires_grad


def test_it_is_small_and_shares_no_weights_with_the_scorer(judge):
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 0.8e6
    theirs = load_file(embedded_path() / "text_encoder" / "model.safetensors")
    ours = {**judge.model.state_dict(), **judge.model["probe"].clip[0].model.state_dict()}
    assert not beginnings(theirs) & beginnings(ours)


def beginnings(weights):
    return {of.float().flatten()[:64].numpy().tobytes() for of in weights.values() if of.numel() >= 64 and of.any()}


def test_broken_folders_say_so(tmp_path):
    with pytest.raises(ModelError, match=r"independent\.json"):
        load_scorer("independent", model=tmp_path)
    shutil.copytree(FOLDER, tmp_path / "other")
    facts = json.loads((FOLDER / "independent.json").read_text())
    del facts["sizes"]["trees"]
    (tmp_path / "other" / "independent.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match="'trees'"):
        load_scorer("independent", model=tmp_path / "other")


def test_pictures_made_to_please_the_scorer_please_it_half_as_much_as_the_mllm_judges(hacked):
    found = hacked["report"]()
    for name in ("target", "held-out judge"):
        assert found[name][1] > 0.02  # beyond noise, and much
    assert found["independent"][0] < found["held-out judge"][0] / 2
    assert found["faithfulness"][2] < -0.05
