"""Many prompts, group by group: the same images as from one call, on disk as soon as they are done, gone on with."""

import errno
import json
import os
import signal

import pytest
from PIL import Image
from tiny_diffusion import tiny_pipeline
from typer.testing import CliRunner

from cogguided import BestOfN, CogGuidedError, CogGuidedPipeline, FakeScorer, NoiseSearch, replay, stream
from cogguided._cli.app import app
from cogguided._errors import GenerationError, InputError, RecordError
from cogguided.pipelines import read_candidates, read_record
from cogguided.pipelines.bulk import pages
from cogguided.pipelines.records import record as recording
from cogguided.scorers import register_scorer, unregister_scorer

PROMPTS = ["a cat", "[red] dog", "a cat", "<b>face</b>", "a tree"]
CALL = {"num_inference_steps": 1, "width": 16, "height": 16}


@pytest.fixture(scope="module")
def pipe():
    made = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target=FakeScorer(), guidance=BestOfN(2))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    where = tmp_path_factory.mktemp("model")
    tiny_pipeline("sd15").save_pretrained(where)
    return where


def made(pipe, folder=None, prompts=PROMPTS, **options):
    return list(stream(pipe, prompts, folder, **{"group": 2, "seed": 3, **CALL, **options}))


def rows_of(folder):
    return [{n: v for n, v in row.items() if n != "seconds"} for row in read_candidates(folder)]


def pixels_of(folder):
    return {f.relative_to(folder): Image.open(f).convert("RGB").tobytes() for f in folder.rglob("images/**/*.png")}


class Failing(FakeScorer):
    """Does something on a call; a call scores a group."""

    def __init__(self, what, at=2):
        super().__init__("failing")
        self.what, self.at = what, at

    def __call__(self, images, prompts=None):
        if self.calls == self.at:
            self.calls += 1
            self.what()
        return super().__call__(images, prompts)


def fail(error):
    raise error


# ---------------------------------------------------------------------- from Python


@pytest.mark.parametrize("guidance", [BestOfN(2), []], ids=["guided", "unguided"])
def test_groups_have_the_seeds_of_one_call(pipe, guidance):
    outputs = made(pipe, guidance=guidance)
    assert [len(out.images) for out in outputs] == [2, 2, 1]
    together = pipe(PROMPTS, seed=3, guidance=guidance, **CALL)
    seeds = {(c.prompt, c.seed): recording.pixels_sha256(c.image) for c in together.candidates}
    assert {(c.prompt, c.seed) for out in outputs for c in out.candidates} == seeds.keys()
    ten = [c for out in made(pipe, guidance=guidance, group=5) for c in out.candidates]
    assert {(c.prompt, c.seed): recording.pixels_sha256(c.image) for c in ten} == seeds


def test_prompts_are_read_as_they_are_needed(pipe):
    read = []
    outputs = stream(pipe, (read.append(p) or p for p in PROMPTS), group=2, **CALL)
    next(outputs)
    assert len(read) == 2
    with pytest.raises(InputError, match="give them as a list"):
        stream(pipe, iter(PROMPTS), budget="10s")
    with pytest.raises(InputError, match="number 1 is int"):
        list(stream(pipe, ["a cat", 3], group=2, **CALL))
    with pytest.raises(InputError, match="cannot follow: seed= in place of latents"):
        stream(pipe, PROMPTS, latents=1)
    with pytest.raises(CogGuidedError, match="did you mean 'width'"):
        stream(pipe, PROMPTS, widht=1)


def test_a_budget_is_shared(pipe):
    outputs = made(pipe, budget="40nfe", guidance=BestOfN(50))
    assert 30 <= sum(out.nfe for out in outputs) <= 40
    assert [out.facts["call"]["budget"]["nfe"] for out in outputs] == [16, 16, 8]


@pytest.mark.parametrize("cut_after", [0, 1, 2])
def test_a_run_cut_short_goes_on_and_equals_a_whole_one(pipe, tmp_path, cut_after):
    made(pipe, tmp_path / "whole")
    outputs = stream(pipe, PROMPTS, tmp_path / "cut", group=2, seed=3, **CALL)
    for _ in range(cut_after):
        next(outputs)
    outputs.close()
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "cut").rglob("images/**/*.png")}
    half = tmp_path / "cut/images/000000/.000004_000_x.png.abc"  # as a kill leaves it
    half.parent.mkdir(parents=True, exist_ok=True)
    half.write_bytes(b"half")
    (tmp_path / "cut/images/000000/000004_009_other.png").write_bytes(b"of a group that was not finished")
    scored = pipe.target.num_scored
    assert len(made(pipe, tmp_path / "cut", resume=True)) == 3 - cut_after
    assert pipe.target.num_scored - scored == 2 * (5 - 2 * cut_after)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert pixels_of(tmp_path / "cut") == pixels_of(tmp_path / "whole")
    assert {f: f.stat().st_mtime_ns for f in before} == before
    names = [{f.relative_to(d) for f in d.rglob("*")} for d in (tmp_path / "cut", tmp_path / "whole")]
    assert names[0] == names[1]
    assert made(pipe, tmp_path / "cut", resume=True) == [], "a finished run has nothing to do"


def test_seeds_that_nobody_gave_are_remembered(pipe, tmp_path):
    next(outputs := stream(pipe, PROMPTS, tmp_path, group=2, **CALL))
    outputs.close()
    made(pipe, tmp_path, seed=None, resume=True)
    seeds = [row["seed"] for row in rows_of(tmp_path)]
    assert len(set(seeds)) == 10
    assert replay(tmp_path, 9, pipe).same


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"width": 24}, "call.arguments.width is 16 there, 24 now"),
        ({"seed": 4}, "seed is 3 there, 4 now"),
        ({"group": 3}, "group is 2 there, 3 now"),
        ({"guidance": BestOfN(3)}, r"call.guidance is .*2.* there, .*3.* now"),
        ({"prompts": [*PROMPTS, "more"]}, r"prompts differ \(5 there, 6 now\)"),
        ({"prompts": [*PROMPTS[:4], "a three"]}, r"prompts differ \(5 there, 5 now\)"),
        ({"keep_candidates": "chosen"}, 'keep_candidates is "all" there, "chosen" now'),
        ({"target": FakeScorer("other")}, "call.target"),
        ({"resume": False}, "has 5 prompts of a run already"),
    ],
)
def test_other_settings_are_one_clear_error(pipe, tmp_path_factory, change, match):
    folder = tmp_path_factory.getbasetemp() / "settled"
    if not folder.exists():
        made(pipe, folder)
    before = rows_of(folder)
    with pytest.raises(RecordError, match=match) as caught:
        made(pipe, folder, **{"resume": True, **change})
    assert "\n" not in str(caught.value)
    assert rows_of(folder) == before


def test_prompts_without_a_list_are_compared_as_they_come(pipe, tmp_path):
    made(pipe, tmp_path, iter(PROMPTS))
    assert len(made(pipe, tmp_path, iter([*PROMPTS[:4], "a tree", "more"]), resume=False, overwrite=True)) == 3
    with pytest.raises(RecordError, match="begun with other prompts, such as 'a cat'"):
        made(pipe, tmp_path, iter(["another", *PROMPTS[1:]]), resume=True)


@pytest.mark.parametrize("keep", ["none", "chosen", "all"])
def test_what_is_kept(pipe, tmp_path, keep):
    made(pipe, tmp_path, keep_candidates=keep)
    rows = rows_of(tmp_path)
    assert sum(row["file"] is not None for row in rows) == {"none": 0, "chosen": 5, "all": 10}[keep]
    assert {row["file"] for row in rows} - {None} == {
        str(f.relative_to(tmp_path)) for kind in ("images", "candidates") for f in (tmp_path / kind).rglob("*.png")
    }
    assert len(list((tmp_path / "contact_sheets").iterdir())) == 3
    page = (tmp_path / "index.html").read_text()
    assert page.count("<section") == 5
    assert page.count("<img") == (0 if keep == "none" else 5)
    assert "3. &lt;b&gt;face&lt;/b&gt;" in page
    assert "<b>" not in page
    for row in rows[::3]:
        assert replay(tmp_path, row["index"], pipe).same
    assert replay(tmp_path, None, pipe).same
    if keep == "all":
        assert replay(tmp_path / rows[9]["file"], None, pipe).same
        assert read_record(tmp_path / rows[9]["file"]).candidates == read_record(tmp_path, 9).candidates[1:]
    with pytest.raises(RecordError, match="no candidate 10; it has 0 to 9"):
        replay(tmp_path, 10, pipe)


def test_the_index_has_pages(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "PROMPTS_A_PAGE", 2)
    made(pipe, tmp_path, guidance=[])
    found = {f.name: f.read_text() for f in tmp_path.glob("index*.html")}
    assert [found[name].count("<section") for name in ("index.html", "index_2.html", "index_3.html")] == [2, 2, 1]
    assert 'page 2 of 3 <a href="index_3.html">later</a>' in found["index_2.html"]
    (tmp_path / "index_of_mine.html").write_text("mine")
    made(pipe, tmp_path, guidance=[], prompts=PROMPTS[:1], overwrite=True)
    assert sorted(f.name for f in tmp_path.glob("index*.html")) == ["index.html", "index_of_mine.html"]


def test_noise_that_no_seed_gives_lies_in_the_folder(pipe, tmp_path):
    guidance = NoiseSearch(1, 1, rounds=1)
    made(pipe, tmp_path, guidance=guidance, prompts=PROMPTS[:3])
    rows = rows_of(tmp_path)
    assert all(replay(tmp_path, row["index"], pipe).same for row in rows)
    assert all(replay(tmp_path / row["file"], None, pipe).same for row in rows)


def test_one_prompt_without_a_score_does_not_stop_the_others(pipe, tmp_path):
    bad = FakeScorer("fake", fn=lambda pixels: pixels.mean(dim=(1, 2, 3)) * float("nan"))
    scores = FakeScorer("fake")

    class Some(FakeScorer):
        def __call__(self, images, prompts=None):
            return (bad if "<b>face</b>" in prompts else scores)(images, prompts)

    outputs = stream(pipe, PROMPTS, tmp_path, group=1, target=Some(), **CALL)
    assert [len(out.images) for out in outputs] == [1, 1, 1, 0, 1]
    assert outputs.folder.unchosen == 1
    assert "no image with a valid score" in (tmp_path / "index.html").read_text()
    assert [row["valid"] for row in rows_of(tmp_path)] == [True] * 6 + [False] * 2 + [True] * 2


def test_a_scorer_that_raises_keeps_the_group_under_way_apart(pipe, tmp_path):
    outputs = stream(
        pipe, PROMPTS, tmp_path, group=2, seed=3, target=Failing(lambda: fail(ZeroDivisionError("odd"))), **CALL
    )
    assert len([next(outputs), next(outputs)]) == 2
    with pytest.raises(GenerationError, match="odd"):
        next(outputs)
    assert len(rows_of(tmp_path)) == 8
    assert len(read_record(tmp_path / "unfinished").candidates) == 2
    made(pipe, tmp_path, target=Failing(None, -1), resume=True)
    assert not (tmp_path / "unfinished").exists()
    assert len(rows_of(tmp_path)) == 10


def test_a_full_disk(pipe, tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 17:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match="No space left on device"):
        made(pipe, tmp_path)
    monkeypatch.undo()
    assert 0 < len(rows_of(tmp_path)) < 10
    made(pipe, tmp_path, resume=True)
    assert len(rows_of(tmp_path)) == 10
    assert not [f for f in tmp_path.rglob(".*") if f.is_file()]


# ---------------------------------------------------------------------- the command line


def generate(model, folder, *arguments, code=0):
    flags = ["--model", model, "--out", folder, "--steps", 1, "--size", 16, "--quiet", "--seed", 3, *arguments]
    done = CliRunner().invoke(app, ["generate", *PROMPTS, *map(str, flags)])
    assert done.exit_code == code, done.output
    return done


def test_the_command_makes_what_is_missing(model, tmp_path):
    done = generate(model, tmp_path / "a", "--target", "fake", "--n", 2, "--search", "best_of_n", "--group", 2)
    for row in rows_of(tmp_path / "a"):
        assert (f"{row['prompt']}  seed {row['seed']}" in done.stdout) == row["chosen"]
    assert "5 prompts, 10 candidates: candidates.jsonl" in done.stdout
    again = ["--target", "fake", "--n", 2, "--search", "best_of_n", "--group", 2, "--resume"]
    assert "5 prompts (5 were there before)" in generate(model, tmp_path / "a", *again).stdout
    told = json.loads(generate(model, tmp_path / "a", *again, "--json").stdout)
    assert (told["prompts"], told["candidates"], told["prompts_without_image"]) == (5, 10, 0)
    assert "other settings (call.guidance" in generate(model, tmp_path / "a", *again, "--n", 3, code=1).stderr
    told = generate(model, tmp_path / "a", *again[:-1], code=1)
    assert "--resume" in told.stderr
    done = CliRunner().invoke(app, ["replay", str(tmp_path / "a"), "7"])
    assert "candidate 7 (seed 4): the same, pixel for pixel" in done.stdout


def test_few_prompts_are_one_record_as_ever(model, tmp_path):
    generate(model, tmp_path)
    assert len(read_record(tmp_path).candidates) == 5
    assert (tmp_path / "candidates.json").exists()
    assert not (tmp_path / "run.jsonl").exists()
    assert "has all of it" in generate(model, tmp_path, "--resume").stdout
    told = generate(model, tmp_path, "--resume", "--set", "guidance_scale=3", code=1).stderr
    assert "call.arguments.guidance_scale is null there, 3 now" in told
    generate(model, tmp_path, "--group", 2, "--overwrite")
    assert not (tmp_path / "candidates.json").exists()
    assert "the record of many prompts" in generate(model, tmp_path, code=1).stderr
    generate(model, tmp_path, "--overwrite")
    assert sorted(f.name for f in tmp_path.iterdir() if f.is_file() and f.suffix != ".png") == ["candidates.json"]
    assert not any((tmp_path / "images").rglob("*.png"))
    done = CliRunner().invoke(app, ["generate", "a cat", "--resume"])
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("what", "code", "told"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130, "interrupted: 4 of 5"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "interrupted: 4 of 5"),
        (lambda: fail(ZeroDivisionError("odd")), 1, "4 of 5"),
    ],
    ids=["Ctrl-C", "SIGTERM", "error"],
)
def test_stopped_the_message_says_how_to_go_on(model, tmp_path, what, code, told):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which what runs in the background is begun without
    register_scorer("failing", lambda: Failing(what))
    flags = ["--target", "failing", "--n", 2, "--search", "best_of_n", "--group", 2]
    try:
        done = generate(model, tmp_path / "a", *flags, code=code)
        assert f"{told} prompts are done and kept in {tmp_path}/a; the same command with --resume" in done.stderr
        assert len(read_record(tmp_path / "a/unfinished").candidates) == 2
        unregister_scorer("failing")
        register_scorer("failing", lambda: Failing(None, -1))
        generate(model, tmp_path / "a", *flags, "--resume")
        generate(model, tmp_path / "b", *flags)
    finally:
        unregister_scorer("failing")
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
