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


def shard(path, images):
    """A tar of WebDataset: an image and a caption for each key."""
    with tarfile.open(path, "w") as tar:
        for i, image in enumerate(images):
            file = io.BytesIO()
            image.save(file, "PNG")
            for ending, data in (("png", file.getvalue()), ("txt", b"a shade")):
                member = tarfile.TarInfo(f"{i:04d}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return str(path)


def test_webdataset_tars_are_read_as_a_stream(tmp_path):
    files = {"train": [shard(tmp_path / "a.tar", shades(4)), shard(tmp_path / "b.tar", shades(2))]}
    stream = load_dataset("webdataset", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))
    scorer = FakeScorer("light")
    rows = iter(score_dataset(stream, scorer, column="png", batch_size=1))
    assert next(rows)["light"] == pytest.approx(0.0)
    assert scorer.num_scored < 4, "no more than is asked for"
    assert [row["light"] for row in rows] == pytest.approx([0.2, 0.4, 0.6, 0.0, 0.2])
    captioned = score_dataset(stream, FakeScorer("said", needs_prompt=True), column="png", prompts="txt")
    assert len(list(captioned)) == 6


@pytest.mark.slow  # needs the package webdataset, which leaves it to the garbage collector to close its tars
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pipeline_of_webdataset_itself_is_a_stream_too(tmp_path):
    import webdataset
    from datasets import IterableDataset

    tars = [shard(tmp_path / "a.tar", shades(3))]
    tar = webdataset.WebDataset(tars, shardshuffle=False).decode("pil")
    stream = IterableDataset.from_generator(lambda: ({"png": row["png"]} for row in tar))
    assert [row["light"] for row in score_dataset(stream, FakeScorer("light"), column="png")] == pytest.approx(
        [0.0, 0.2, 0.4]
    )


def test_what_cannot_be_scored_is_refused():
    data = Dataset.from_dict({"image": shades(1), "score": [1.0]})
    with pytest.raises(InputError, match="no column 'picture'"):
        score_dataset(data, TARGET, column="picture")
    with pytest.raises(InputError, match=r"\['score'\] already"):
        score_dataset(data, TARGET)
    with pytest.raises(InputError, match="got list"):
        score_dataset([], TARGET)
