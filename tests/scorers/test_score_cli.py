"""`cogguided score` on folders as people have them: thousands of files, some broken, some odd."""

import csv
import io
import json
import os
import sys
import zlib

import pytest
from PIL import Image
from typer.testing import CliRunner

from cogguided._cli.app import app


def score(*arguments, code=0):
    done = CliRunner().invoke(app, ["score", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def png(colour, size=(4, 2), **options):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG", **options)
    return file.getvalue()


# ---------------------------------------------------------------------- many files


@pytest.fixture(scope="module", params=[200, pytest.param(5000, marks=pytest.mark.slow)])
def many(request, tmp_path_factory):
    """A folder of small pictures in folders below, and what each should score; None for the three that are broken."""
    folder, count = tmp_path_factory.mktemp("many"), request.param
    broken = {0: b"", count // 2: png("white")[:40], count - 1: b"not a picture"}
    expected = {}
    for index in range(count):
        file = folder / f"{index % 7}" / f"{index:05}.png"
        file.parent.mkdir(exist_ok=True)
        grey = index * 37 % 256
        file.write_bytes(broken.get(index, png((grey,) * 3)))
        expected[str(file)] = None if index in broken else grey / 255
    return folder, expected


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_three_broken_files_of_many_are_named_and_nothing_is_lost(many, form, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # a table that folds no name
    folder, expected = many
    done = score(folder, "--scorer", "fake", "--format", form)
    bad = sorted(file for file, value in expected.items() if value is None)
    if form == "table":
        assert done.stdout.count("no score") == 3
        assert sum(".png" in line for line in done.stdout.splitlines()) == len(expected)
    else:
        rows = json.loads(done.stdout) if form == "json" else list(csv.DictReader(io.StringIO(done.stdout)))
        assert [row["file"] for row in rows] == sorted(expected)
        for row in rows:
            value = expected[row["file"]]
            if value is None:
                assert row["fake"] in (None, "")
                assert row["error"].startswith(f"{row['file']}: cannot be read as an image")
            else:
                assert float(row["fake"]) == pytest.approx(value, abs=1e-4)
                assert row["error"] in (None, "")
    told = done.stderr.splitlines()
    assert told[-1] == f"3 of {len(expected)} images have no score"
    if form == "table":
        assert [line.partition(": ")[0] for line in told[:-1]] == bad


# ---------------------------------------------------------------------- odd files

GREY, VALUE = (51, 51, 51), 0.2


def saved(kind, *frames, **options):
    file = io.BytesIO()
    first, *others = [Image.new("RGB", (40, 20), colour) for colour in frames or (GREY,)]
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(file, kind, **more, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved("JPEG", exif=exif)


def bomb():
    """A PNG of a few bytes that says it has 60,000 x 60,000 pixels."""
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    whole = saved("PNG")
    return whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


READ = {
    "plain.png": saved("PNG"),
    "UPPER.PNG": saved("PNG"),
    "jpeg inside.png": saved("JPEG"),
    "png inside.jpg": saved("PNG"),
    "webp inside.gif": saved("WEBP", lossless=True),
    "moving.gif": saved("GIF", GREY, (255, 255, 255)),
    "moving.png": saved("PNG", GREY, (255, 255, 255)),
    "moving.webp": saved("WEBP", GREY, (255, 255, 255), lossless=True),
    "pages.tif": saved("TIFF", GREY, (255, 255, 255)),
    "more after its end.png": saved("PNG") + b"more" * 100,
    **{f"turned {n}.jpg": turned(n) for n in (1, 3, 6, 8, 9)},
}
UNREAD = {
    "empty.png": b"",
    "zeros.jpg": bytes(1000),
    "cut.png": saved("PNG")[:60],
    "cut.jpg": saved("JPEG")[:-100],
    "cut.gif": saved("GIF")[:40],
    "cut.webp": saved("WEBP", lossless=True)[:30],
    "header.bmp": saved("BMP")[:54],
    "spoilt.png": flipped(saved("PNG"), 50),
    "page.png": b"<html><body>404</body></html>",
    "._photo.jpg": b"\0\5\x16\7\0\2\0\0Mac OS X        ",
    "bomb.png": bomb(),
}


@pytest.fixture
def odd(tmp_path):
    for name, data in (READ | UNREAD).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("not looked at")
    (tmp_path / "folder.png").mkdir()
    if os.name == "posix":
        (tmp_path / "nowhere.png").symlink_to(tmp_path / "gone.png")
        os.mkfifo(tmp_path / "pipe.png")
    return tmp_path


def test_odd_files_are_scored_or_named_each(odd):
    rows = json.loads(score(odd, "--scorer", "fake", "--format", "json").stdout)
    found = {os.path.relpath(row["file"], odd): row for row in rows}
    assert found.keys() == READ.keys() | UNREAD.keys()
    assert {name: found[name]["fake"] for name in READ} == pytest.approx(dict.fromkeys(READ, VALUE), abs=2e-3)
    for name in UNREAD:
        why = "too large" if name == "bomb.png" else "cannot be read as an image"
        assert found[name]["fake"] is None
        assert found[name]["error"].startswith(f"{odd / name}: {why}")


def test_files_that_are_named_are_looked_at_whatever_their_ending(odd):
    (odd / "picture.dat").write_bytes(saved("PNG"))
    named = [odd / name for name in ("picture.dat", "notes.txt", "nowhere.png", "gone.png")]
    rows = json.loads(score(*named, "--scorer", "fake", "--format", "json").stdout)
    assert [row["fake"] for row in rows] == [VALUE, None, None, None]
    whys = [row["error"] and row["error"].removeprefix(row["file"]) for row in rows]
    assert [why and why[:16] for why in whys] == [None, ": cannot be read", ": no such file", ": no such file"]


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have no such names")
@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_a_name_that_is_no_utf8_loses_no_score(tmp_path, form, monkeypatch):
    """A Latin-1 name from an old disk, on an output that is UTF-8."""
    monkeypatch.setenv("COLUMNS", "500")
    latin = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    for file in (latin, tmp_path / "plain.png", tmp_path / "caf\u00e9.png"):
        with open(file, "wb") as opened:
            opened.write(saved("PNG"))
    text = score(tmp_path, "--scorer", "fake", "--format", form).stdout_bytes.decode()
    assert text.count("0.2") == 3
    assert text.count("caf\\udce9.png") == 1
    if form == "json":
        assert os.fsdecode(latin) in [row["file"] for row in json.loads(text)]


@pytest.mark.skipif(os.name != "posix", reason="no pipes with names")
def test_a_pipe_named_as_a_picture_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    told = score(tmp_path / "pipe.png", "--scorer", "fake", "--format", "json", code=1)
    assert "pipe.png: is no regular file" in json.loads(told.stdout)[0]["error"]
