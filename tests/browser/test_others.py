"""Compare, Score and Runs in a real browser."""

import csv
import json
import re

import pytest
from PIL import Image

from cogguided.pipelines.study.study import tally


def test_a_blinded_vote_ends_in_a_file_that_tally_reads(browser, served):
    browser.tab("Compare")
    browser.type("#cmp-prompts", "a face")
    browser.type("#cmp-pairs", "2")
    browser.type("#cmp-seed", "3")
    for field, value in (("#cmp-n-b", "2"), ("#cmp-steps-a", "1"), ("#cmp-steps-b", "2")):
        browser.type(field, value)
    browser.click("#cmp-go")
    browser.until(lambda: "Pair 1 of 2" in browser.one("#cmp-ballot").text)
    ballot = browser.one("#cmp-ballot").get_attribute("innerHTML")
    assert "aligned" not in ballot
    assert "original" not in ballot
    assert not re.search(r"_[ab]\.png", ballot)
    browser.type("#cmp-person", "Anna B.")
    browser.click("#cmp-left")
    browser.until(lambda: "Pair 2 of 2" in browser.one("#cmp-ballot").text)
    browser.click("#cmp-right")
    told = browser.until(lambda: "A was chosen" in browser.text() and browser.text())
    folder = max(served.out.glob("*-compare"))
    (file,) = folder.glob("choices*.json")
    assert file.name == "choices-anna-b.json"
    choices, key = json.loads(file.read_text()), json.loads((folder / "key.json").read_text())
    assert choices["choices"] == {"pair1": "left", "pair2": "right"}
    found = tally(folder, [file])
    wins = sum(key["pairs"][pair][side] == "aligned" for pair, side in choices["choices"].items())
    assert (found.wins, found.losses) == (wins, 2 - wins)
    assert f"A was chosen {found.losses} times, B {found.wins} times" in told
    assert "embedded, BestOfN(2), steps 2" in told
    assert len(browser.all("#cmp-sheet img")) == 4


@pytest.fixture
def scored(browser, tmp_path):
    """A page on which three pictures and one that is none were scored."""
    for name, colour in (("red.png", "red"), ("blue.png", "blue"), ("green.jpg", "green")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    browser.tab("Score")
    field = browser.until(lambda: browser.driver.find_element("css selector", "#score-files input[type=file]"))
    field.send_keys("\n".join(str(file) for file in sorted(tmp_path.iterdir())))
    browser.until(lambda: "broken.png" in browser.one("#score-files").text or "broken" in browser.text())
    browser.click("#score-go")
    browser.until(lambda: "3 of 4 files have a score" in browser.text())
    browser.until(lambda: browser.all("#score-table tbody tr"))
    return browser


def names(browser):
    return [row.text.splitlines()[0].split()[0] for row in browser.all("#score-table tbody tr")]


def test_dropped_files_are_scored_sorted_and_drawn_and_a_broken_one_is_told(scored, served, tmp_path):
    assert len(names(scored)) == 4
    assert names(scored)[-1] == "broken.png"
    assert "broken.png: cannot be read as an image" in scored.text()
    assert str(served.out) not in scored.one("#score-table").text
    up = names(scored)[:3]
    scored.click("#score-highest input")
    scored.until(lambda: names(scored)[:3] == up[::-1])
    assert names(scored)[-1] == "broken.png"
    drawing = scored.until(lambda: scored.one("#score-plot svg"))
    assert "3 files by emotional valence (across) and memorability (up)" in drawing.get_attribute("aria-label")
    with max(served.out.glob("*-scores.csv")).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["file"] for row in rows} == {"red.png", "blue.png", "green.jpg", "broken.png"}
    assert sum(bool(row["error"]) for row in rows) == 1
    saved = scored.download("#score-csv", tmp_path)
    assert saved.read_text() == max(served.out.glob("*-scores.csv")).read_text()
    scored.resize(380, 800)
    assert scored.too_wide() == []


def test_a_run_shows_its_report_and_how_to_go_on(browser, served):
    folder = served.out / "bench-of-mine"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps({"format": "cogguided benchmark", "scorer": "clip"}))
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    report = '<h1>A report</h1><script>parent.hit = 1</script><img src="a.png"><img src="../../x.png">'
    (folder / "report.html").write_text(report)
    browser.tab("Runs")
    browser.click("#runs-again")
    browser.choose("#runs-which", "bench-of-mine")
    frame = browser.until(lambda: browser.one("#runs-report iframe"))
    assert "cogguided bench --scorer clip --data DATA" in browser.one("#runs-command").text
    inner = frame.get_attribute("srcdoc")
    assert "data:image/png;base64," in inner
    assert "../../x.png" in inner
    assert frame.get_attribute("sandbox") == ""
    assert browser.driver.execute_script("return window.hit") is None
    assert {"report", "settings"} <= set(browser.one("#runs-files").text.replace(".", " ").split())
