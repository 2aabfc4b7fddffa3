"""The page's functions without the page: it shows what the package does, and the code shown makes the same."""

import dataclasses
import gc
import json
import shlex
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cogguided import CogGuidedPipeline, FakeScorer
from cogguided._cli.app import app
from cogguided._errors import InputError, MissingExtraError, UnknownNameError
from cogguided.pipelines.embedded import embedded_path
from cogguided.pipelines.records.record import pixels_sha256
from cogguided.pipelines.study.study import tally
from cogguided.scorers import load_target
from cogguided.ui import compare, generate, runs, score
from cogguided.ui.app import build, read_auth
from cogguided.ui.code import command, python_code
from cogguided.ui.guard import Guard
from cogguided.ui.models import Models
from cogguided.ui.pieces import Pictures
from cogguided.ui.settings import Settings, seed_of, weights_of
from cogguided.ui.working import Page, Session, Sessions, Work

FAST = {"search": "best_of_n", "n": 2, "steps": 1, "device": "cpu"}


class Fakes(Models):
    """Models with the embedded generator, and a judge that costs nothing."""

    def dimensions(self, pipe):
        return load_target({FakeScorer(name): 1.0 for name in ("aesthetics", "memorability")})


@pytest.fixture(scope="module")
def models():
    return Fakes(device="cpu")


@pytest.fixture
def page(models, tmp_path):
    return Page(models, tmp_path, Pictures(tmp_path / ".pictures"))


def made(page, settings, stop_at=None):
    session, said = Session(), []
    for told, candidates in generate.run(session, page, settings):
        said.append(told)
        if stop_at is not None and len(candidates) >= stop_at:
            session.work.stop()
    return session, said


SETTINGS = Settings("a 'quoted' \"face\"", {"fake": -0.5}, seed=7, **FAST)


@pytest.fixture(scope="module")
def session(models, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return made(Page(models, out, Pictures(out / ".pictures")), SETTINGS)[0]


def pixels(folder: Path) -> list[str]:
    return sorted(sha256(file) for file in folder.rglob("*seed*.png"))


def sha256(file: Path) -> str:
    with Image.open(file) as image:
        return pixels_sha256(image)


def test_the_command_and_the_python_make_the_same_pixels(session, tmp_path, monkeypatch):
    assert len(session.output.candidates) == 2
    (tmp_path / "python").mkdir()
    words = shlex.split(command(SETTINGS, tmp_path / "command"))
    assert words[0] == "cogguided"
    done = CliRunner().invoke(app, [*words[1:]])
    assert done.exit_code == 0, done.output
    exec(python_code(SETTINGS, tmp_path / "python"), {})
    assert pixels(tmp_path / "command") == pixels(session.folder)
    assert pixels(tmp_path / "python") == pixels(session.folder)
    mine, other = ((f / "candidates.json").read_text() for f in (session.folder, tmp_path / "command"))
    assert json.loads(mine)["call"] == json.loads(other)["call"]


def test_details_show_the_candidate_among_the_others(session, models, tmp_path):
    pictures = Pictures(tmp_path)
    session.picked = None
    assert "Choose a candidate" in generate.details(session, models, pictures)
    with pytest.raises(InputError, match="candidate 9: there are 2"):
        generate.pick(session, 8)
    first = generate.pick(session, 0)
    assert first.chosen
    told = generate.details(session, models, pictures)
    assert "fake -0" not in told
    assert f"{first.scores['fake']:.3f}" in told
    assert "place 2 of 2" in told  # a negative weight: the chosen has less of it
    assert told.count('class="plot"') == 3
    assert "&#x27;quoted&#x27;" in told
    with Image.open(generate.file_of(session)) as image:
        assert pixels_sha256(image) == pixels_sha256(first.image)
        assert "cogguided" in image.info
    with pytest.raises(InputError, match="expected one of"):
        generate.belief(session, models, "nothing")
    assert "not a distribution" in generate.belief(session, models, "memorability")


def test_variations_begin_with_the_image_that_was_chosen(session, page):
    generate.pick(session, 0)
    settings = dataclasses.replace(generate.varied(session), n=2)
    other, _ = made(page, settings)
    by_seed = {c.seed: c for c in other.output.candidates}
    first = np.asarray(by_seed[session.shown[0].seed].image, dtype=int)
    assert np.abs(first - np.asarray(session.shown[0].image, dtype=int)).max() <= 1
    generate.pick(other, next(i for i, c in enumerate(other.shown) if c.seed != session.shown[0].seed))
    with pytest.raises(InputError, match="not that of one seed"):
        generate.varied(other)
    assert "--search variations" in command(settings, "out/x")


def test_stopping_keeps_what_there_is(page):
    session, said = made(page, Settings("a face", {}, seed=1, search="best_of_n", n=64, steps=4), stop_at=8)
    assert session.output.interrupted
    assert 8 <= len(session.output.candidates) < 64
    assert "stopped: " in said[-1]
    assert json.loads((session.folder / "candidates.json").read_text())["interrupted"]


def test_what_a_page_that_was_closed_had_made_is_kept(page):
    session = Session()
    steps = generate.run(session, page, Settings("a face", {}, seed=1, search="best_of_n", n=64, steps=4))
    for _, candidates in steps:
        if candidates:
            break
    steps.close()
    assert session.work.wait(120)
    (record,) = page.out.glob("*/candidates.json")
    assert json.loads(record.read_text())["interrupted"]


def test_paths_are_named_as_they_were_typed(page):
    typed = dataclasses.replace(page, typed=Path("out"))
    assert typed.told(page.out / "a/b.png") == Path("out/a/b.png")
    assert page.told(page.out / "a") == page.out / "a"


def test_settings_say_what_was_wrong():
    for given, sentence in (
        ({"prompt": " "}, "prompt: type what should be drawn"),
        ({"prompt": "x" * 5000}, "at most 4000 characters"),
        ({"n": 0}, "candidates: expected a whole number from 1"),
        ({"budget": "soon"}, "budget: expected seconds"),
    ):
        with pytest.raises(InputError, match=sentence):
            Settings(**{"prompt": "a face", **given})
    assert weights_of(["a", "b"], [0, -1], None, 1.0) == {"b": -1.0}
    assert 0 <= seed_of("") < 1_000_000
    with pytest.raises(InputError, match="--auth: expected name:password"):
        read_auth("anna")


def test_the_page_loads_no_model_that_was_not_named(models):
    with pytest.raises(UnknownNameError, match="unknown model '/etc'"):
        models.pipe("/etc")
    with pytest.raises(UnknownNameError, match="unknown judge"):
        models.target("/etc")


def test_sessions_forget_and_stop():
    sessions = Sessions()
    first = sessions.of("a")
    sessions.end("a")
    assert first.stop.is_set()
    assert sessions.of("a") is not first


def test_the_servers_end_waits_for_what_is_to_be_kept():
    sessions, kept, found, begun = Sessions(), [], [], threading.Event()

    def call():
        begun.wait(60)
        while not found[0].watch.stopped:
            time.sleep(0.01)
        time.sleep(0.1)
        kept.append(True)

    found.append(Work(call))
    sessions.of("a").work = found[0]
    begun.set()
    sessions.close()
    assert kept


def test_guard_lets_nothing_out_of_the_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "out/link").symlink_to(tmp_path / "secret")
    (tmp_path / "out/mine").write_text("mine")
    guard = Guard(None, tmp_path / "out")
    assert guard.allows(f"/gradio_api/file={tmp_path}/out/mine")
    assert guard.allows("/assets/index.js")
    for path in ("secret", "out/link", "out/../secret", "out/%2e%2e/secret"):
        assert not guard.allows(f"/gradio_api/file={tmp_path}/{path}"), path
    for path in ("/gradio_api/file=http://a.b/c", "/gradio_api/proxy=x", "/gradio_api/file=/etc/passwd"):
        assert not guard.allows(path)


def test_files_are_scored_sorted_and_written(page):
    uploads = page.out / "uploads"
    uploads.mkdir()
    for name, grey in (("dark.png", 10), ("light.png", 250)):
        Image.new("L", (4, 4), grey).save(uploads / name)
    (uploads / "broken.png").write_text("no picture")
    files = [str(uploads / name) for name in ("dark.png", "broken.png", "light.png")]
    session = Session()
    with pytest.raises(InputError, match="drop some pictures first"):
        list(score.run(session, page, [], None, None))
    with pytest.raises(InputError, match="dropped on this page"):
        list(score.run(session, page, ["/etc/passwd"], None, None))
    with pytest.raises(InputError, match="at most 500"):
        list(score.run(session, page, files * 200, None, None))
    said = list(score.run(session, page, files, "fake", None))
    assert "2 of 3 files have a score" in said[-1]
    assert "broken.png: cannot be read as an image" in said[-1]
    assert str(uploads) not in said[-1]
    assert [session.scored.rows[i].file.name for i in score.order(session.scored, "fake")] == [
        "light.png", "dark.png", "broken.png",
    ]  # fmt: skip
    rising = score.order(session.scored, "fake", highest=False)
    assert [session.scored.rows[i].file.name for i in rising] == ["dark.png", "light.png", "broken.png"]
    assert 'aria-sort="descending"' in score.table(session, page, "fake")
    assert score.plot(session, "fake", "fake").count("<use") == 2
    python, line = score.codes(session, page)
    done = CliRunner().invoke(app, [w if w not in ("dark.png", "light.png", "broken.png") else str(uploads / w)
                                    for w in shlex.split(line)[1:-1]] + [str(page.out / "again.csv")])  # fmt: skip
    assert done.exit_code == 0, done.output
    mine = [row.split(",")[1] for row in session.scored.csv.read_text().splitlines()]
    assert mine == [row.split(",")[1] for row in (page.out / "again.csv").read_text().splitlines()]
    assert "score_files" in python


def test_pairs_are_blinded_and_the_vote_counts_as_a_studys(page):
    left = Settings("x", {"fake": 1.0}, seed=3, **{**FAST, "n": 1})
    sides = {"A": compare.Side(left), "B": compare.Side(dataclasses.replace(left, n=2))}
    with pytest.raises(InputError, match="A and B are the same"):
        compare.jobs_of({"A": sides["A"], "B": sides["A"]}, ["a face"], 1)
    session = Session()
    said = list(compare.run(session, page, sides, ["a face"], 2, page.out / "pairs"))
    assert "2 pairs, kept in" in said[-1]
    compared = session.compared
    assert [row["seed"] for row in compared.rows] == [3, 5]
    shown = compare.ballot(compared, page.pictures)
    assert "Pair 1 of 2" in shown
    for secret in ("original", "aligned", "_a.png", "_b.png", "BestOfN"):
        assert secret not in shown
    for name in list(compared.key["pairs"]):
        facts = compared.key["pairs"][name]
        side = "left" if facts["left"] == "aligned" else "right"
        picture = compared.pair(name)[side]
        file = next(r for r in compared.rows if r["seed"] == facts["seed"])["arms"]["aligned"]["image"]
        assert pixels_sha256(picture) == sha256(compared.folder / file)
        ballot = compare.vote(compared, side, "../Anna")
    assert ballot == compared.folder / "choices-anna.json"
    found = tally(compared.folder, [ballot])
    assert (found.wins, found.losses) == (2, 0)
    assert "B 2 times" in compare.result(compared, ballot)
    with pytest.raises(InputError, match="no pair left"):
        compare.vote(compared, "left", None)
    done = CliRunner().invoke(app, ["study", "tally", str(compared.folder), str(ballot)])
    assert "B: embedded, BestOfN(2), steps 1 2" in done.output
    exec(compare.codes(compared, page)[0].replace("again", "new"), {})
    assert pixels(compared.folder / "new-b")


@pytest.mark.slow
def test_text_encoders_are_compared_at_a_strength(tmp_path):
    models = Models(aligned=[str(embedded_path() / "aligned")], device="cpu")
    page = Page(models, tmp_path, Pictures(tmp_path / ".pictures"))
    settings = Settings("x", {}, seed=3, **{**FAST, "n": 1})
    sides = {"A": compare.Side(settings), "B": compare.Side(settings, models.encoders[1], 1.0)}
    session = Session()
    list(compare.run(session, page, sides, ["a face"], 1, page.out / "pairs"))
    images = session.compared.images[0]
    assert pixels_sha256(images["A"]) != pixels_sha256(images["B"])
    exec(compare.codes(session.compared, page)[0], {})
    assert pixels(page.out / "pairs/again-a") == [pixels_sha256(images["A"])]
    assert pixels(page.out / "pairs/again-b") == [pixels_sha256(images["B"])]
    unknown = {**sides, "B": compare.Side(settings, "/etc", 1.0)}
    with pytest.raises(InputError, match="text encoder: expected one of original"):
        list(compare.run(session, page, unknown, ["a face"], 1, page.out / "more"))


def test_runs_are_found_below_the_folder_alone(page, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "candidates.json").write_text("{}")
    (page.out / "link").symlink_to(outside)
    for name, file, facts in (
        ("one", "candidates.json", {"candidates": [{"index": 4, "chosen": True}]}),
        ("two", "study.json", {"facts": {"model": "m", "aligned": "a b", "target": "clip", "seeds": [55], "n": 4}}),
        ("three/deep", "settings.json", {"format": "cogguided benchmark", "scorer": "clip"}),
        ("other", "settings.json", {"format": "something else"}),
    ):
        (page.out / name).mkdir(parents=True)
        (page.out / name / file).write_text(json.dumps(facts))
    found = {run.folder.name: run for run in runs.find(page.out)}
    assert set(found) == {"one", "two", "deep"}
    assert runs.how_to_go_on(found["one"], page).splitlines()[1] == f"cogguided replay {page.out}/one 4"
    told = runs.how_to_go_on(found["two"], page)
    assert "--aligned 'a b' --prompts PROMPTS.txt --target clip --seed 55 --n 4" in told
    for name in (None, "/etc", str(page.out / "link"), str(page.out / "other"), f"{page.out}/../x"):
        with pytest.raises(InputError, match="runs: "):
            runs.choose(page.out, name)


def test_a_report_holds_pictures_of_its_folder_and_no_others(page):
    page = dataclasses.replace(page, out=page.out / "out")
    page.out.mkdir()
    for name in ("a.png", "../b.png"):
        Image.new("RGB", (2, 2)).save(page.out / name)
    file = page.out / "report.html"
    file.write_text('<img alt="" src="a.png"><img src="../b.png"><img src="http://x/y.png"><img src="/etc/passwd">')
    shown = runs.with_pictures(page.out, file)
    assert shown.count("data:image/png;base64,") == 1
    assert all(text in shown for text in ('"../b.png"', '"http://x/y.png"', '"/etc/passwd"'))


def test_a_missing_gradio_is_one_sentence(page, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cogguided\[ui\]"'):
        build(page)


def test_help_teaches():
    done = CliRunner().invoke(app, ["ui", "--help"])
    assert done.exit_code == 0
    assert "cogguided ui --host 0.0.0.0 --auth anna:secret" in " ".join(done.output.split())


# Gradio leaves event loops behind, which warn when they are collected
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tabs_are_laid_out(page):
    pytest.importorskip("gradio", reason="the page itself needs the extra ui")
    blocks = build(page)
    labels = {c["props"].get("label") for c in blocks.get_config_file()["components"]}
    assert {"Prompt", "Pictures", "Run", "Prompts, one a line"} <= labels
    assert all(d["api_visibility"] == "private" for d in blocks.get_config_file()["dependencies"])
    del blocks
    gc.collect()


def test_works_while_another_thread_asks(models):
    assert isinstance(models.pipe("embedded"), CogGuidedPipeline)
    found = []
    threads = [threading.Thread(target=lambda: found.append(models.pipe("embedded"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1]
