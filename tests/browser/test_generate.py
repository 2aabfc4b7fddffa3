"""Generate in a real browser: images come, work stops, the reason why one won is told, variations, the record."""

import json
import re
import time

import pytest

from cogguided import replay


def state(browser):
    return " ".join(element.text for element in browser.all(".cg-state"))


def settle(browser):
    return browser.until(lambda: "kept in" in state(browser) and state(browser))


def quick(browser, prompt="a face", n="3", seed="5", steps="2"):
    """A prompt, and settings under which its images take little time."""
    browser.open_more()
    browser.choose("#gen-search", "best_of_n")
    browser.type("#gen-candidates", n)
    browser.type("#gen-seed", seed)
    browser.type("#gen-steps", steps)
    browser.type("#gen-prompt", prompt)


@pytest.fixture
def made(browser):
    """A page on which three images were made, by keyboard alone."""
    quick(browser)
    browser.enter(browser.one("#gen-prompt input, #gen-prompt textarea"))
    settle(browser)
    return browser


def test_images_come_best_first_and_no_other_host_is_asked(made, served):
    assert "3 candidates in" in state(made)
    tiles = made.all(".cg-tile")
    scores = [float(re.search(r"valence (-?[\d.]+)", " ".join(tile.text.split()))[1]) for tile in tiles]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert "cg-chosen" in tiles[0].get_attribute("class")
    script = "return [...document.querySelectorAll('.cg-tile img')].map(i => i.complete && i.naturalWidth)"
    made.until(lambda: all(made.driver.execute_script(script)))
    asked = made.addresses()
    assert any("/file=" in address for address in asked)
    assert {a for a in asked if not a.startswith((served.address, "data:", "blob:"))} == set()


def test_why_one_won_variations_of_it_and_the_record(made, tmp_path):
    tile = made.all(".cg-tile")[1]
    made.driver.execute_script("arguments[0].focus()", tile)
    made.enter(tile)
    details = made.until(lambda: made.one(".cg-details"))
    made.until(lambda: made.all(".cg-tile")[1].get_attribute("aria-pressed") == "true")
    for name in ("aesthetics", "funniness", "emotional valence", "memorability"):
        assert name in made.one(".cg-details").text
    assert details
    assert len(made.all(".cg-details .plot")) == 4
    drawing = made.until(lambda: made.one("#gen-belief svg"))
    assert "emotional valence: mean" in drawing.get_attribute("aria-label")
    made.choose("#gen-dimension", "memorability")
    made.until(lambda: "memorability: mean" in made.one("#gen-belief svg").get_attribute("aria-label"))

    made.resize(380, 800)
    assert made.too_wide() == []
    made.resize(1280)
    again = replay(made.download("#gen-save", tmp_path))
    assert again.same
    assert f"seed {again.candidate['seed']}" in made.all(".cg-tile")[1].text

    made.click("#gen-vary")
    made.until(lambda: "9 candidates in" in state(made))
    assert len(made.all(".cg-tile")) == 9


def test_stop_keeps_what_is_there(browser):
    quick(browser, n="200", steps="10")
    browser.click("#gen-go")
    browser.until(lambda: browser.all(".cg-tile"))
    before = len(browser.all(".cg-tile"))
    browser.click("#gen-stop")
    said = settle(browser)
    assert said.startswith("stopped: ")
    kept = int(re.search(r"stopped: (\d+) candidates", said)[1])
    assert before <= kept < 200
    assert "cg-chosen" in browser.all(".cg-tile")[0].get_attribute("class")


def test_closing_the_page_stops_and_keeps(browser, served):
    before = set(served.out.glob("*/candidates.json"))
    quick(browser, n="200", steps="10")
    browser.click("#gen-go")
    browser.until(lambda: browser.all(".cg-tile"))
    browser.driver.get("about:blank")
    new = browser.until(lambda: set(served.out.glob("*/candidates.json")) - before)
    facts = json.loads(new.pop().read_text())
    assert facts["interrupted"]
    assert 0 < len(facts["candidates"]) < 200


def test_errors_are_the_packages_own_sentences(browser):
    browser.click("#gen-go")
    told = browser.until(lambda: browser.one("[role=alert]"))
    assert told.text == "prompt: type what should be drawn, e.g. a face"
    quick(browser, steps="many")
    browser.click("#gen-go")
    expected = "steps: expected a whole number, or nothing, got 'many'"
    browser.until(lambda: browser.one("[role=alert]").text == expected)
    browser.type("#gen-steps", "2")
    browser.type("#gen-budget", "soon")
    browser.click("#gen-go")
    browser.until(lambda: "expected seconds (30, '30s') or evaluations" in browser.one("[role=alert]").text)


def test_a_prompt_is_a_text_and_nothing_else(browser):
    nasty = '<img src=x onerror="window.hit=1"> ${1+1} {{value}} </ul><script>window.hit=1</script>'
    quick(browser, prompt=nasty, n="1")
    browser.click("#gen-go")
    settle(browser)
    browser.click(".cg-tile")
    shown = browser.until(lambda: browser.one(".cg-details"))
    assert "${1+1} {{value}}" in shown.text
    assert browser.driver.execute_script("return window.hit") is None


def test_the_time_to_the_first_image(one_browser, served, capsys):
    one_browser.open(served.address)
    quick(one_browser, n="1", steps="20")
    started = time.monotonic()
    one_browser.click("#gen-go")
    one_browser.until(lambda: one_browser.all(".cg-tile"))
    with capsys.disabled():
        print(f"\nfirst image {time.monotonic() - started:.1f} s after Generate, of a page that was warm")
