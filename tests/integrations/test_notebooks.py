"""What a notebook shows of a call."""

import base64
import io
import re

import pytest
from PIL import Image
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer
from cogguided.guidance.types import Candidate
from cogguided.scorers import load_target


def test_a_call_shows_itself_and_gives_a_table():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=FakeScorer("light"))
    out = pipe("a <b>cat</b>", guidance=BestOfN(3), seed=0, **CALL["sd15"])
    out.notes.append("1 < 2")
    line = r"CogGuidedOutput\(1 images, of 3 candidates in [\d.]+ s; scores=\[\{'light': .*\}\], 1 notes\)"
    assert re.fullmatch(line, repr(out))
    page = out._repr_html_()
    assert "1 &lt; 2" in page
    (picture,) = re.findall(r"base64,([^\"]+)", page)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as sheet:
        assert sheet.format == "PNG"
    with Image.open(io.BytesIO(out._repr_png_())) as png, Image.open(io.BytesIO(base64.b64decode(picture))) as shown:
        assert png.tobytes() == shown.tobytes()
    table = out.table()
    assert list(table["seed"]) == [0, 1, 2]
    assert list(table["light"]) == [c.scores["light"] for c in out.candidates]
    assert list(table["chosen"]) == [c.chosen for c in out.candidates]


def test_scores_and_candidates_show_themselves():
    scores = FakeScorer("light")([Image.new("RGB", (2, 2), "white"), "no-such<b>.png"])
    page = scores._repr_html_()
    assert "<td>0</td><td>1.000</td>" in page
    assert "no-such&lt;b&gt;.png: no such file" in page
    assert "label" not in page, "a column of nothing"
    both = load_target({FakeScorer("light"): -1, FakeScorer("dark", fn=lambda x: 1 - x.mean(dim=(1, 2, 3))): 1})
    page = both([Image.new("RGB", (2, 2), "white")])._repr_html_()
    assert "<th>light</th><th>dark</th>" in page
    assert "<td>-1.000</td><td>1.000</td><td>0.000</td>" in page
    picture = Image.new("RGB", (3, 2), "red")
    with Image.open(io.BytesIO(Candidate(picture, "a", 0)._repr_png_())) as shown:
        assert shown.tobytes() == picture.tobytes()


@pytest.mark.slow  # needs IPython
def test_ipython_shows_a_call_and_scores():
    from IPython.core.formatters import DisplayFormatter

    formatter = DisplayFormatter()
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=FakeScorer("light"))
    out = pipe("a cat", guidance=BestOfN(2), seed=0, **CALL["sd15"])
    shown, _ = formatter.format(out)
    assert shown["text/html"].startswith('<img alt="contact sheet"')
    assert shown["image/png"]
    assert len(shown["text/plain"]) < 2000, "no wall of text"
    shown, _ = formatter.format(FakeScorer("light")(out.images))
    assert "<table>" in shown["text/html"]
    shown, _ = formatter.format(out.candidates[0])
    assert shown["image/png"]
