"""What is wrong with ratings is told once, with where and how often: no score is guessed."""

import pytest
from ratings_files import ITEMS, rated_pictures, write_official

from cogguided._errors import InputError, UnknownNameError
from cogguided.scorers.benchmark import read_ratings


@pytest.fixture
def root(tmp_path):
    return rated_pictures(tmp_path)


def test_one_error_lists_the_first_offenders_and_counts_all(root):
    rows = ["image,dimension,score"]
    rows += [f"gone{i}.jpg,aesthetics,5" for i in range(3)]
    rows += [f"{ITEMS[0][0]},astonishment,5", f"{ITEMS[0][0]},aesthetics,10.5"]
    rows += [f"{ITEMS[0][0]},aesthetics,nan", f"{ITEMS[0][0]},aesthetics,lovely", ",aesthetics,5"]
    rows += [f"{ITEMS[0][0]},aesthetics,5", f"{ITEMS[0][0]},aesthetics,6", f"{ITEMS[1][0]},aesthetics,6"]
    (root / "mine.csv").write_text("\n".join(rows))
    with pytest.raises(InputError) as caught:
        read_ratings(root / "mine.csv")
    text = str(caught.value)
    assert "9 of 11 ratings cannot be used (4 missing image, 3 unusable score, 1 unknown dimension, " in text
    assert f"line 2: no image {root / 'gone0.jpg'}; the folder that paths start from: --images ROOT" in text
    assert "line 5: dimension 'astonishment'; known: aesthetics, funniness" in text
    assert "line 6: score 10.5 is out of range; aesthetics runs from 0 to 10" in text
    assert text.endswith("... and 4 more")


def test_scores_and_messages_of_different_length(root):
    folder = write_official(root / "test_msg_file")
    (folder / "Aesthetics" / "Aesthetics_scores.json").write_text('["low 4.105"]')
    (folder / "Funniness" / "Funniness_scores.json").unlink()
    with pytest.raises(InputError) as caught:
        read_ratings(folder, images=root)
    assert "2 messages but 1 scores" in str(caught.value)
    assert "Funniness_scores.json: missing" in str(caught.value)


def test_malformed_records(root):
    (root / "A_training.json").write_text('[{"image": ["a.jpg"], "conversations": [{"from": "human"}]}]')
    with pytest.raises(InputError, match=r"1 malformed record.*\n.*record 0: KeyError 'value'"):
        read_ratings(root / "A_training.json")
    (root / "mine.jsonl").write_text("[1, 2]\n")
    with pytest.raises(InputError, match="expected an object"):
        read_ratings(root / "mine.jsonl")
    for content in ("[1, 2]", '["conversations"]', "[[1]]", "[null]"):
        (root / "mine.json").write_text(content)
        with pytest.raises(InputError, match=r"malformed record.*\n.*record 0: expected an object"):
            read_ratings(root / "mine.json")
    (root / "mine.json").write_text('[{"image": "a.jpg", "dimension": "aesthetics", "score": 1%s}]' % ("0" * 400))
    with pytest.raises(InputError, match="score is no number"):
        read_ratings(root / "mine.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "picture,score\n", "expected the columns image, dimension, score; got picture, score"),
        ("a.jsonl", "{", "line 1: is not JSON"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "{}", "expected a JSON list"),
        ("a.csv", b"\xff\x00", "is not UTF-8"),
        ("a.xlsx", "", "expected .csv, .tsv"),
        ("a.csv", f"image,dimension,score\n{'x' * 200_000},", "after line 1: is not CSV"),
        ("a.csv", "image,dimension,score\n", "no ratings of aesthetics"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_ratings(file)


def test_parquet_that_is_none(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR0")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        read_ratings(tmp_path)


def test_arguments_that_name_nothing(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'memorability'"):
        read_ratings(tmp_path, dimensions=["memorabilty"])
    with pytest.raises(InputError, match=r"holds no \*.parquet"):
        read_ratings(tmp_path)
    with pytest.raises(InputError, match="no file or folder '/no/such'"):
        read_ratings("/no/such")
    with pytest.raises(InputError, match="images: no folder"):
        read_ratings(tmp_path, images=tmp_path / "no")
