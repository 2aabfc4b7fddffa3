"""The scripts that train the embedded model: what they compute must be what the library computes."""

import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from cogguided import CogGuidedPipeline
from cogguided.pipelines.embedded import embedded_path

SCRIPTS = Path(__file__).resolve().parent.parent / "examples" / "embedded"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    denormals = torch.tensor(1e-40) * 1 == 0
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = set(sys.modules)
    yield
    torch.set_flush_denormal(bool(denormals))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(SCRIPTS)):
            del sys.modules[name]


def noise(count, size=64):
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.manual_seed(0))


def test_patches_are_those_of_the_image_processor():
    from base_mllm import patches

    pixels = noise(3)
    pictures = [Image.fromarray(picture.numpy()) for picture in pixels]
    processor = AutoProcessor.from_pretrained(embedded_path() / "tokenizer").image_processor
    expected = processor(pictures, return_tensors="pt")["pixel_values"]
    got = patches((pixels.float() / 255).permute(0, 3, 1, 2)).flatten(0, 1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_latents_come_back_as_the_best_linear_approximation():
    from generator import pack, unpack
    from latents import decode, encode, fit

    # Pictures of few components: flat 8 x 8 blocks, which 48 components hold without loss.
    pixels = noise(8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    basis = fit(pixels)
    latents = encode(basis, pixels)
    assert latents.shape == (8, 48, 8, 8)
    real = (pixels.float() / 127.5 - 1).permute(0, 3, 1, 2)
    torch.testing.assert_close(decode(basis, latents), real, atol=2e-3, rtol=0)
    assert torch.equal(unpack(pack(latents)), latents)


def test_the_flat_convolution_is_the_causal_one_of_a_single_frame():
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
    from vae import flat_forward

    torch.manual_seed(0)
    layer = QwenImageCausalConv3d(3, 5, 3, padding=1)
    frame = torch.randn(2, 3, 1, 9, 9)
    torch.testing.assert_close(flat_forward(layer, frame), layer(frame), atol=1e-5, rtol=1e-5)


def test_halves_share_no_concept_and_span_the_ratings_alike():
    from data import Concept, halves

    votes = np.random.default_rng(0).integers(1, 60, (200, 3))
    rated = [Concept(chr(1000 + i), f"c{i}", "x", (), tuple(v)) for i, v in enumerate(votes.tolist())]
    first, second = halves(rated)
    assert len(first) == len(second) == 100
    assert not {c.char for c in first} & {c.char for c in second}
    means = [np.mean([c.valence for c in half]) for half in (first, second)]
    assert abs(means[0] - means[1]) < 0.05


def test_captions_leave_something_open_in_a_third():
    from captions import caption
    from data import Concept

    cry = Concept("x", "crying cat", "Smileys & Emotion", ("cry", "sad", "tear"), None)
    rng = random.Random(0)
    drawn = [caption(rng, cry, 0).lower() for _ in range(600)]
    named = sum("crying cat" in text for text in drawn) / len(drawn)
    assert 0.5 < named < 0.75
    assert {"a cat", "cat", "sad cat"} <= set(drawn)


def test_ratings_spread_by_words_and_look_at_no_rating_of_the_rest(tmp_path):
    from dataclasses import replace

    from data import Concept, lexicon, spread

    rng = np.random.default_rng(0)
    votes = {"sad": (80, 15, 5), "happy": (5, 15, 80)}
    rated = [
        Concept(chr(1000 + i), f"thing {i}", "x", (word, str(rng.integers(4))), votes[word])
        for i, word in enumerate(["sad", "happy"] * 20)
    ]
    new = [Concept("a", "tear", "x", ("sad",), (0, 0, 99)), Concept("b", "joy", "x", ("happy",), (99, 0, 0))]
    low, high = spread(rated, new, {})
    assert low < -1 < 1 < high
    np.testing.assert_array_equal(spread(rated, [replace(c, votes=None) for c in new], {}), (low, high))

    # A word that no emoji of the rated half has is known from the lexicon alone.
    unknown = [Concept("c", "scowl", "x", ("gloomy",), None), Concept("d", "grin", "x", ("merry",), None)]
    felt = {"sad": -2.1, "happy": 2.7, "gloomy": -2.0, "merry": 2.5}
    gloomy, merry = spread(rated, unknown, felt)
    assert gloomy < merry - 1
    assert np.ptp(spread(rated, unknown, {})) < 1e-9

    file = tmp_path / "lexicon" / "vaderSentiment" / "vader_lexicon.txt"
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"{word}\t{mean}\t0.5\t[]\n" for word, mean in felt.items()) + ":-)\t1.3\t0.5\t[]\n")
    halves = lexicon(tmp_path, 0), lexicon(tmp_path, 1)
    assert not halves[0].keys() & halves[1].keys()
    assert {**halves[0], **halves[1]} == felt


def test_an_open_word_stands_for_its_whole_family():
    from data import Concept
    from generator import Draws

    cats = [
        Concept(chr(i), name, "Smileys & Emotion", ("cat",), None)
        for i, name in enumerate(("grinning cat", "crying cat", "weary cat"))
    ]
    chosen = [*cats, Concept("x", "cat", "Animals & Nature", ("pet",), None)]
    draws = Draws(chosen, np.arange(4), np.zeros(4, int))
    rows, prompts = draws(4000)
    texts = np.array([text.lower() for text in prompts])
    shown = rows[np.isin(texts, ("cat", "a cat"))]
    shares = np.bincount(shown, minlength=4) / len(shown)
    assert 0.07 < shares[3] < shares[:3].min()  # smileys are drawn more often than a plain animal
    assert np.mean(texts == " ") == pytest.approx(0.1, abs=0.02)


def test_packing_gives_the_files_that_ship(tmp_path):
    import export

    from cogguided.pipelines.embedded.packed import PACKED, PLAIN, unpack

    weights = embedded_path()
    for part in ("transformer", "tokenizer"):
        shutil.copytree(weights / part, tmp_path / part)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / PLAIN).write_bytes(unpack(weights / "vae"))
    export.export(tmp_path)
    assert not (tmp_path / "vae" / PLAIN).exists()
    assert unpack(tmp_path / "vae") == unpack(weights / "vae")
    assert (tmp_path / "vae" / PACKED).read_bytes()[4:8] == bytes(4)  # gzip's time stamp
    for file in ("model_index.json", "cogguided.json", "tokenizer/tokenizer.json", f"transformer/{PACKED}"):
        assert (tmp_path / file).read_bytes() == (weights / file).read_bytes(), file


def test_what_is_zeroed_is_what_nothing_reads():
    from export import UNREAD

    pipe = CogGuidedPipeline.from_pretrained("embedded")
    pipe.set_progress_bar_config(disable=True)
    unread = [parameter for name, parameter in pipe.transformer.named_parameters() if name.startswith(UNREAD)]
    assert len(unread) == 8
    assert not any(parameter.any() for parameter in unread)
    arguments = {"prompt": "a face", "seed": 0, "num_inference_steps": 2, "output_type": "latent"}
    before = pipe(**arguments).images
    for parameter in unread:
        torch.nn.init.normal_(parameter)
    assert torch.equal(torch.as_tensor(pipe(**arguments).images), torch.as_tensor(before))
