"""What a notebook shows of a call."""

import base64
import io
import re

from PIL import Image
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer


def test_a_call_shows_itself_and_gives_a_table():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=FakeScorer("light"))
    out = pipe("a <b>cat</b>", guidance=BestOfN(3), seed=0, **CALL["sd15"])
    out.notes.append("1 < 2")
    page = out._repr_html_()
    assert "1 &lt; 2" in page
    (picture,) = re.findall(r"base64,([^\"]+)", page)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as sheet:
        assert sheet.format == "PNG"
    table = out.table()
    assert list(table["seed"]) == [0, 1, 2]
    assert list(table["light"]) == [c.scores["light"] for c in out.candidates]
    assert list(table["chosen"]) == [c.chosen for c in out.candidates]
