"""LAION's aesthetic predictors: how much would people like this image, on a scale of 1 to 10?

Version 2, Schuhmann 2022, "CLIP+MLP Aesthetic Score Predictor"
(github.com/christophschuhmann/improved-aesthetic-predictor): five linear layers without activations on the unit
vector of OpenAI's CLIP ViT-L/14, learnt from ratings of SAC, of logos, and of AVA. Version 1
(github.com/LAION-AI/aesthetic-predictor): one linear layer on the same.

Weights: ``sac+logos+ava1-l14-linearMSE.pth`` and ``sa_0_4_vit_l_14_linear.pth`` of these repositories, which are
published as pickles only and are read as plain tensors (``weights_only=True``); ``openai/clip-vit-large-patch14``
on the Hub. Licence: Apache-2.0 (version 2), MIT (version 1), MIT (OpenAI's CLIP); commercial use included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from torch import nn
from transformers import CLIPVisionModelWithProjection

from ..._errors import ModelError, unknown_name
from .parts.dual import load_network
from .parts.files import fetch_file, fill, find_file, place_for, read_weights
from .parts.judge import Judge, Judged, Pictures
from .parts.pixels import clip_batch, short_side_crop

CLIP = "openai/clip-vit-large-patch14"
_GITHUB = "https://github.com/{}/raw/main/{}"
HEADS = {
    "v2": ("christophschuhmann/improved-aesthetic-predictor", "sac+logos+ava1-l14-linearMSE.pth"),
    "v1": ("LAION-AI/aesthetic-predictor", "sa_0_4_vit_l_14_linear.pth"),
}
"""Of each version the authors' repository and file."""


class LAIONAestheticScorer(Judge):
    """Predicted mean rating, 1 to 10 (version 1: 0 to 10); higher is liked more. It looks at no prompt.

    A rating is a free number: few images leave 3 to 8, and one that leaves the range is not clamped. Gradients
    reach image tensors.

    Make one with `from_pretrained`.
    """

    name = "laion_aesthetic"
    low = 1.0
    high = 10.0

    def __init__(self, clip: Any, head: nn.Module, version: str = "v2", batch_size: int = 32) -> None:
        """Take a CLIP image encoder of transformers and the head on its unit vectors."""
        super().__init__(nn.ModuleDict({"clip": clip, "head": head}), batch_size)
        self.version = version
        self.low = 1.0 if version == "v2" else 0.0
        self.side: int = clip.config.image_size

    @classmethod
    def from_pretrained(
        cls,
        head: str | Path | None = None,
        version: str = "v2",
        clip: str | Path = CLIP,
        batch_size: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> LAIONAestheticScorer:
        """Load the head and the image encoder.

        Args:
            head: the authors' file, a folder that has it, or a Hub repository that does; default: from the
                authors' address on GitHub, kept in torch's cache.
            version: "v2" or "v1".
            clip: folder or Hub name of the CLIP that the head was learnt on.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: of the image encoder, default: float32; the head is float32.

        Raises:
            UnknownNameError: another version.
            ModelError: a part cannot be loaded, or they do not fit each other.

        Executed examples are in ``tests/scorers/test_laion_aesthetic.py``.
        """
        if version not in HEADS:
            raise unknown_name("version of laion_aesthetic", version, HEADS)
        repository, name = HEADS[version]
        safe = name.replace(".pth", ".safetensors")
        file = fetch_file(_GITHUB.format(repository, quote(name))) if head is None else find_file(
            head, [safe, name], f"the head of version {version[1:]}"
        )
        weights = read_weights(file)
        with torch.inference_mode(False):  # weights made inside it never pass a gradient on
            layers = _layers(weights, version, file)
            fill(layers, weights, file)
            layers = layers.to(place_for(device), torch.float32)
        encoder = load_network(CLIPVisionModelWithProjection, clip, device, dtype)
        width = next(module.in_features for module in layers.modules() if isinstance(module, nn.Linear))
        if width != encoder.config.projection_dim:
            raise ModelError(
                f"{file}: made for vectors of {width} numbers, and {clip} gives {encoder.config.projection_dim}"
            )
        return cls(encoder, layers, version, batch_size)

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Return pixels as OpenAI's CLIP wants them."""
        return clip_batch(pictures, self.side, short_side_crop).to(self.device, self.dtype)

    def judge(self, inputs: Any) -> Judged:
        """Run encoder and head."""
        features = self.model["clip"](pixel_values=inputs).image_embeds.float()
        return Judged(self.model["head"](nn.functional.normalize(features, dim=-1))[:, 0])


class _Rater(nn.Module):
    """Version 2: linear layers and, in their places in training, dropout."""

    def __init__(self, sizes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        at = {index: nn.Linear(wide, narrow) for index, wide, narrow in sizes}
        self.layers = nn.Sequential(*(at.get(index, nn.Identity()) for index in range(max(at) + 1)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        rated: torch.Tensor = self.layers(features)
        return rated


def _layers(weights: dict[str, torch.Tensor], version: str, file: Path) -> nn.Module:
    """The head of a version, of the sizes that its weights have.

    Raises:
        ModelError: weights of something else.
    """
    if version == "v1":
        if weights.keys() != {"weight", "bias"} or weights["weight"].ndim != 2:
            raise ModelError(f"{file}: expected 'weight' and 'bias' of one linear layer, got {sorted(weights)[:4]}")
        return nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
    places = [name.split(".")[1] for name in weights if name.startswith("layers.") and name.endswith(".weight")]
    if not places or not all(place.isdigit() for place in places):
        raise ModelError(f"{file}: expected 'layers.0.weight' and so on, got {sorted(weights)[:4]}")
    shapes = {int(place): weights[f"layers.{place}.weight"].shape for place in places}
    return _Rater([(index, shape[1], shape[0]) for index, shape in sorted(shapes.items())])
