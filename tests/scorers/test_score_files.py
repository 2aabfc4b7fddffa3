"""Scores of many files: found one by one, written as they come, gone on with; whatever happens in between."""

import csv
import errno
import io
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import cogguided.scorers.bulk.table as table_module
from cogguided import CogGuidedError, FakeScorer, score_files
from cogguided._cli.app import app
from cogguided._errors import RecordError
from cogguided.scorers import FileScore, ScoreTable, find_images, register_scorer, unregister_scorer
from cogguided.scorers.bulk import lines, listed

SUFFIXES = (".jsonl", ".csv", ".parquet")


def score(*arguments, code=0, **kwargs):
    done = CliRunner().invoke(app, ["score", *map(str, arguments)], **kwargs)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Seventy greys in folders, and a broken file."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(70):
        (folder / f"{i % 3}").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (3 * i,) * 3).save(folder / f"{i % 3}/{i:02}.png")
    (folder / "1/05.png").write_bytes(b"no picture")
    return folder


def read(table):
    if table.suffix == ".jsonl":
        return [json.loads(line) for line in table.read_text().splitlines()]
    if table.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(table.read_text())))
        return [{**r, "fake": float(r["fake"]) if r["fake"] else None, "error": r["error"] or None} for r in rows]
    from pyarrow.parquet import read_table

    return read_table(table).to_pylist()


class Failing(FakeScorer):
    """Does something on its third call."""

    def __init__(self, what):
        super().__init__("failing")
        self.what = what

    def __call__(self, images, prompts=None):
        if self.calls == 2:
            self.calls += 1
            self.what()
        return super().__call__(images, prompts)


@pytest.fixture
def failing(request):
    def do(what):
        register_scorer("failing", lambda: Failing(what))

    yield do
    unregister_scorer("failing")


def fail(error):
    raise error


# ---------------------------------------------------------------------- finding


def test_files_are_found_in_the_order_of_their_parts(pictures):
    found = list(find_images([pictures]))
    assert found == sorted(p for p in pictures.rglob("*.png"))


def test_a_list_comes_as_it_is_read():
    class Slow(io.BytesIO):
        read_so_far = 0

        def read1(self, size=-1):
            found = super().read1(4)
            self.read_so_far += len(found)
            return found

    stream = Slow(b"a.png\nb.png\n" * 1000)
    paths = listed(stream)
    assert str(next(paths)) == "a.png"
    assert stream.read_so_far < 20
    assert sum(1 for _ in paths) == 1999


def test_a_list_of_names_as_they_are():
    mark = b"\xef\xbb\xbf"
    assert [os.fsencode(p) for p in listed(io.BytesIO(mark + b"caf\xe9.png\n b.png"))] == [b"caf\xe9.png", b" b.png"]


# ---------------------------------------------------------------------- the table


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_out_has_what_the_terminal_shows_and_goes_on(pictures, tmp_path, suffix):
    table = tmp_path / f"scores{suffix}"
    done = score(pictures / "0", "--scorer", "fake", "--out", table)
    assert "scores of 24 files are in" in done.stdout
    rows = read(table)
    assert [r["file"] for r in rows] == [str(f) for f in find_images([pictures / "0"])]
    done = score(pictures, "--scorer", "fake", "--out", table)
    assert "scores of 71 files (24 were there before)" in done.stdout
    assert "1 of 71 images have no score" in done.stderr
    assert read(table)[:24] == rows
    shown = json.loads(score(pictures, "--scorer", "fake", "--format", "json").stdout)
    by_file = {r["file"]: r for r in read(table)}
    assert len(by_file) == 71
    for row in shown:
        assert by_file[row["file"]]["error"] == row["error"]
        assert by_file[row["file"]]["fake"] == pytest.approx(row["fake"], abs=1e-4)


def test_a_list_on_standard_input(pictures, tmp_path):
    names = "\0".join(str(file) for file in [*find_images([pictures / "1"])][:5])
    done = score("--files", "-", "--scorer", "fake", "--out", tmp_path / "a.csv", input=names)
    assert "scores of 5 files" in done.stdout
    (tmp_path / "list.txt").write_text(f"{pictures}/0\n{pictures}/2/02.png\n")
    done = score("--files", tmp_path / "list.txt", "--scorer", "fake", "--format", "json")
    assert len(json.loads(done.stdout)) == 25


def test_what_a_kill_left_behind_is_cut_off(pictures, tmp_path):
    table = tmp_path / "s.jsonl"
    score(pictures / "0", "--scorer", "fake", "--out", table)
    whole, log = table.read_bytes(), tmp_path / ".s.jsonl.cogguided"
    lines_of_log = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines_of_log[:-1]) + lines_of_log[-1][:9])  # not complete, and torn
    table.write_bytes(whole + b'{"file": "torn')
    score(pictures / "0", "--scorer", "fake", "--out", table)
    assert table.read_bytes() == whole


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--scorer", "failing"], r'terms is \["fake"\] there, \["failing"\] now'),
        (["--scorer", "fake", "--prompt", "a cat"], r'settings.prompt is null there, "a cat" now'),
    ],
)
def test_other_settings_are_one_clear_error(pictures, tmp_path, flags, match, failing):
    failing(None)
    table = tmp_path / "s.csv"
    score(pictures / "0", "--scorer", "fake", "--out", table)
    told = score(pictures, *flags, "--out", table, code=1).stderr
    assert re.search(match, told)
    assert len(told.splitlines()) == 1
    score(pictures, "--scorer", "fake", "--out", table, "--overwrite")
    assert len(read(table)) == 71


def test_a_file_of_somebody_else_is_not_touched(pictures, tmp_path):
    (tmp_path / "s.csv").write_text("mine\n")
    told = score(pictures, "--scorer", "fake", "--out", tmp_path / "s.csv", code=1).stderr
    assert ".s.csv.cogguided, part of it, is not" in told
    assert (tmp_path / "s.csv").read_text() == "mine\n"
    assert "ends in .jsonl, .csv, .parquet" in score(pictures, "--scorer", "fake", "--out", "s.txt", code=1).stderr
    table = tmp_path / "t.jsonl"
    score(pictures / "0", "--scorer", "fake", "--out", table)
    with table.open("a") as file:
        file.write('{"file": "mine"}\n')
    assert "was added to since" in score(pictures, "--scorer", "fake", "--out", table, code=1).stderr
    table.write_text("")
    assert "is shorter (0 bytes)" in score(pictures, "--scorer", "fake", "--out", table, code=1).stderr


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_complete_table_that_gets_more_files_survives_a_kill_between_two_writes(tmp_path, suffix, monkeypatch):
    def table():
        return ScoreTable(tmp_path / f"s{suffix}", ["fake"], {"a": 1})

    first = table()
    first.append([FileScore(Path("a.png"), {"fake": 0.25})])
    first.finish()
    more = table()

    def killed_behind(file, data):
        lines.append(file, data)
        if file == more.data:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(table_module, "append", killed_behind)
        with pytest.raises(KeyboardInterrupt):
            more.append([FileScore(Path("b.png"), {"fake": 0.5})])
    last = table()
    assert (last.rows, Path("b.png") in last) == (1, False)
    last.append([FileScore(Path("b.png"), {"fake": 0.5})])
    last.finish()
    assert [(row["file"], row["fake"]) for row in read(last.file)] == [("a.png", 0.25), ("b.png", 0.5)]


def test_a_parquet_file_whose_rows_are_gone_is_left_alone(tmp_path):
    table = ScoreTable(tmp_path / "s.parquet", ["fake"], {})
    table.append([FileScore(Path("a.png"), {"fake": 0.25})])
    table.finish()
    table.data.unlink()
    with pytest.raises(RecordError, match=r"s\.parquet: is there already, and \.s\.parquet\.rows"):
        ScoreTable(tmp_path / "s.parquet", ["fake"], {})
    assert ScoreTable(tmp_path / "s.parquet", ["fake"], {}, overwrite=True).rows == 0
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_killed_while_it_was_replaced_is_not_taken_for_somebody_elses(tmp_path, suffix, kept, monkeypatch):
    table = ScoreTable(tmp_path / f"s{suffix}", ["fake"], {})
    table.append([FileScore(Path("a.png"), {"fake": 0.25})])
    table.finish()
    unlink, left = Path.unlink, iter(range(kept))

    def killed_behind(file, missing_ok=False):
        if next(left, None) is None:
            raise KeyboardInterrupt
        unlink(file, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed_behind)
        with pytest.raises(KeyboardInterrupt):
            ScoreTable(table.file, ["fake"], {}, overwrite=True)
    again = ScoreTable(table.file, ["fake"], {})
    again.append([FileScore(Path("b.png"), {"fake": 0.5})])
    again.finish()
    assert read(again.file)[-1]["file"] == "b.png"
    assert len(read(again.file)) == again.rows


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have no such names")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nasty_names_keep_their_rows(tmp_path, suffix):
    names = [b"caf\xe9.png", b"=a.png", b"a\nb.png", b'"q",.png', "名前.png".encode(), b"[red]x.png"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Image.new("RGB", (2, 2), "white").save(file, "PNG")
    table = tmp_path / "out" / f"s{suffix}"
    score(tmp_path, "--scorer", "fake", "--out", table)
    assert len(read(table)) == len(names)
    told = score(tmp_path, "--scorer", "fake", "--out", table).stdout
    assert f"scores of {len(names)} files ({len(names)} were" in told


# ---------------------------------------------------------------------- what goes wrong


def test_a_scorer_that_raises_keeps_what_was_scored(pictures, tmp_path, failing):
    failing(lambda: fail(ZeroDivisionError("odd")))
    table = tmp_path / "s.jsonl"
    told = score(pictures, "--scorer", "failing", "--out", table, code=1).stderr
    assert "the scores of 64 files are kept in" in told
    assert "the same command goes on" in told
    assert "error: the scorer failed on 7 files" in told
    assert "ZeroDivisionError: odd" in told
    assert len(read(table)) == 64
    failing_no_more = FakeScorer("failing")
    unregister_scorer("failing")
    register_scorer("failing", lambda: failing_no_more)
    score(pictures, "--scorer", "failing", "--out", table)
    assert failing_no_more.num_scored == 7
    assert len({r["file"] for r in read(table)}) == 71


@pytest.mark.parametrize(
    ("what", "code"),
    [(lambda: fail(KeyboardInterrupt()), 130), (lambda: os.kill(os.getpid(), signal.SIGTERM), 143)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_ctrl_c_and_sigterm(pictures, tmp_path, failing, what, code):
    failing(what)
    table = tmp_path / "s.csv"
    told = score(pictures, "--scorer", "failing", "--out", table, code=code)
    assert "interrupted: the scores of 64 files are kept in" in told.stderr
    done = score(pictures, "--scorer", "failing", "--out", table)
    assert "scores of 71 files (64 were there before)" in done.stdout
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_full_disk(pictures, tmp_path, monkeypatch):
    table, real = tmp_path / "s.jsonl", os.fsync
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(lines.os, "fsync", full)
    told = score(pictures, "--scorer", "fake", "--out", table, code=1).stderr
    assert "the scores of 32 files are kept in" in told
    assert f"cannot write {table}: No space left on device" in told
    assert len(read(table)) == 32
    score(pictures, "--scorer", "fake", "--out", table)
    assert len(read(table)) == 71


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_disk_that_is_full_indeed():
    with pytest.raises(CogGuidedError, match="cannot write /dev/full: No space left on device"):
        lines.append(Path("/dev/full"), b"a" * 10)


# ---------------------------------------------------------------------- from Python


def test_score_files_yields_as_it_goes(pictures, tmp_path):
    scorer = FakeScorer()
    taken = []

    def files():
        for file in find_images([pictures]):
            taken.append(file)
            yield file

    scores = score_files(files(), scorer, chunk=4, out=tmp_path / "s.jsonl")
    first = next(scores)
    assert (len(taken), scorer.num_scored, first.valid) == (4, 4, True)
    assert len(read(tmp_path / "s.jsonl")) == 4
    scores.close()
    assert len(list(score_files(find_images([pictures]), scorer, out=tmp_path / "s.jsonl"))) == 67
    assert scorer.num_scored == 71
    twice = [*find_images([pictures / "0"])][:1] * 3
    assert len(list(score_files(twice, scorer))) == 3
    assert len(list(score_files(twice, scorer, out=tmp_path / "t.jsonl"))) == 1


def test_a_scorer_that_needs_a_prompt_says_so_at_once():
    with pytest.raises(CogGuidedError, match="compares images with a text"):
        score_files(["a.png"], FakeScorer("needy", needs_prompt=True))


def test_a_table_begun_and_killed_before_its_first_chunk_is_begun_again(tmp_path):
    ScoreTable(tmp_path / "s.csv", ["fake"], {"a": 1})
    (tmp_path / "s.csv").write_bytes(b"fi")  # of its head
    table = ScoreTable(tmp_path / "s.csv", ["fake"], {"a": 2})
    assert (table.rows, (tmp_path / "s.csv").read_text()) == (0, "file,fake,error\n")


def test_every_ending_that_pillow_reads_counts_and_the_others_are_told(tmp_path):
    picture = Image.new("RGB", (8, 8), "red")
    names = ["a.avif", "b.ppm", "c.jfif", "d.JPEG", "e.webp", "f.jp2", "g.tga"]
    for name in names:
        picture.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "README").write_text("none either")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    told = CliRunner().invoke(app, ["score", str(tmp_path), "--scorer", "fake", "--format", "json"])
    assert told.exit_code == 0, told.output
    assert [Path(row["file"]).name for row in json.loads(told.stdout)] == names
    assert "2 files of the folders were not taken for pictures: 1 without an ending, 1 .txt" in told.stderr
    assert f"1 links lead nowhere: {tmp_path / 'gone.png'}" in told.stderr


def test_strict(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("broken")
    arguments = ["score", str(tmp_path), "--scorer", "fake"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--strict"]).exit_code == 1
    (tmp_path / "b.png").unlink()
    assert CliRunner().invoke(app, [*arguments, "--strict"]).exit_code == 0
