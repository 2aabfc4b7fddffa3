"""ImageReward: how much would people prefer this image for its prompt?

Xu et al. 2023, "ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation",
arXiv 2304.05977: a BLIP (ViT-L at 224 pixels, its text encoder looking at the image), five linear layers on the
vector of its first token, and a normalisation to mean 0 and spread 1 over the authors' data; learnt from 137,000
choices of experts.

Hub: ``THUDM/ImageReward``, files ``ImageReward.pt`` (1.8 GB), which is published as a pickle only and is read as
plain tensors (``weights_only=True``), and ``med_config.json``; the tokenizer is ``bert-base-uncased``'s. Licence:
Apache-2.0, commercial use included. The network is built of transformers' BLIP.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, BlipTextConfig, BlipVisionConfig, BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from ..._errors import ModelError
from ..base import warn_of_truncation
from .parts.files import fill, find_file, place_for, read_weights
from .parts.judge import Judge, Judged, Pictures
from .parts.pixels import clip_batch, short_side_crop

HUB = "THUDM/ImageReward"
MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output over the authors' data: the published normalisation."""
LENGTH = 35
"""Tokens of a prompt that are read, marks included."""
_HEAD_WIDTH = 64  # of ViT-B and ViT-L
_VISION = (
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj", "embeddings.patch_embedding"),
    (r"blocks\.(\d+)\.attn\.qkv", r"encoder.layers.\1.self_attn.qkv"),
    (r"blocks\.(\d+)\.attn\.proj", r"encoder.layers.\1.self_attn.projection"),
    (r"blocks\.(\d+)\.norm", r"encoder.layers.\1.layer_norm"),
    (r"blocks\.(\d+)\.mlp", r"encoder.layers.\1.mlp"),
    (r"norm\.", "post_layernorm."),
)


class ImageRewardScorer(Judge):
    """A standard score: 0 is the mean of the authors' data, 1 one standard deviation; higher is preferred more.

    There is no fixed range: `low` and `high`, -2.5 and 2.5, are about what images get, and are what a target brings
    to 0 and 1; values outside are not clamped. A prompt is read to 35 tokens, marks included; a longer one is scored
    by its beginning, with a warning. The shorter side is scaled to 224 and the middle seen. Gradients reach image
    tensors.

    Make one with `from_pretrained`.
    """

    name = "imagereward"
    low = -2.5
    high = 2.5
    needs_prompt = True

    def __init__(self, network: nn.Module, tokenizer: Any, batch_size: int = 32) -> None:
        """Take the network, with parts `visual_encoder`, `text_encoder` and `mlp`, and its tokenizer."""
        super().__init__(network, batch_size)
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = HUB,
        tokenizer: str | Path = "bert-base-uncased",
        batch_size: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> ImageRewardScorer:
        """Load the authors' files.

        Args:
            model: Hub name or folder with ``ImageReward.pt`` (or it as safetensors) and ``med_config.json``.
            tokenizer: folder or Hub name of BERT's tokenizer, unless the folder `model` has it.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32; the head is float32.

        Raises:
            ModelError: a file is not there, or holds something else.

        Executed examples are in ``tests/scorers/test_imagereward.py``.
        """
        config = find_file(model, ["med_config.json"], "the text encoder's sizes")
        names = ["ImageReward.pt", "ImageReward.safetensors"]
        file = find_file(model, names if model == HUB else names[::-1], "the weights")
        home = model if (Path(model) / "tokenizer_config.json").is_file() else tokenizer
        try:
            words = AutoTokenizer.from_pretrained(home)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"{home}: no usable tokenizer ({type(error).__name__}: {error})") from error
        with torch.inference_mode(False):  # weights made inside it never pass a gradient on
            network = _build(read_weights(file), config, file).to(place_for(device), dtype or torch.float32)
            network["mlp"].float()
        return cls(network, words, batch_size)

    def check_texts(self, texts: Sequence[str]) -> None:
        """Warn of prompts beyond 35 tokens."""
        for text in texts:
            if len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"]) > LENGTH:
                warn_of_truncation(
                    f"{self.name}: the model reads {LENGTH} tokens of a prompt; "
                    f"the end of {text[:60]!r}... is not seen"
                )

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Return pixels, and tokens padded to their full length."""
        side: int = self.model["visual_encoder"].config.image_size
        pixels = clip_batch(pictures, side, short_side_crop).to(self.device, self.dtype)
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        )
        return pixels, tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)

    def judge(self, inputs: Any) -> Judged:
        """Let the prompt look at the image, and rate what its first token has seen."""
        pixels, ids, mask = inputs
        seen = self.model["visual_encoder"](pixel_values=pixels).last_hidden_state
        read = self.model["text_encoder"](ids, attention_mask=mask, encoder_hidden_states=seen).last_hidden_state
        reward = self.model["mlp"](read[:, 0].float())[:, 0]
        return Judged((reward - MEAN) / STD)


def _build(weights: Mapping[str, torch.Tensor], config: Path, file: Path) -> nn.ModuleDict:
    """Build the network of the sizes that its weights and the text encoder's config have.

    Raises:
        ModelError: weights or sizes of something else.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {"visual_encoder": {}, "text_encoder": {}, "mlp": {}}
    for name, tensor in weights.items():
        for part, of in parts.items():
            start = "mlp.layers." if part == "mlp" else f"blip.{part}."
            if name.startswith(start):
                of[name.removeprefix(start)] = tensor
    vision = _renamed(parts["visual_encoder"])
    try:
        table = vision["embeddings.position_embedding"]
        patch = vision["embeddings.patch_embedding.weight"].shape[-1]
        width = table.shape[-1]
        depth = 1 + max(int(name.split(".")[2]) for name in vision if name.startswith("encoder.layers."))
        sizes = json.loads(config.read_text(encoding="utf-8"))
        text = BlipTextConfig(
            **{key: sizes[key] for key in _TEXT_SIZES},
            encoder_hidden_size=width,
            bos_token_id=None,
            sep_token_id=None,
            eos_token_id=None,
        )
    except (KeyError, ValueError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ModelError(f"{file}, {config.name}: not those of ImageReward ({what})") from error
    look = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=vision["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=depth,
        num_attention_heads=max(1, width // _HEAD_WIDTH),
        image_size=patch * round((table.shape[1] - 1) ** 0.5),
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    network = nn.ModuleDict(
        {
            "visual_encoder": BlipVisionModel(look),
            "text_encoder": BlipTextModel(text, add_pooling_layer=False),
            "mlp": _mlp(parts["mlp"]),
        }
    )
    fill(network["visual_encoder"], vision, file)
    fill(network["text_encoder"], parts["text_encoder"], file, spare=["embeddings.position_ids"])
    fill(network["mlp"], parts["mlp"], file)
    return network


_TEXT_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "max_position_embeddings",
    "layer_norm_eps",
    "vocab_size",
    "hidden_act",
    "pad_token_id",
)


def _renamed(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The image encoder's weights by their names in transformers."""
    found = {}
    for name, tensor in weights.items():
        new = name
        for pattern, by in _VISION:
            new, times = re.subn("^" + pattern, by, name)
            if times:
                break
        found[new] = tensor
    return found


def _mlp(weights: Mapping[str, torch.Tensor]) -> nn.Sequential:
    """Linear layers in the places that they have in the file, with nothing between them: dropout is of training."""
    shapes = {int(n.split(".")[0]): w.shape for n, w in weights.items() if n.endswith(".weight")}
    return nn.Sequential(
        *(
            nn.Linear(shapes[place][1], shapes[place][0]) if place in shapes else nn.Identity()
            for place in range(max(shapes, default=-1) + 1)
        )
    )
