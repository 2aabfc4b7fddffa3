import json

import open_clip
import pytest
import torch
from judge_checks import check_frame, check_gradient, check_half
from safetensors.torch import save_file
from tiny_mllm import tokenizer
from torchvision.transforms.functional import normalize, to_tensor

from cogguided._errors import InputError, ModelError
from cogguided.scorers import load_scorer
from cogguided.scorers.models.clip import CLIPScorer
from cogguided.scorers.models.clip_iqa import CLIPIQAScorer

CONFIG = {
    "model_cfg": {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 512,
            "width": 32,
            "heads": 2,
            "layers": 1,
            "hf_tokenizer_name": ".",
        },
    },
    "preprocess_cfg": {},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random CLIP with a ResNet, as a folder in open_clip's layout."""
    path = tmp_path_factory.mktemp("rn") / "model"
    tok = tokenizer("single", ["<|end|>"], "<|end|>")
    tok.padding_side = "right"
    tok.save_pretrained(path)
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.fill_(1.0)  # is nought at the start, which would leave each block without effect
            elif "conv" in name:
                parameter.mul_(2.0)
        model.logit_scale.fill_(3.0)
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def large(pictures):
    return [picture.resize((picture.width + 40, picture.height + 24)) for picture in pictures]


def reference(folder, picture, pair):
    """The last layer by hand: the mean asks, mean and places answer, no place has a position; in double."""
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model = model.eval().double()
    pixels = normalize(
        to_tensor(picture).double(), (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    )
    visual, pool = model.visual, model.visual.attnpool
    with torch.no_grad():
        x = visual.stem(pixels[None])
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
        places = x[0].flatten(1).T
        tokens = torch.cat([places.mean(dim=0, keepdim=True), places])
        heads = []
        width = tokens.shape[1] // pool.num_heads
        q, k, v = pool.q_proj(tokens[:1]), pool.k_proj(tokens), pool.v_proj(tokens)
        for head in range(pool.num_heads):
            part = slice(head * width, (head + 1) * width)
            weights = (q[:, part] @ k[:, part].T / width**0.5).softmax(dim=-1)
            heads.append(weights @ v[:, part])
        image = pool.c_proj(torch.cat(heads, dim=1))[0]
        texts = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(list(pair)))
        good, bad = (model.logit_scale.exp() * (image @ t) / image.norm() / t.norm() for t in texts)
        return float(good.exp() / (good.exp() + bad.exp()))


@pytest.mark.parametrize("pair", [("Good photo.", "Bad photo."), ("Happy photo.", "Sad photo.")])
def test_it_is_the_published_formula(folder, large, pair):
    expected = torch.tensor([reference(folder, picture, pair) for picture in large])
    got = CLIPIQAScorer.from_pretrained(folder, pair=pair)(large).values
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_frame_and_gradient(folder, large, tmp_path):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        judge = load_scorer("clip_iqa", model=folder)
    check_frame(judge, large, tmp_path, atol=1e-4)
    check_half(CLIPIQAScorer.from_pretrained(folder, dtype=torch.bfloat16), judge, large)
    check_gradient(judge, large[0], atol=1e-4)


def test_images_of_one_size_and_others_come_back_in_order(folder, large):
    judge = CLIPIQAScorer.from_pretrained(folder)
    mixed = [large[0], large[1], large[0].transpose(0), large[2], large[1].transpose(0)]
    singles = torch.cat([judge([picture]).values for picture in mixed])
    torch.testing.assert_close(judge(mixed).values, singles, atol=1e-4, rtol=0)


def test_what_it_does_not_take(folder, large):
    judge = CLIPIQAScorer.from_pretrained(folder)
    scores = judge([large[0].resize((300, 20)), large[1]])
    assert scores.valid.tolist() == [False, True]
    assert "refused by the model (a side is shorter than 32 pixels)" in scores.errors[0]
    with pytest.raises(InputError, match="two opposite prompts"):
        CLIPIQAScorer.from_pretrained(folder, pair="Good photo.")
    with pytest.raises(ModelError, match="takes a CLIP with a ResNet"):
        CLIPIQAScorer(load_scorer("clip"))
    assert isinstance(CLIPScorer.from_pretrained(folder), CLIPScorer)
    assert "openai" in open_clip.list_pretrained_tags_by_model("RN50-quickgelu")
