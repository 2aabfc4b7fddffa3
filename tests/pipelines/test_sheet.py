"""Contact sheets."""

import math

import numpy as np
from PIL import Image

from cogguided.guidance import Candidate
from cogguided.pipelines import contact_sheet
from cogguided.pipelines.records.sheet import BORDER, GAP, HEADER, fitted, scale, tile

COLOURS = ["red", "green", "blue", "black"]


def candidates(scores, size=64):
    made = []
    for seed, (score, colour) in enumerate(zip(scores, COLOURS, strict=False)):
        image = Image.new("RGB", (size, size), colour)
        made.append(Candidate(image, "a square", seed, score=score, valid=not math.isnan(score)))
    return made


def colour_at(sheet, column, row=0, size=192):
    cell = size + 2 * BORDER + GAP
    return sheet.getpixel((GAP + column * cell + cell // 2, GAP + HEADER + row * (cell + 23) + cell // 2))


def test_best_first_and_invalid_last():
    made = candidates([0.1, math.nan, 0.9, 0.5])
    made[2].chosen = True
    sheet = contact_sheet(made)
    assert [colour_at(sheet, i) for i in range(4)] == [(0, 0, 255), (0, 0, 0), (255, 0, 0), (0, 128, 0)]


def test_the_chosen_is_framed_in_gold():
    made = candidates([0.1, 0.9])
    plain = np.asarray(contact_sheet(made)).reshape(-1, 3)
    made[1].chosen = True
    framed = np.asarray(contact_sheet(made)).reshape(-1, 3)
    gold = np.array([0xE0, 0xA1, 0x00])
    assert not (plain == gold).all(axis=1).any()
    assert (framed == gold).all(axis=1).sum() > 500


def test_groups_by_prompt():
    made = candidates([0.1, 0.2]) + candidates([0.3, 0.4])
    for candidate in made[2:]:
        candidate.request = 1
    one, two = contact_sheet(made[:2]), contact_sheet(made, prompts=["first", "second"])
    assert two.width == one.width
    assert two.height > 1.8 * one.height - GAP


def test_many_are_wrapped():
    made = [Candidate(Image.new("RGB", (64, 64)), "x", seed) for seed in range(20)]
    assert contact_sheet(made, columns=8).size[0] == GAP + 8 * (192 + 2 * BORDER + GAP)


def test_small_images_grow_by_whole_factors_and_large_ones_shrink():
    assert scale(Image.new("RGB", (64, 64)), 192).size == (192, 192)
    assert scale(Image.new("RGB", (128, 128)), 192).size == (256, 256)
    assert scale(Image.new("RGB", (1024, 768)), 192).size == (192, 144)


def test_labels():
    image = Image.new("RGB", (4, 4))
    assert tile(Candidate(image, "a", 3)).title == "seed 3"
    two = Candidate(image, "a", 3, score=0.25, scores={"memorability": 0.5, "emotional_valence": -1.0})
    assert tile(two).title == "total 0.250 · seed 3"
    assert tile(two).lines == ("memorability 0.500", "emotional valence -1.000")
    bad = tile(Candidate(image, "a", 3, valid=False, error="too dark"))
    assert (bad.title, bad.lines, bad.alarm) == ("not valid", ("too dark", "seed 3"), True)


def test_long_texts_are_cut():
    made = [Candidate(Image.new("RGB", (64, 64)), "word " * 200, 0)]
    assert contact_sheet(made).width < 300


def test_drafts_wordings_and_what_is_held_back_are_told():
    image = Image.new("RGB", (8, 8))
    facts = {"scores": {"valence": 1.0}, "finished": False, "held_back": "strayed"}
    draft = Candidate(image, "a love face", 3, score=0.5, **facts)
    assert tile(draft, "a face").lines == ("draft · seed 3", "a love face", "out: strayed")
    assert tile(Candidate(image, "a face", 3, scores={"valence": 1.0}), "a face").lines == ("seed 3",)


def test_a_very_long_heading_is_cut_without_measuring_it_whole():
    measured = []

    def fits(line):
        measured.append(len(line))
        return len(line) <= 50

    assert len(fitted("word " * 20_000, fits)) == 50
    assert sum(measured) < 5_000
    assert fitted("a " * 25, fits) == ("a " * 25).rstrip()
    for count in range(60):
        text = "x" * count
        assert fitted(text, fits) == (text if count <= 50 else "x" * 49 + "…")
