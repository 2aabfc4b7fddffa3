"""Headings in any script that a font here has; what none has is told once."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw, ImageFont, features
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import CogGuidedPipeline
from cogguided.pipelines.records import fonts

LETTERS = {"\u05e9": 700, "\u05dc": 400, "\u05d5": 200, "\u05dd": 550}
"""Four Hebrew letters, as bars of these heights."""


def bar(width, height):
    pen = TTGlyphPen(None)
    pen.moveTo((50, 0))
    for point in ((50, height), (50 + width, height), (50 + width, 0)):
        pen.lineTo(point)
    pen.closePath()
    return pen.glyph()


@pytest.fixture(scope="module")
def hebrew(tmp_path_factory):
    """File of a font that has nothing but these letters and the space."""
    names = [".notdef", "space", *(f"uni{ord(letter):04X}" for letter in LETTERS)]
    glyphs = {".notdef": bar(500, 300), "space": TTGlyphPen(None).glyph()}
    glyphs |= dict(zip(names[2:], (bar(400, height) for height in LETTERS.values()), strict=True))
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({32: "space", **{ord(letter): f"uni{ord(letter):04X}" for letter in LETTERS}})
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(names, (500, 50)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, sTypoDescender=-200)
    font.setupPost()
    file = tmp_path_factory.mktemp("fonts") / "Bars.ttf"
    font.save(file)
    return str(file)


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


def test_hebrew_is_drawn_by_the_font_that_has_it_and_from_right_to_left(installed, hebrew):
    installed()
    boxes = drawn("\u05e9\u05dc\u05d5\u05dd")
    assert fonts.undrawable("\u05e9\u05dc a") == ["\u05e9", "\u05dc"]
    installed("absent.ttf", hebrew)
    assert fonts.undrawable("\u05e9\u05dc a") == []
    word = drawn("\u05e9\u05dc\u05d5\u05dd")
    assert not np.array_equal(word, boxes)
    columns = np.flatnonzero(word.any(axis=0))
    bars = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    heights = [int(word[:, group].any(axis=1).sum()) for group in bars]
    expected = [round(height * 24 / 1000) for height in LETTERS.values()]
    if features.check("raqm"):  # Pillow's layout engine knows the direction of scripts
        expected.reverse()
    assert heights == pytest.approx(expected, abs=1)


def test_a_line_is_cut_into_pieces_by_font(installed, hebrew):
    installed(hebrew)
    words = "a \u05e9\u05dc \u05d5 b e\u0301"
    pieces = list(fonts.runs(words))
    assert pieces == [("", "a "), (hebrew, "\u05e9\u05dc \u05d5"), ("", " b e\u0301")]
    assert "".join(piece for _, piece in pieces) == words
    assert fonts.length("a b", 24) < fonts.length("a \u05e9\u05dc b", 24)


def test_plain_text_is_drawn_as_it_was(installed, hebrew):
    """By Pillow's own font, at the same place."""
    installed(hebrew)
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
