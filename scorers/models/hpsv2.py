"""HPS v2: which image of a prompt would people prefer?

Wu et al. 2023, "Human Preference Score v2: A Solid Benchmark for Evaluating Human Preferences of Text-to-Image
Synthesis", arXiv 2306.09341. An open_clip ViT-H-14, fine-tuned on 798,000 choices of people.

Hub: ``xswu/HPSv2``, files ``HPS_v2_compressed.pt`` (2.0) and ``HPS_v2.1_compressed.pt`` (2.1), which are published as
pickles only and are read as plain tensors (``weights_only=True``). Licence: Apache-2.0, commercial use included.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch

from ..._errors import unknown_name
from .clip import CLIPScorer
from .parts.files import fill, find_file, place_for, read_weights
from .parts.judge import Judge, Judged, Pictures
from .parts.pixels import clip_batch, long_side_pad

HUB = "xswu/HPSv2"
FILES = {"2.1": "HPS_v2.1_compressed.pt", "2.0": "HPS_v2_compressed.pt"}


class HPSv2Scorer(Judge):
    """Cosine of image and prompt; higher is preferred more.

    In principle -1 to 1; `low` and `high`, 0.15 and 0.4, are about what generated images get (the authors' tables
    have 100 times the means of models: 14 to 33), and are what a target brings to 0 and 1; values outside are not
    clamped. Values of different prompts, or of the versions 2.0 and 2.1, do not compare. The whole image is seen,
    its longer side scaled to 224 and the rest black, as the authors do. A prompt is read to 77 tokens, marks
    included; a longer one is scored by its beginning, with a warning. Gradients reach image tensors.

    The authors score in half precision on a GPU; here it is float32 unless `dtype` says otherwise. Their resizing is
    that of torchvision on tensors, which smoothes (antialias) only since its version 0.17; here it does.

    Make one with `from_pretrained`.
    """

    name = "hpsv2"
    low = 0.15
    high = 0.4
    needs_prompt = True

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 32) -> None:
        """Take an open_clip model and its tokenizer."""
        super().__init__(model, batch_size)
        self.texts = CLIPScorer(model, None, tokenizer, self.name, batch_size)
        size = model.visual.image_size
        self.side: int = size[0] if isinstance(size, tuple) else size

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = HUB,
        version: str = "2.1",
        architecture: str = "ViT-H-14",
        batch_size: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> HPSv2Scorer:
        """Load one of the authors' files.

        Args:
            model: Hub name, or folder, that has the file of this version (or it as safetensors), or the file.
            version: "2.1" or "2.0".
            architecture: name of an open_clip model.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32.

        Raises:
            UnknownNameError: another version, or no such architecture.
            ModelError: the file is not there, or holds other weights.

        Executed examples are in ``tests/scorers/test_hpsv2.py``.
        """
        if version not in FILES:
            raise unknown_name("version of hpsv2", version, FILES)
        if architecture not in open_clip.list_models():
            raise unknown_name("open_clip model", architecture, open_clip.list_models())
        names = [FILES[version].replace(".pt", ".safetensors"), FILES[version]]
        file = find_file(model, names[:: -1 if model == HUB else 1], f"the weights of HPS v{version}")
        with torch.inference_mode(False):
            sizes = open_clip.get_model_config(architecture)
            network = open_clip.CLIP(**{part: sizes[part] for part in ("embed_dim", "vision_cfg", "text_cfg")})
            fill(network, read_weights(file, inside="state_dict"), file)
            network = network.to(place_for(device), dtype or torch.float32)
        return cls(network, open_clip.get_tokenizer(architecture), batch_size)

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Return pixels and texts."""
        return clip_batch(pictures, self.side, long_side_pad).to(self.device, self.dtype), texts

    def judge(self, inputs: Any) -> Judged:
        """Compare."""
        pixels, texts = inputs
        features = self.model.encode_image(pixels, normalize=True).float()
        return Judged((features * self.texts.encode_texts(texts)).sum(dim=-1))
