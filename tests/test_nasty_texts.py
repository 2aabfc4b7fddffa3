"""Users' texts are texts: on the terminal, in tables, in CSV, in HTML."""

import csv
import io

import pytest
from PIL import Image
from typer.testing import CliRunner

from cogguided._cli.app import app
from cogguided._cli.console import PlainConsole, visible

NASTY = [
    "img[v2].png",
    "[red]a [kept] heart[/red]",
    "[/] face",
    ":dog: and :smile:",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "bell \x07 and backspace \x08",
    "caf\udce9",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "{x} %s",
    "名前 שלום 😀",
]


def printed(text):
    console = PlainConsole(file=io.StringIO(), width=400, force_terminal=True, color_system="truecolor")
    console.print(text, highlight=False)
    return console.file.getvalue().rstrip("\n")


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_the_console_prints_what_it_is_given(text):
    assert printed(text) == visible(text)
    assert not set(visible(text)) & set("\x1b\x9b\x07\x08\udce9")
    visible(text).encode("utf-8")


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_errors_name_the_file_as_it_is(text):
    name = text.replace("/", "∕")
    result = CliRunner().invoke(app, ["generate", "--prompts", f"/nowhere/{name}", "--out", "/nowhere/out"])
    assert result.exit_code == 1
    assert not isinstance(result.exception, (UnicodeError, ValueError))
    assert visible(name) in result.output.replace("\n", "")


def test_a_table_of_files_and_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["img[v2].png", "[b].png", "=cmd.png", ":dog:.png", "<script>.png"]
    for name in names:
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    told = CliRunner().invoke(app, ["score", *names, "--scorer", "fake"], env={"COLUMNS": "200"})
    assert told.exit_code == 0, told.output
    assert all(name in told.output for name in names)
    told = CliRunner().invoke(app, ["score", *names, "--scorer", "fake", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(told.output)))
    assert [row["file"] for row in rows] == [f"'{name}" if name[0] == "=" else name for name in names]


def test_extras_are_shown_with_their_brackets():
    told = CliRunner().invoke(app, ["info"], env={"COLUMNS": "200"})
    assert "cogguided[extra]" in told.output


def test_generate_and_replay_tell_prompts_as_they_are(tmp_path):
    """The other end of it, reports and records, is in ``tests/pipelines/test_nasty_reports.py``."""
    prompts = [text for text in NASTY if "\udce9" not in text]
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(prompts), "utf-8")
    arguments = ["--prompts", str(file), "--steps", "1", "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, ["generate", *arguments, "--seed", "0"], env={"COLUMNS": "400"})
    assert told.exit_code == 0, told.output
    assert not set(told.output) & set("\x1b\x9b\x07\x08")
    assert all(visible(text) in told.output for text in prompts)
    told = CliRunner().invoke(app, ["replay", str(tmp_path / "out")], env={"COLUMNS": "400"})
    assert told.exit_code == 0, told.output
    assert "the same, pixel for pixel" in told.output
