"""Two runs into one folder: the second is told at its start, and nothing that was made is thrown away."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cogguided._claiming as claiming
import cogguided.pipelines.cog_guided as home
from cogguided._claiming import claim, lock_file
from cogguided._cli.app import app
from cogguided._errors import RecordError

GENERATE = ["generate", "a face", "--n", "2", "--search", "best_of_n", "--target", "fake", "--steps", "1", "--quiet"]


def write_claim(folder, process, host):
    lock_file(folder).write_text(json.dumps({"process": process, "host": host, "since": "today"}))


def test_a_claim_is_held_and_given_up(tmp_path):
    release = claim(tmp_path / "out")
    assert json.loads(lock_file(tmp_path / "out").read_text())["process"] == os.getpid()
    release()
    assert not lock_file(tmp_path / "out").exists()


def test_a_dead_process_holds_nothing_and_a_living_one_does(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    write_claim(tmp_path / "out", dead.pid, socket.gethostname())
    claim(tmp_path / "out")()
    write_claim(tmp_path / "out", os.getppid(), socket.gethostname())
    with pytest.raises(RecordError, match=rf"in use by process {os.getppid()}"):
        claim(tmp_path / "out")
    write_claim(tmp_path / "out", dead.pid, "another-machine")
    with pytest.raises(RecordError, match=r"on another-machine.*remove .*cogguided-lock"):
        claim(tmp_path / "out")
    lock_file(tmp_path / "out").write_text("{")
    with pytest.raises(RecordError, match="remove"):
        claim(tmp_path / "out")


def test_a_claim_that_a_kill_left_empty_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(claiming, "WRITES_ITSELF_IN", 0.05)
    lock_file(tmp_path / "out").touch()
    claim(tmp_path / "out")
    assert json.loads(lock_file(tmp_path / "out").read_text())["process"] == os.getpid()
    written = threading.Timer(0.01, lambda: write_claim(tmp_path / "b", os.getppid(), socket.gethostname()))
    lock_file(tmp_path / "b").touch()
    written.start()
    with pytest.raises(RecordError, match=rf"in use by process {os.getppid()}"):
        claim(tmp_path / "b")
    written.join()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_claim_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(RecordError, match="cannot write"):
        claim(Path("/proc/nowhere/out"))
    opening = Path.open

    def full(file, *args, **kwargs):
        opening(file, *args, **kwargs).close()
        return opening(Path("/dev/full"), "w")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RecordError, match=r"cannot write .*No space left"):
        claim(tmp_path / "out")
    assert not lock_file(tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        [*GENERATE, "--out"],
        ["bench", "--scorer", "fake", "--data", "ratings.csv", "--dimension", "memorability", "--out"],
    ],
    ids=lambda c: c[0],
)
def test_commands_do_not_start_in_a_folder_in_use(tmp_path, monkeypatch, command):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    (tmp_path / "ratings.csv").write_text("image,dimension,score\na.png,memorability,0.5\n")
    write_claim(tmp_path / "out", os.getppid(), socket.gethostname())
    told = CliRunner().invoke(app, [*command, "out"])
    assert told.exit_code == 1
    assert "is in use by process" in told.output.replace("\n", " ")


def test_a_record_that_came_in_the_meantime_is_not_overwritten(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    original = home.checked_output

    def another_run_ends_first(*args):
        folder.mkdir(exist_ok=True)
        (folder / "candidates.json").write_text("of another run")
        return original(*args)

    monkeypatch.setattr(home, "checked_output", another_run_ends_first)
    told = CliRunner().invoke(app, [*GENERATE, "--out", str(folder)])
    assert told.exit_code == 0, told.output
    assert (folder / "candidates.json").read_text() == "of another run"
    assert len(json.loads((tmp_path / "out-2" / "candidates.json").read_text())["candidates"]) == 2
    assert not lock_file(folder).exists()
