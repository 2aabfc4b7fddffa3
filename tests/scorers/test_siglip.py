import pytest
import torch
import transformers as tf
from judge_checks import PROMPTS, check_frame, check_gradient, check_half
from PIL import Image
from tiny_mllm import tokenizer

from cogguided._errors import UnknownNameError
from cogguided.scorers import load_scorer
from cogguided.scorers.base import TruncationWarning
from cogguided.scorers.models.siglip import SigLIPScorer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def build(folder, family):
    """A tiny random model of one of the two families, its processor beside it, as on the Hub."""
    torch.manual_seed(1)
    plain = family == "siglip"  # the other is Gemma's
    tok = tokenizer(*(("single", ["<|end|>"], "<|end|>") if plain else ("metaspace", ["<pad>", "<eos>"], "<eos>")))
    tok.padding_side = "right"
    tok.save_pretrained(folder)
    text = {**SIZES, "vocab_size": 512, "max_position_embeddings": 64, "projection_size": 32}
    if plain:
        config = tf.SiglipConfig(text_config=text, vision_config={**SIZES, "image_size": 32, "patch_size": 8})
        model, images = tf.SiglipModel(config), tf.SiglipImageProcessor(size={"height": 32, "width": 32})
    else:
        config = tf.Siglip2Config(text_config=text, vision_config={**SIZES, "num_patches": 16, "patch_size": 8})
        model, images = tf.Siglip2Model(config), tf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2) if parameter.ndim > 1 else None
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-1.0)
    model.save_pretrained(folder)
    images.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("siglip") / "model", "siglip")


def reference(folder, picture, prompt):
    """The pairwise probability of the paper, one pair at a time, in double precision."""
    model = tf.SiglipModel.from_pretrained(folder).double()
    tok = tf.AutoTokenizer.from_pretrained(folder)
    scaled = picture.resize((32, 32), Image.Resampling.BICUBIC)
    pixels = torch.tensor(list(scaled.get_flattened_data()), dtype=torch.float64).reshape(32, 32, 3) / 127.5 - 1
    ids = tok(prompt.lower())["input_ids"][:64]
    ids += [tok.pad_token_id] * (64 - len(ids))
    with torch.no_grad():
        image = model.vision_model(pixels.permute(2, 0, 1)[None]).pooler_output[0]
        text = model.text_model(torch.tensor([ids])).pooler_output[0]
        cosine = (image @ text) / (image.norm() * text.norm())
        return float(1 / (1 + torch.exp(-(model.logit_scale.exp() * cosine + model.logit_bias)))), float(cosine)


def test_it_is_the_published_formula(folder, pictures):
    prompts = [PROMPTS[0].upper(), *PROMPTS[1:]]
    expected = torch.tensor([reference(folder, i, p) for i, p in zip(pictures, prompts, strict=True)])
    probability, cosine = (SigLIPScorer.from_pretrained(folder, output=o) for o in ("probability", "cosine"))
    torch.testing.assert_close(probability(pictures, prompts).values, expected[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(cosine(pictures, prompts).values, expected[:, 1], atol=2e-4, rtol=0)
    assert (probability.low, probability.high, cosine.low, cosine.high) == (0, 1, -1, 1)


def test_frame_and_gradient(folder, pictures, tmp_path):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        judge = load_scorer("siglip", model=folder)
    check_frame(judge, pictures, tmp_path, atol=1e-4)
    check_half(SigLIPScorer.from_pretrained(folder, dtype=torch.bfloat16), judge, pictures)
    check_gradient(judge, pictures[0], atol=5e-2)


def test_naflex_keeps_shapes_and_batches(tmp_path, pictures):
    """SigLIP 2 NaFlex: pictures of their own aspect ratio, in patches, padded in a batch."""
    folder = build(tmp_path / "naflex", "siglip2")
    judge = SigLIPScorer.from_pretrained(folder, output="cosine")
    check_frame(judge, pictures, tmp_path, atol=1e-4)
    check_gradient(judge, pictures[0], atol=1e-1)
    model, tok = tf.Siglip2Model.from_pretrained(folder), tf.AutoTokenizer.from_pretrained(folder)
    words = tok(PROMPTS[:1], padding="max_length", max_length=64, truncation=True, return_tensors="pt")["input_ids"]
    seen = tf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)(pictures[0], return_tensors="pt")
    with torch.no_grad():
        expected = model(input_ids=words, **seen).logits_per_text
    scaled = model.logit_scale.exp() * judge(pictures[:1], PROMPTS[:1]).values + model.logit_bias
    torch.testing.assert_close(scaled.detach(), expected[0], atol=1e-4, rtol=0)


def test_truncation_and_loading(folder, pictures):
    judge = SigLIPScorer.from_pretrained(folder)
    with pytest.warns(TruncationWarning, match="reads 64 tokens"):
        judge(pictures[:1], ["very high " * 70])
    with pytest.raises(UnknownNameError, match="did you mean 'cosine'"):
        load_scorer("siglip", model=folder, output="cosin")
