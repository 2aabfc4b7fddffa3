"""Scores as columns, with Hugging Face's own data sets and a streamed WebDataset tar."""

import io
import math
import tarfile

import pytest
from datasets import Dataset, load_dataset
from PIL import Image

from cogguided import FakeScorer
from cogguided._errors import InputError
from cogguided.integrations import score_dataset

TARGET = {FakeScorer("light", high=2.0): -1.0}


def shades(count):
    return [Image.new("RGB", (4, 4), (51 * i,) * 3) for i in range(count)]


def test_columns_of_a_data_set():
    scored = score_dataset(Dataset.from_dict({"image": shades(5)}), TARGET, batch_size=2)
    assert isinstance(scored, Dataset)
    assert scored["light"] == pytest.approx([0.2 * i for i in range(5)])
    assert scored["score"] == pytest.approx([-0.1 * i for i in range(5)])
    assert list(scored["score_error"]) == [None] * 5


def test_what_has_no_score_keeps_its_row_and_reason():
    scored = score_dataset(Dataset.from_dict({"path": ["no-such.png"]}), TARGET, column="path")
    assert math.isnan(scored[0]["score"])
    assert scored[0]["score_error"] == "light: no-such.png: no such file"


def test_a_webdataset_tar_is_read_as_a_stream(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, image in enumerate(shades(4)):
            file = io.BytesIO()
            image.save(file, "PNG")
            member = tarfile.TarInfo(f"{i:04d}.png")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)
    files = {"train": str(tmp_path / "a.tar")}
    stream = load_dataset("webdataset", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))
    scorer = FakeScorer("light")
    rows = iter(score_dataset(stream, scorer, column="png", batch_size=1))
    assert next(rows)["light"] == pytest.approx(0.0)
    assert scorer.num_scored < 4, "no more than is asked for"
    assert [row["light"] for row in rows] == pytest.approx([0.2, 0.4, 0.6])


def test_what_cannot_be_scored_is_refused():
    data = Dataset.from_dict({"image": shades(1), "score": [1.0]})
    with pytest.raises(InputError, match="no column 'picture'"):
        score_dataset(data, TARGET, column="picture")
    with pytest.raises(InputError, match=r"\['score'\] already"):
        score_dataset(data, TARGET)
    with pytest.raises(InputError, match="got list"):
        score_dataset([], TARGET)
