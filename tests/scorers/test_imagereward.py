import json

import pytest
import torch
import transformers as tf
from judge_checks import PROMPTS, check_frame, check_gradient, check_half
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import gelu, layer_norm
from torchvision import transforms

from cogguided._errors import ModelError
from cogguided.scorers import load_scorer
from cogguided.scorers.base import TruncationWarning
from cogguided.scorers.models.imagereward import ImageRewardScorer

VISION, TEXT, LAYERS, PATCH, SIDE = 128, 32, 2, 8, 32
NORMS = ("norm1.weight", "norm2.weight", "norm.weight", "Norm.weight")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "very", "high", "low", "medium", "picture", "of"]


def shapes():
    """Names and shapes of the published file, which are those of BLIP's own code, at tiny size."""
    found = {"cls_token": (1, 1, VISION), "pos_embed": (1, (SIDE // PATCH) ** 2 + 1, VISION)}
    found |= {"patch_embed.proj.weight": (VISION, 3, PATCH, PATCH), "patch_embed.proj.bias": (VISION,)}
    for layer in range(LAYERS):
        at = f"blocks.{layer}."
        for name, wide, narrow in (("attn.qkv", VISION, 3 * VISION), ("attn.proj", VISION, VISION)):
            found |= {at + name + ".weight": (narrow, wide), at + name + ".bias": (narrow,)}
        found |= {at + "mlp.fc1.weight": (96, VISION), at + "mlp.fc1.bias": (96,)}
        found |= {at + "mlp.fc2.weight": (VISION, 96), at + "mlp.fc2.bias": (VISION,)}
        for norm in ("norm1", "norm2"):
            found |= {f"{at}{norm}.weight": (VISION,), f"{at}{norm}.bias": (VISION,)}
    found |= {"norm.weight": (VISION,), "norm.bias": (VISION,)}
    found = {"blip.visual_encoder." + name: shape for name, shape in found.items()}
    text = {"embeddings.word_embeddings.weight": (len(WORDS), TEXT)}
    text |= {"embeddings.position_embeddings.weight": (40, TEXT)}
    norms = ["embeddings"]
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}."
        for block, seen in (("attention", TEXT), ("crossattention", VISION)):
            for name, wide in (("query", TEXT), ("key", seen), ("value", seen)):
                text |= {f"{at}{block}.self.{name}.weight": (TEXT, wide), f"{at}{block}.self.{name}.bias": (TEXT,)}
            text |= {f"{at}{block}.output.dense.weight": (TEXT, TEXT), f"{at}{block}.output.dense.bias": (TEXT,)}
            norms.append(f"{at}{block}.output")
        text |= {at + "intermediate.dense.weight": (48, TEXT), at + "intermediate.dense.bias": (48,)}
        text |= {at + "output.dense.weight": (TEXT, 48), at + "output.dense.bias": (TEXT,)}
        norms.append(at + "output")
    for norm in norms:
        text |= {norm + ".LayerNorm.weight": (TEXT,), norm + ".LayerNorm.bias": (TEXT,)}
    found |= {"blip.text_encoder." + name: shape for name, shape in text.items()}
    for place, wide, narrow in ((0, TEXT, 24), (2, 24, 16), (4, 16, 12), (6, 12, 8), (7, 8, 1)):
        found |= {f"mlp.layers.{place}.weight": (narrow, wide), f"mlp.layers.{place}.bias": (narrow,)}
    found |= {"blip.vision_proj.weight": (4, VISION), "blip.vision_proj.bias": (4,)}
    return found | {"blip.text_proj.weight": (4, TEXT), "blip.text_proj.bias": (4,)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("reward")
    torch.manual_seed(0)
    weights = {
        name: torch.randn(shape) * (0.1 if VISION in shape else 0.3) + (1.0 if name.endswith(NORMS) else 0)
        for name, shape in shapes().items()
    }
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]  # a buffer of the authors' time
    torch.save(weights, home / "ImageReward.pt")
    sizes = {"hidden_size": TEXT, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": LAYERS}
    sizes |= {"max_position_embeddings": 40, "layer_norm_eps": 1e-12, "vocab_size": len(WORDS), "hidden_act": "gelu"}
    sizes |= {"pad_token_id": 0, "encoder_width": 999, "add_cross_attention": True, "hidden_dropout_prob": 0.1}
    (home / "med_config.json").write_text(json.dumps(sizes))
    tf.BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(home)
    return home


def reference(folder, picture, prompt):
    """ViT and BERT by hand from the authors' names, one image at a time, in double precision, without padding."""
    w = {k: v.double() for k, v in torch.load(folder / "ImageReward.pt").items()}

    def linear(name, x):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(name, x, eps):
        return layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], eps)

    def attend(q, k, v, heads):
        width = q.shape[-1] // heads
        parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
        return torch.cat([(q[:, p] @ k[:, p].T / width**0.5).softmax(-1) @ v[:, p] for p in parts], dim=-1)

    see = [transforms.Resize(SIDE, interpolation=Image.BICUBIC), transforms.CenterCrop(SIDE), transforms.ToTensor()]
    pixels = transforms.Compose(see)(picture).double()
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    pixels = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    at = "blip.visual_encoder."
    cells = pixels.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    x = cells @ w[at + "patch_embed.proj.weight"].flatten(1).T + w[at + "patch_embed.proj.bias"]
    x = torch.cat([w[at + "cls_token"][0], x]) + w[at + "pos_embed"][0]
    for layer in range(LAYERS):
        block = f"{at}blocks.{layer}."
        q, k, v = linear(block + "attn.qkv", norm(block + "norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + linear(block + "attn.proj", attend(q, k, v, VISION // 64))
        x = x + linear(block + "mlp.fc2", gelu(linear(block + "mlp.fc1", norm(block + "norm2", x, 1e-6))))
    seen = norm(at + "norm", x, 1e-6)
    at = "blip.text_encoder."
    ids = tf.AutoTokenizer.from_pretrained(folder)(prompt)["input_ids"]
    ids = [*ids[:-1][:34], ids[-1]]
    y = w[at + "embeddings.word_embeddings.weight"][ids] + w[at + "embeddings.position_embeddings.weight"][: len(ids)]
    y = norm(at + "embeddings.LayerNorm", y, 1e-12)
    for layer in range(LAYERS):
        block = f"{at}encoder.layer.{layer}."
        for name in ("attention", "crossattention"):
            source = y if name == "attention" else seen
            asked = {"query": y, "key": source, "value": source}
            q, k, v = (linear(f"{block}{name}.self.{part}", of) for part, of in asked.items())
            mixed = linear(f"{block}{name}.output.dense", attend(q, k, v, 2))
            y = norm(f"{block}{name}.output.LayerNorm", y + mixed, 1e-12)
        wide = gelu(linear(block + "intermediate.dense", y))
        y = norm(block + "output.LayerNorm", y + linear(block + "output.dense", wide), 1e-12)
    z = y[0]
    for place in (0, 2, 4, 6, 7):
        z = linear(f"mlp.layers.{place}", z)
    return float((z - 0.16717362830052426) / 1.0333394966054072)


@pytest.fixture(scope="module")
def judge(folder):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        return ImageRewardScorer.from_pretrained(folder)


def test_it_is_the_published_formula(folder, judge, pictures):
    prompts = [*PROMPTS[:2], "a very high picture of " * 12]
    expected = torch.tensor([reference(folder, i, p) for i, p in zip(pictures, prompts, strict=True)])
    with pytest.warns(TruncationWarning, match="reads 35 tokens"):
        got = judge(pictures, prompts).values
    torch.testing.assert_close(got, expected, atol=5e-4, rtol=0)  # 1e-4 of 5


def test_frame_and_gradient(folder, judge, pictures, tmp_path):
    check_frame(judge, pictures, tmp_path, atol=5e-4)
    check_half(ImageRewardScorer.from_pretrained(folder, dtype=torch.bfloat16), judge, pictures)
    check_gradient(judge, pictures[0], atol=0.2)


def test_loading(folder, judge, tmp_path, pictures):
    weights = torch.load(folder / "ImageReward.pt")
    save_file(weights, tmp_path / "ImageReward.safetensors")
    for name in ("med_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    same = load_scorer("imagereward", model=tmp_path)
    torch.testing.assert_close(same(pictures, PROMPTS).values, judge(pictures, PROMPTS).values)
    save_file({n: t for n, t in weights.items() if "norm1" not in n}, tmp_path / "ImageReward.safetensors")
    with pytest.raises(ModelError, match=r"4 weights are missing, such as 'encoder.layers.0.layer_norm1"):
        ImageRewardScorer.from_pretrained(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "ImageReward.safetensors")
    with pytest.raises(ModelError, match="not those of ImageReward"):
        ImageRewardScorer.from_pretrained(tmp_path)
    (tmp_path / "med_config.json").unlink()
    with pytest.raises(ModelError, match="the text encoder's sizes not found"):
        ImageRewardScorer.from_pretrained(tmp_path)
