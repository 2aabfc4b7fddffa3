"""What all reports share: drawings in one style, pages in one look."""

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from cogguided._reports import pages, plots, svg
from cogguided._reports.plots import Line, Scale, bars, curves, scatter, strip

NASTY = '<script>alert(1)</script> & "q" $x_2$ \x1b[31m 猫'
TEMPLATES = sorted(pages.TEMPLATES.iterdir())
LINES = [
    Line([(1.0, 0.1), (2.0, 0.3), (4.0, 0.4)], [(0.0, 0.2), (0.2, 0.4), (-math.inf, math.inf)], "a line"),
    *(Line([(2.0, 0.1 * i)], [(0.1 * i - 0.05, 0.1 * i + 0.1)], f"method {i}", joined=False) for i in range(5)),
]


POINTS = [(1, 2), (2, math.nan), (3, 4)]


def every_kind():
    return {
        "scatter": scatter(POINTS, Scale("a", 0, 10), Scale("b"), "two", ["one", "none", "two"], equal=True),
        "curves": curves(LINES, Scale("seconds", log=True), Scale("gain"), "six methods", title="title", level=0.25),
        "bars": bars([0.5, 0.0, 0.5], [0, 1, 2, 3], Scale(low=0, high=3), "two bars", (2.9, "mean")),
        "strip": strip([0.1, 0.2], 0.3, 0.0, 1.0, "highest of three"),
    }


@pytest.fixture(scope="module")
def drawn():
    return every_kind()


def test_a_drawing_is_the_same_whatever_a_user_has_set(drawn):
    import matplotlib

    mine = {"font.size": 30.0, "axes.facecolor": "black", "errorbar.capsize": 9.0, "svg.fonttype": "path"}
    with matplotlib.rc_context(mine):
        assert every_kind() == drawn
        assert {name: matplotlib.rcParams[name] for name in mine} == mine


def test_a_drawing_needs_nothing_of_the_page_and_disturbs_nothing(drawn):
    """No style for the whole page, no address but its own parts', no name that two of a page share."""
    names = []
    for drawing in drawn.values():
        root = ElementTree.fromstring(drawing)
        assert (root.get("role"), root.get("class")) == ("img", "plot")
        assert root.get("aria-label")
        assert "<style" not in drawing
        assert "http" not in drawing.replace('xmlns="http://www.w3.org/2000/svg"', "")
        mine = {part.get("id") for part in root.iter() if part.get("id")}
        assert {part.get("href") for part in root.iter() if part.get("href")} == {f"#{name}" for name in mine}
        names += mine
    assert len(set(names)) == len(names) >= 4


def test_every_colour_is_a_variable_that_pages_set_readably(drawn):
    """Light and dark: words at least 4.5 : 1 against the paper, what is shown at least 3 : 1 (WCAG)."""
    for drawing in drawn.values():
        assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r"var\(--plot-\w+, #\w+\)", "", drawing))
    style = (pages.TEMPLATES / "style.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in re.split("@media screen", style)[:2])
    assert len(dark) == len(light) > 10

    def luminance(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(first, second):
        high, low = sorted((luminance(first), luminance(second)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    assert contrast("#000", "#ffffff") == pytest.approx(21)
    for colours in (light, dark):
        for words in ("text", "soft", "strong", "plot-ink"):
            assert contrast(colours[words], colours["paper"]) >= 4.5, words
        for shown in ("data", "mark", "third", "fourth"):
            assert contrast(colours[f"plot-{shown}"], colours["paper"]) >= 3, shown
        assert contrast(colours["alarm"], colours["alarm-paper"]) >= 4.5
    assert {name: light[f"plot-{name}"] for name in ("data", "mark", "third", "fourth")} == {
        name: svg.COLOURS[name] for name in ("data", "mark", "third", "fourth")
    }


def test_texts_of_users_are_texts_in_drawings():
    said = [NASTY.replace("\x1b", "\\x1b"), "points"]
    drawing = scatter([(1, 2), (3, 4)], Scale(NASTY), Scale("b"), NASTY, [NASTY, ""])
    root = ElementTree.fromstring(drawing)
    assert root.get("aria-label") == said[0]
    assert said[0] in [part.text for part in root.iter() if part.tag.endswith("}text")]
    titles = [part.text for part in root.iter() if part.tag.endswith("}title")]
    assert titles == [said[0]]


def test_points_tell_their_own_names(drawn):
    root = ElementTree.fromstring(drawn["scatter"])
    points = [part for part in root.iter() if part.tag.endswith("}use")]
    told = {float(part.get("x")): part[0].text for part in points}
    assert [told[x] for x in sorted(told)] == ["one", "two"]


def test_what_is_no_number_is_left_out_and_many_are_thinned(monkeypatch):
    assert scatter([(0.5, 3.0)] * 5 + [(math.nan, 1.0)], Scale("a", 0, 1), Scale("b"), "s").count("<use") == 5
    assert scatter([], Scale("a", 0, 1), Scale("b", 0, 1), "s").count("<use") == 0
    assert plots.MOST_POINTS > plots.CROWD
    monkeypatch.setattr(plots, "MOST_POINTS", 30)
    count = plots.MOST_POINTS + 10
    many = scatter([(i / count, i / count) for i in range(count)], Scale("a"), Scale("b"), "s").count("<use")
    assert plots.MOST_POINTS / 2 <= many <= plots.MOST_POINTS
    assert curves([Line([(0.0, math.nan)])], Scale(), Scale(), "s") == "<p>no values</p>"


def test_places_are_the_values(drawn):
    """Within margins of 8 pixels of 200 for the strip; of 50 and 12 of 340, and 20 and 34 of 200, for a line."""
    places = [float(x) for x in re.findall(r'<use x="([\d.]+)"', drawn["strip"])]
    assert places == pytest.approx([8 + 184 * share for share in (0.1, 0.2, 0.3)], abs=0.06)
    line = Line([(0.0, 0.0), (1.0, 1.0), (2.0, 3.0)], [(0.0, 1.0), (0.0, 2.0), (2.0, 4.0)])
    drawing = curves([line], Scale(low=0, high=2), Scale(low=0, high=4), "s")

    def at(x, y):
        return pytest.approx((50 + 278 * x / 2, 166 - 146 * y / 4), abs=0.06)

    found = [(float(x), float(y)) for x, y in re.findall(r'<use x="([\d.]+)" y="([\d.]+)"', drawing)]
    assert found == [at(x, y) for x, y in line.points]
    band = re.search(r'<path d="([^"]+)" style="fill: var\(--plot-data, #0072b2\); opacity: 0.15', drawing)[1]
    corners = [(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", band)]
    assert corners[:6] == [at(0, 1), at(1, 2), at(2, 4), at(2, 2), at(1, 0), at(0, 0)]


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.said = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs), attrs

    def handle_data(self, data):
        self.said.append(data)


def test_whatever_a_page_is_given_is_text():
    """Every value of a page that is no drawing."""
    pair = {"name": NASTY, "prompt": NASTY, "sides": [(NASTY, NASTY)]}
    page = pages.render("vote.html", study=NASTY, asked=NASTY, pairs=[pair])
    parsed = Tags(page)
    assert parsed.tags.count("script") == 1
    assert "".join(parsed.said).count(NASTY.replace("\x1b", "\\x1b")) == 2
    image = {"file": NASTY, "caption": NASTY, "wording": NASTY}
    prompt = {"number": 0, "text": NASTY, "sheet": NASTY, "made": 1, "images": [image]}
    shown = {"name": NASTY, "count": 1, "rows": NASTY, "prompts": [prompt], "place": NASTY}
    assert "script" not in Tags(pages.render("prompts.html", **shown, earlier=NASTY, later=NASTY)).tags


def test_only_drawings_go_into_pages_as_they_are():
    text = "".join(file.read_text() for file in TEMPLATES)
    assert set(re.findall(r"{{[^}]*\|\s*safe[^}]*}}", text)) == {"{{ plot.drawing|safe }}"}
    assert "autoescape" not in text
    assert "http" not in text, "nothing to fetch"


def test_a_page_that_gets_too_little_is_an_error():
    import jinja2

    with pytest.raises(jinja2.UndefinedError, match="asked"):
        pages.render("vote.html", study="s", pairs=[])
