"""Headings in any script that a font here has; what none has is told once."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, features
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import CogGuidedPipeline
from cogguided.pipelines import fonts

DEJAVU = str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")


@pytest.fixture
def installed(monkeypatch):
    """Set which fonts there are beside Pillow's own."""

    def install(*names):
        monkeypatch.setattr(fonts, "FALLBACKS", names)

    return install


def drawn(words):
    picture = Image.new("RGB", (240, 40), "white")
    fonts.write(picture, (4, 4), words, 24, "black")
    return np.asarray(picture.convert("L")) < 128


def test_hebrew_is_drawn_by_the_font_that_has_it_and_from_right_to_left(installed):
    installed()
    boxes = drawn("\u05e9\u05dc\u05d5\u05dd")
    assert fonts.undrawable("\u05e9\u05dc a") == ["\u05e9", "\u05dc"]
    installed("absent.ttf", DEJAVU)
    assert fonts.undrawable("\u05e9\u05dc a") == []
    word = drawn("\u05e9\u05dc\u05d5\u05dd")
    assert word.any()
    assert not np.array_equal(word, boxes)
    if features.check("raqm"):
        columns = np.flatnonzero(word.any(axis=0))
        shin = drawn("\u05e9")  # the first letter stands at the right
        letter = shin[:, np.flatnonzero(shin.any(axis=0))[0] : np.flatnonzero(shin.any(axis=0))[-1] + 1]
        right = word[:, columns[-1] + 1 - letter.shape[1] : columns[-1] + 1]
        assert (right == letter).mean() > 0.97


def test_a_line_is_cut_into_pieces_by_font(installed):
    installed(DEJAVU)
    pieces = list(fonts.runs("a \u05e9\u05dc \u05d5 b e\u0301"))
    assert pieces == [("", "a "), (DEJAVU, "\u05e9\u05dc \u05d5"), ("", " b e\u0301")]
    assert "".join(piece for _, piece in pieces) == "a \u05e9\u05dc \u05d5 b e\u0301"
    assert fonts.length("a b", 24) < fonts.length("a \u05e9\u05dc b", 24)


def test_plain_text_is_drawn_as_it_was(installed):
    """By Pillow's own font, at the same place."""
    from PIL import ImageDraw, ImageFont

    installed(DEJAVU)
    picture = Image.new("RGB", (240, 40), "white")
    ImageDraw.Draw(picture).text((4, 4), "A glossy face", fill="black", font=ImageFont.load_default(24))
    assert np.array_equal(np.asarray(picture.convert("L")) < 128, drawn("A glossy face"))


def test_what_no_font_has_is_noted_once(installed, tmp_path):
    installed()
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"))
    out = pipe("\u732b \u732b", seed=0, **CALL["sd15"])
    out.save(tmp_path)
    out.save(tmp_path, overwrite=True)
    assert [note for note in out.notes if "no font here has \u732b" in note] == out.notes
    assert "no font here has" in (tmp_path / "candidates.json").read_text("utf-8")
