"""Readers of human ratings: miniature files of every format, and CogIP-Bench itself where it is at hand."""

import json
import math
import random
from pathlib import Path

import pytest
from PIL import Image
from ratings_files import (
    EXPECTED,
    ITEMS,
    facts,
    hub_columns,
    png,
    rated_pictures,
    write_official,
    write_parquet,
    write_training,
)

from cogguided._errors import InputError, MissingExtraError, UnknownNameError
from cogguided.scorers.benchmark import Rating, pick_stratified, read_ratings
from cogguided.scorers.dimensions import DIMENSIONS
from cogguided.scorers.ratings.reading import read_scores

COGIP = Path(__file__).resolve().parents[3] / "shared" / "cogip"
needs_cogip = pytest.mark.skipif(not COGIP.is_dir(), reason="CogIP-Bench's text half is not beside the repository")


@pytest.fixture
def root(tmp_path):
    return rated_pictures(tmp_path)


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    from huggingface_hub import constants

    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(constants, "HF_HOME", str(folder))
    return folder / "cogguided" / "images"


# ---------------------------------------------------------------------- every format


def test_official_parent_folder(root):
    ratings = read_ratings(write_official(root / "test_msg_file"), images=root)
    assert facts(ratings) == EXPECTED
    assert {r.split for r in ratings} == {"test"}
    assert {r.prompt for r in ratings} == {"How does it feel?"}
    assert ratings[0].image == root / "Aesthetics/000800.jpg"


def test_official_single_folder_and_single_file_find_images_above(root):
    write_official(root / "test_msg_file")
    folder = root / "test_msg_file" / "Aesthetics"
    assert facts(read_ratings(folder)) == EXPECTED[:2]
    assert facts(read_ratings(folder / "Aesthetics_scores.json")) == EXPECTED[:2]


@pytest.mark.parametrize(("wrap", "as_list"), [("{}", True), ("<answer>{}</answer>", False)])
def test_official_training_file(root, wrap, as_list):
    ratings = read_ratings(write_training(root / "cognition_training.json", wrap, as_list))
    assert facts(ratings) == EXPECTED
    assert {r.split for r in ratings} == {"train"}
    assert {r.prompt for r in ratings} == {"Rate it."}


def test_official_folder_with_training_and_test(root):
    write_official(root / "test_msg_file", [(i.replace("0008", "0009"), d, s, a) for i, d, s, a in ITEMS])
    write_training(root / "cognition_training.json")
    for image, *_ in ITEMS:
        (root / image.replace("0008", "0009")).write_bytes(png())
    assert len(read_ratings(root)) == 2 * len(ITEMS)
    assert facts(read_ratings(root, split="train")) == EXPECTED
    assert {r.key[-10:] for r in read_ratings(root, split="test")} == {"000900.jpg", "000901.jpg"}


def test_score_lists_know_their_split(root):
    (root / "Aesthetics" / "000799.jpg").write_bytes(png())
    (root / "cognition_scores").mkdir()
    lists = root / "cognition_scores"
    (lists / "Aesthetics_scores.txt").write_text("000799.jpg\t5.5\n000800.jpg\t4.105\n000801.jpg\t8.626\n")
    (lists / "Emotional_Valence_scores.txt").write_text("000800.jpg\t-2.000\n")
    assert facts(read_ratings(lists, split="test")) == [*EXPECTED[:2], EXPECTED[3]]
    assert facts(read_ratings(lists / "Aesthetics_scores.txt", split="train")) == [
        ("aesthetics/000799.jpg", "aesthetics", 5.5)
    ]


@pytest.mark.parametrize("key", ["image", "file_name"])
def test_metadata(root, key):
    for split in ("train", "test"):
        lines = [
            json.dumps(
                {"id": "0", key: f"{split}/{i}", "dimension": d, "prompt": "Rate\u2028it.", "score": s},
                ensure_ascii=False,
            )
            for i, d, s, _ in ITEMS
        ]
        (root / f"metadata_{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for image, *_ in ITEMS:
            (root / split / image).parent.mkdir(parents=True, exist_ok=True)
            (root / split / image).write_bytes(png())
    ratings = read_ratings(root, split="test")
    assert facts(ratings) == EXPECTED
    assert ratings[0].image == root / "test" / ITEMS[0][0]
    assert ratings[0].prompt == "Rate\u2028it."
    with pytest.raises(InputError, match=r"5 rated twice(?s:.*)metadata_train.jsonl, line 1.*choose a split"):
        read_ratings(root)


def test_parquet_images_are_written_once(root, cache):
    write_parquet(root / "test-00000-of-00001.parquet")
    ratings = read_ratings(root)
    assert facts(ratings) == EXPECTED  # float32 scores read as they were written
    assert {r.split for r in ratings} == {"test"}
    files = sorted(f for f in cache.rglob("*") if f.is_file())
    assert len(files) == len(ITEMS)
    times = [f.stat().st_mtime_ns for f in files]
    assert Image.open(ratings[1].image).getpixel((0, 0)) == (1, 1, 1)
    assert facts(read_ratings(root / "test-00000-of-00001.parquet")) == EXPECTED
    assert [f.stat().st_mtime_ns for f in files] == times


def test_parquet_without_images_for_figures(root, cache):
    write_parquet(root / "train-00000-of-00001.parquet")
    scores = read_scores(root, split="train")
    assert scores["aesthetics"] == [4.105, 8.626]
    assert not cache.exists()
    assert read_scores(root, split="test") == {}


@pytest.mark.parametrize("kind", ["image", "undecoded image", "struct"])
def test_hub_dataset_through_datasets(tmp_path, cache, monkeypatch, kind):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name):
        asked.append(name)
        tables = {s: datasets.Dataset.from_dict(hub_columns()) for s in ("train", "test")}
        if kind != "struct":
            feature = datasets.Image(decode=kind == "image")
            tables = {s: table.cast_column("image", feature) for s, table in tables.items()}
        return datasets.DatasetDict(tables)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    ratings = read_ratings("foolen/CogIP-Bench", split="test")
    assert asked == ["foolen/CogIP-Bench"]
    assert facts(ratings) == EXPECTED
    assert ratings[0].prompt == "Rate it."
    assert read_scores("foolen/CogIP-Bench", ["memorability"], "train") == {"memorability": [0.0]}
    with pytest.raises(UnknownNameError, match=r"unknown split of foolen/CogIP-Bench 'tset': did you mean 'test'"):
        read_ratings("foolen/CogIP-Bench", split="tset")


@pytest.mark.parametrize("column", ["image", "dimension", "score"])
def test_hub_dataset_without_a_column(monkeypatch, column):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict(hub_columns()).remove_columns(column)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict({"test": table}))
    for read in (read_ratings, read_scores):
        with pytest.raises(InputError, match="who/what, split test: expected the columns image, dimension"):
            read("who/what")


def test_hub_dataset_that_cannot_be_loaded(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"no file or folder 'who/what'.*ConnectionError: no network"):
        read_ratings("who/what")


@pytest.mark.parametrize("package", ["datasets", "pyarrow.parquet"])
def test_missing_extra_is_named(root, monkeypatch, package):
    (root / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtraError, match=r"cogguided\[bench\]"):
        read_ratings("who/what" if package == "datasets" else root)


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ", "), (".tsv", "\t")])
def test_own_ratings(root, suffix, separator):
    lines = [["image", "dimension", "score", "split", "rater comment"]]
    lines += [[i, d.replace("_", " ").title(), str(s), "held-out", '"two\nlines"'] for i, d, s, _ in ITEMS]
    file = root / f"mine{suffix}"
    file.write_text("\ufeff" + "\n".join(separator.join(line) for line in lines), encoding="utf-8")
    ratings = read_ratings(file)
    assert facts(ratings) == EXPECTED
    assert {r.split for r in ratings} == {"held-out"}


def test_own_ratings_of_one_dimension_need_no_column(root):
    (root / "beach.png").write_bytes(png())
    (root / "mine.csv").write_text("image,score\nbeach.png,7\n")
    assert read_ratings(root / "mine.csv", dimensions=["aesthetics"]) == [
        Rating(root / "beach.png", "aesthetics", 7.0, "aesthetics/beach.png")
    ]
    with pytest.raises(InputError, match="dimension none is named"):
        read_ratings(root / "mine.csv")


def test_own_ratings_as_json_lines(root):
    lines = [json.dumps({"image": i, "dimension": d, "score": s}) for i, d, s, _ in ITEMS]
    (root / "mine.jsonl").write_text("\n".join(lines))
    assert facts(read_ratings(root / "mine.jsonl")) == EXPECTED
    (root / "mine.json").write_text("[" + ",".join(lines) + "]")
    assert facts(read_ratings(root / "mine.json", images=root)) == EXPECTED


# ---------------------------------------------------------------------- choosing


def test_dimensions_and_order_of_the_file(root):
    lines = [f"{i},{d},{s}" for i, d, s, _ in ITEMS]
    for seed in range(3):
        random.Random(seed).shuffle(lines)
        (root / "mine.csv").write_text("\n".join(["image,dimension,score", *lines]))
        assert facts(read_ratings(root / "mine.csv")) == EXPECTED
        only = read_ratings(root / "mine.csv", dimensions=["memorability", "funniness"])
        assert facts(only) == [EXPECTED[2], EXPECTED[4]]


def many(count=200, dim="memorability"):
    scores = random.Random(0)
    return [Rating(Path(f"{i}"), dim, scores.random(), f"{dim}/{i}") for i in range(count)]


def test_limit_is_stratified_and_knows_no_order():
    items = many() + many(7, "funniness")
    chosen = pick_stratified(items, 10, seed=3)
    shuffled = list(items)
    random.Random(1).shuffle(shuffled)
    assert set(pick_stratified(shuffled, 10, seed=3)) == set(chosen)
    assert set(pick_stratified(items, 10, seed=4)) != set(chosen)
    assert [r.key for r in chosen] == [r.key for r in items if r in chosen]
    assert sum(r.dimension == "funniness" for r in chosen) == 7
    ranks = sorted(r.score for r in items if r.dimension == "memorability")
    strata = [ranks.index(r.score) // 20 for r in chosen if r.dimension == "memorability"]
    assert sorted(strata) == list(range(10))


def test_limit_in_read_ratings(root):
    lines = [f"{ITEMS[0][0]},{d},{dim.low}" for d, dim in DIMENSIONS.items()]
    (root / "mine.csv").write_text("\n".join(["image,dimension,score", *lines, f"{ITEMS[1][0]},aesthetics,9"]))
    assert [r.dimension for r in read_ratings(root / "mine.csv", limit=1)] == list(DIMENSIONS)
    with pytest.raises(InputError, match="limit: expected at least 1, got 0"):
        read_ratings(root / "mine.csv", limit=0)


# ---------------------------------------------------------------------- the facts of the real data


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """An image root with an empty file for every image that the official lists name."""
    root = tmp_path_factory.mktemp("images")
    counts = {"Aesthetics": 920, "Funniness": 999, "Emotional_Valence": 1500, "Memorability": 1500}
    for name, count in counts.items():
        (root / name).mkdir()
        for index in range(count):
            (root / name / f"{index:06d}.jpg").touch()
    return root


@needs_cogip
def test_official_test_lists(official):
    ratings = read_ratings(COGIP / "test_msg_file", images=official)
    counts = {d: sum(r.dimension == d for r in ratings) for d in DIMENSIONS}
    assert counts == {"aesthetics": 120, "funniness": 199, "emotional_valence": 700, "memorability": 700}
    assert ratings[0].key == "aesthetics/000800.jpg"
    assert not any("<image>" in (r.prompt or "") for r in ratings)
    lists = read_ratings(COGIP / "cognition_scores", images=official, split="test")
    assert facts(lists) == facts(ratings)


@needs_cogip
def test_official_training_list(official):
    ratings = read_ratings(COGIP / "cognition_training.json", images=official)
    assert len(ratings) == 3200
    assert facts(read_ratings(COGIP, images=official, split="train")) == facts(ratings)
    scores = read_scores(COGIP / "cognition_training.json")
    means = {d: math.fsum(s) / len(s) for d, s in scores.items()}
    facts_of_readme = {
        "aesthetics": 5.684,
        "funniness": 4.792,
        "emotional_valence": 0.003,
        "memorability": 0.537,
    }
    assert means == pytest.approx(facts_of_readme, abs=6e-4)


@needs_cogip
def test_official_zeros_of_memorability(official):
    scores = read_scores(COGIP / "cognition_scores")["memorability"]
    assert scores.count(0.0) == 209
    assert not [s for s in scores if 0 < s < 0.2]
