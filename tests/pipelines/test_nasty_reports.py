"""Users' texts in every report and record: no markup, no escape sequence, nothing lost."""

import json
import os
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer, FinetuneConfig, finetune, replay, run_study
from cogguided._texts import CONTROL, visible
from cogguided.scorers.benchmark import read_ratings, score_items, write_report

PROMPTS = [
    "<script>alert(1)</script> & \"quotes\"",
    "\x1b[31mred\x1b[0m \x9b1m",
    "[/] :dog: | `code` {x} %s",
    "=cmd|calc",
]


class Page(HTMLParser):
    """Every tag of a page, and its text outside scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.said = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.said.append(data)


def check(file, texts, scripts=0):
    page = file.read_text("utf-8")
    assert not CONTROL.search(page)
    parsed = Page(page)
    assert parsed.tags.count("script") == scripts
    said = "".join(parsed.said)
    for text in texts:
        assert visible(text) in said, text


def test_a_study(tmp_path):
    pipe = tiny_pipeline("qwen_image")
    other = tiny_pipeline("qwen_image").text_encoder
    for weight in other.parameters():
        weight.data.mul_(1.01)
    other.save_pretrained(str(tmp_path / "aligned"))
    options = {"seeds": [3], "n": 1, "faithfulness": None, "progress": False, **CALL["qwen_image"]}
    run_study(pipe, tmp_path / "aligned", PROMPTS, FakeScorer(), tmp_path / "out", **options)
    check(tmp_path / "out" / "report.html", PROMPTS)
    check(tmp_path / "out" / "vote.html", PROMPTS, scripts=1)


def test_fine_tuning(tmp_path):
    config = FinetuneConfig(rounds=1, prompts_per_round=1, images_per_prompt=2, timesteps=1, updates=1, rank=2)
    config = replace(config, images_per_evaluation=1, patience=0)
    options = {"evaluation": PROMPTS, "faithfulness": None, "progress": False, **CALL["flux"]}
    finetune(tiny_pipeline("flux"), FakeScorer(), [f"{text}!" for text in PROMPTS], tmp_path, config, **options)
    check(tmp_path / "report.html", PROMPTS)


def test_the_benchmark_and_names_that_are_no_utf8(tmp_path):
    names = ["<script>1.png", "\x1b[31m2.png", "[b]3 | x.png", "=4.png", os.fsdecode(b"caf\xe9.png")]
    lines = []
    for level, name in enumerate(names):
        Image.new("RGB", (4, 4), (50 * level,) * 3).save(tmp_path / name)
        lines.append({"image": name, "dimension": "memorability", "score": level / 5})
    (tmp_path / "ratings.json").write_text(json.dumps(lines))
    ratings = read_ratings(tmp_path / "ratings.json")
    score_items(FakeScorer("memorability"), ratings, tmp_path / "run")
    results = write_report(tmp_path / "run", num_resamples=20)
    check(tmp_path / "run" / "report.html", names)
    assert not CONTROL.search((tmp_path / "run" / "report.md").read_text("utf-8"))
    kept = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    keys = [item["key"] for item in kept["worst"]["memorability"]]
    assert keys == [item["key"] for item in results["worst"]["memorability"]]
    assert b"caf\xe9.png" in {os.fsencode(key).split(b"/")[-1] for key in keys}


@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_a_record(tmp_path, prompt):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"))
    out = pipe(prompt, target=FakeScorer(), guidance=BestOfN(2), seed=0, **CALL["sd15"])
    folder = out.save(tmp_path)
    record = (folder / "candidates.json").read_text("utf-8")
    assert "\x1b" not in record
    assert json.loads(record)["call"]["prompts"] == [prompt]
    assert all(path.name.isprintable() and path.resolve().is_relative_to(tmp_path) for path in folder.rglob("*"))
    assert replay(folder, pipe=pipe).same
