import json
import warnings

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_mllm import tokenizer

from cogguided._errors import InputError, ModelError, UnknownNameError
from cogguided.scorers import load_scorer
from cogguided.scorers.images import to_tensor
from cogguided.scorers.models.clip import CLIPScorer

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 512,
            "width": 32,
            "heads": 2,
            "layers": 1,
            "hf_tokenizer_name": ".",
        },
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
PROMPTS = ["a low picture", "very high", "a positive picture"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random CLIP as a folder in open_clip's local-dir layout."""
    path = tmp_path_factory.mktemp("clip") / "model"
    tok = tokenizer("single", ["<|end|>"], "<|end|>")
    tok.padding_side = "right"
    tok.save_pretrained(path)
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def scorer(folder):
    return CLIPScorer.from_pretrained(folder)


def test_the_score_is_open_clips_cosine(folder, scorer, pictures):
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS)
    with torch.no_grad():
        image = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]))
        text = model.encode_text(tokens)
    expected = torch.cosine_similarity(image, text)
    scores = scorer(pictures, PROMPTS)
    torch.testing.assert_close(scores.values, expected)
    assert scorer.low <= scores.values.min()
    assert scorer.high >= scores.values.max()


def test_batches_equal_singles(scorer, pictures):
    singles = torch.cat([scorer([i], [p]).values for i, p in zip(pictures, PROMPTS, strict=True)])
    small = CLIPScorer(scorer.model, scorer.preprocess, scorer.tokenizer, batch_size=2)
    torch.testing.assert_close(small(pictures, PROMPTS).values, singles, atol=1e-6, rtol=0)


def test_broken_images_and_tensors_that_are_not_finite(scorer, pictures, tmp_path):
    scores = scorer([pictures[0], tmp_path / "missing.png"], PROMPTS[:2])
    assert scores.valid.tolist() == [True, False]
    assert "missing.png" in scores.errors[1]
    assert scorer([tmp_path / "missing.png"], ["x"]).num_invalid == 1
    tensor = torch.rand(2, 3, 32, 32)
    tensor[0, 0, 0, 0] = torch.nan
    assert scorer(tensor, PROMPTS[:2]).valid.tolist() == [False, True]
    assert len(scorer([], [])) == 0


def test_gradients_reach_the_pixels_and_agree_with_pictures(scorer, pictures):
    tensor = to_tensor([pictures[0]]).requires_grad_()
    scores = scorer(tensor, PROMPTS[:1])
    torch.testing.assert_close(scores.values.detach(), scorer(pictures[:1], PROMPTS[:1]).values, atol=5e-3, rtol=0)
    scores.values.sum().backward()
    assert tensor.grad.abs().sum() > 0
    assert not scorer(pictures[:1], PROMPTS[:1]).values.requires_grad
    assert all(parameter.grad is None for parameter in scorer.model.parameters())


def test_the_gradient_is_there_after_inference_mode(folder, scorer):
    with torch.inference_mode():
        late = CLIPScorer.from_pretrained(folder)
        late(torch.rand(1, 3, 32, 32), PROMPTS[:1])
    gradients = []
    for one in (late, scorer):
        pixels = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
        gradients.append(*torch.autograd.grad(one(pixels, PROMPTS[:1]).values.sum(), pixels))
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_a_gradient_step_raises_the_score(scorer):
    tensor = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    before = scorer(tensor, PROMPTS[:1]).values
    before.sum().backward()
    after = scorer((tensor + 0.01 * tensor.grad.sign()).detach(), PROMPTS[:1]).values
    assert after > before


def test_a_prompt_beyond_the_context_is_not_cut_in_silence(scorer, pictures):
    long = "very " * 40
    with pytest.warns(UserWarning, match="reads 16 tokens"):
        cut = scorer(pictures[:1], [long]).values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(cut, scorer(pictures[:1], [long + "low"]).values)


@pytest.mark.parametrize("prompts", [None, ["one"], "a string"])
def test_it_wants_one_prompt_an_image(scorer, pictures, prompts):
    with pytest.raises(InputError, match="prompts"):
        scorer(pictures, prompts)


def test_features_are_unit_vectors(scorer, pictures):
    torch.testing.assert_close(scorer.encode_images(pictures).norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(scorer.encode_texts(["a", "b", "a"]).norm(dim=-1), torch.ones(3))


def test_loading(folder, tmp_path):
    assert load_scorer(folder).needs_prompt
    assert load_scorer("open_clip", model=folder, batch_size=2).batch_size == 2
    with pytest.raises(InputError, match="brings its own weights"):
        CLIPScorer.from_pretrained(folder, pretrained="openai")
    with pytest.raises(UnknownNameError, match="did you mean 'ViT-B-32"):
        CLIPScorer.from_pretrained("ViT-B32")
    with pytest.raises(ModelError, match="laion2b_s34b_b79k"):
        CLIPScorer.from_pretrained("ViT-B-32")
    with pytest.raises(ModelError, match="not a safetensors file"):
        CLIPScorer.from_pretrained("ViT-B-32", pretrained="weights.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    torch.save({}, tmp_path / "open_clip_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        CLIPScorer.from_pretrained(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded by open_clip"):
        CLIPScorer.from_pretrained(tmp_path)


def test_a_built_in_name_with_a_file_of_weights(tmp_path, monkeypatch):
    (tmp_path / "tiny-clip.json").write_text(
        json.dumps(
            CONFIG["model_cfg"]
            | {"text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}
        )
    )
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    weights = open_clip.create_model("tiny-clip").state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    scorer = CLIPScorer.from_pretrained("tiny-clip", pretrained=str(tmp_path / "weights.safetensors"))
    assert scorer([Image.new("RGB", (8, 8))], ["a cat"]).valid.all()


def test_a_long_prompt_is_read_to_the_end_mark(pictures):
    """The embedded model pools at its end mark, which a full row of tokens had none of: the first was taken."""
    clip = load_scorer("clip")
    joyful = "a happy yellow smiley face with a very big wide grin and two rosy cheeks and sparkling eyes in the sun"
    mournful = "a sad black funeral coffin on a cold grey rainy day with bare trees and dark clouds and a tear in it"
    with pytest.warns(UserWarning, match="is not seen"):
        features = clip.encode_texts([joyful, mournful])
    assert features[0] @ features[1] < 0.95
    assert (clip._tokenize([joyful, "a face"]) == clip._end).any(dim=1).all()


def test_truncation_is_told_from_the_first_token_that_is_cut():
    clip = load_scorer("clip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.encode_texts(["a" + " cat" * 22])  # 23 tokens and the end mark
    with pytest.warns(UserWarning, match="reads 24 tokens"):
        clip.encode_texts(["a" + " cat" * 23])
