"""Pictures of odd sizes and modes, and odd files: each is scored, or refused with a sentence that names it."""

import pytest
from PIL import Image

from cogguided.scorers import FakeScorer, load_scorer
from cogguided.scorers.mllm import MLLMScorer

SIZES = [(1, 1), (1, 2), (3, 1), (1, 199), (1, 1000), (1000, 1), (27, 29), (690, 15420)]
TOO_LONG = {"1x1000.png", "1000x1.png"}  # for Qwen's processor, which takes aspect ratios up to 200
GREY = ["1", "L", "LA", "La", "P", "PA", "I;16", "I;16B", "F"]
MODES = [*GREY, "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"]
NO_WHITE = ["I"]


@pytest.fixture(scope="module")
def scorer_of(model_folder):
    made = {"fake": FakeScorer()}

    def get(name):
        if name == "clip":
            made.setdefault(name, load_scorer("clip"))
        elif name not in made:
            made[name] = MLLMScorer.from_pretrained(model_folder(name), "memorability", min_mass=0.0)
        scorer = made[name]
        return lambda images: scorer(images, ["a cat"] * len(images))

    return get


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized")
    files = [folder / f"{width}x{height}.png" for width, height in SIZES]
    for file, size in zip(files, SIZES, strict=True):
        Image.new("RGB", size, (200, 120, 40)).save(file, compress_level=1)
    return files


@pytest.mark.parametrize("name", ["clip", "qwen2_5_vl"])
def test_any_size_is_scored_or_refused_by_name(name, scorer_of, sized):
    scores = scorer_of(name)(sized)
    refused = TOO_LONG if name == "qwen2_5_vl" else set()
    for file, valid, error in zip(sized, scores.valid.tolist(), scores.errors, strict=True):
        assert valid == (file.name not in refused), file
        if not valid:
            assert f"{file}: refused by the model's processor at {file.stem} (" in error
            assert "\n" not in error


@pytest.mark.parametrize("name", ["clip", "qwen2_5_vl", "gemma3", "mllama"])
def test_copies_in_a_batch_have_one_score(name, scorer_of, pictures):
    large, wide, small = pictures
    values = scorer_of(name)([large, wide, large, large, small, large]).values
    copies = values[[0, 2, 3, 5]]
    assert copies.max() - copies.min() <= 1e-6
    assert (values[1] - values[0]).abs() > 1e-5


@pytest.mark.parametrize("name", ["fake", "qwen2_5_vl"])
def test_any_mode_is_scored_or_refused(name, scorer_of):
    modes = [*MODES, *NO_WHITE]
    scores = scorer_of(name)([Image.new(mode, (30, 40)) for mode in modes])
    for mode, valid, error in zip(modes, scores.valid.tolist(), scores.errors, strict=True):
        assert valid == (mode in MODES), (mode, error)
        assert valid or "32-bit integers has no defined white" in error
