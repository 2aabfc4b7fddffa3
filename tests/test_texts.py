"""Text files as people's editors leave them: every reader of prompts and ratings takes them alike."""

import codecs

import pytest
from PIL import Image
from typer.testing import CliRunner

from cogguided._cli.app import app
from cogguided._cli.options import read_prompts
from cogguided._errors import InputError
from cogguided._texts import prompt_lines, read_text
from cogguided.pipelines.study.judges import read_lines
from cogguided.scorers.ratings.reading import read_ratings

TEXT = "# two animals\r\na cat\r\n\r\n  ein süßer Hund \u2028 im Bild\r\n#comment"
FOUND = ["a cat", "ein süßer Hund \u2028 im Bild"]
ENCODINGS = {
    "utf-8": TEXT.encode(),
    "utf-8 with its mark": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16, as Windows writes it": TEXT.encode("utf-16"),
    "utf-16 big-endian": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf-32": TEXT.encode("utf-32"),
    "unix lines": TEXT.replace("\r\n", "\n").encode(),
    "old lines": TEXT.replace("\r\n", "\r").encode(),
}


@pytest.mark.parametrize("data", ENCODINGS.values(), ids=ENCODINGS)
def test_prompt_files(tmp_path, data):
    file = tmp_path / "prompts.txt"
    file.write_bytes(data)
    assert prompt_lines(read_text(file)) == FOUND
    assert read_lines(file) == FOUND, "finetune, study, anchors"
    assert read_prompts(None, file) == FOUND, "generate"


def test_a_json_list_with_a_mark(tmp_path):
    file = tmp_path / "prompts.json"
    file.write_bytes(codecs.BOM_UTF8 + b'["a cat", "# kept: no comments in JSON"]')
    assert read_lines(file) == ["a cat", "# kept: no comments in JSON"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_ratings(tmp_path, encoding):
    pictures = tmp_path
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    file = tmp_path / "ratings.csv"
    file.write_text("image,dimension,score\na.png,memorability,0.5\n", encoding=encoding)
    (image,) = read_ratings(file, images=pictures)
    assert (image.dimension, image.score) == ("memorability", 0.5)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"a cat\r\ncaf\xe9\r\n", r"prompts\.txt, line 2: is not UTF-8 text \(byte 0xe9; it seems to be Latin-1"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"line 1: .* it seems to be a binary file"),
        ("a cat".encode("utf-16-le"), "UTF-16 without its mark"),
        (codecs.BOM_UTF16_LE + b"a", "cut off or damaged"),
    ],
)
def test_what_is_no_text_is_one_sentence(tmp_path, data, told):
    file = tmp_path / "prompts.txt"
    file.write_bytes(data)
    for read in (read_lines, lambda path: read_prompts(None, path)):
        with pytest.raises(InputError, match=told):
            read(file)
    result = CliRunner().invoke(app, ["generate", "--prompts", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
