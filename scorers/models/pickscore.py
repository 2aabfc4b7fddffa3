"""PickScore: which image of a prompt would people pick?

Kirstain et al. 2023, "Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation",
arXiv 2305.01569. A CLIP ViT-H/14, fine-tuned on the choices of the users of a web application.

Hub: ``yuvalkirstain/PickScore_v1`` (3.9 GB, safetensors), with the processor of
``laion/CLIP-ViT-H-14-laion2B-s32B-b79K``. Licence: the authors' code is MIT; the model's card names none, so
ask before commercial use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .parts.dual import DualEncoder
from .parts.judge import Judge, Judged, Pictures

HUB = "yuvalkirstain/PickScore_v1"
PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScorer(Judge):
    """Scale times cosine of image and prompt (the scale is about 100); higher is more likely to be picked.

    There is no fixed range: `low` and `high`, 16 and 26, are about what generated images get (others' code has 21.4
    and 1.2 as their mean and spread), and are what a target brings to 0 and 1; values outside are not clamped.
    exp(a - b) are the odds of two images of one prompt; values of different prompts do not compare. A prompt is read
    to 77 tokens, marks included; a longer one is scored by its beginning, with a warning. Gradients reach image
    tensors.

    Make one with `from_pretrained`.
    """

    name = "pickscore"
    low = 16.0
    high = 26.0
    needs_prompt = True

    def __init__(self, encoder: DualEncoder, batch_size: int = 32) -> None:
        """Take a loaded encoder."""
        super().__init__(encoder.network, batch_size)
        self.encoder = encoder

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = HUB,
        processor: str | Path = PROCESSOR,
        batch_size: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> PickScorer:
        """Load a CLIP model from a folder or the Hub, from safetensors.

        Args:
            model: folder or Hub name of a transformers `CLIPModel`.
            processor: folder or Hub name of its tokenizer and image processor, unless the folder `model` has them.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32.

        Raises:
            ModelError: it cannot be loaded.

        Executed examples are in ``tests/scorers/test_pickscore.py``.
        """
        return cls(DualEncoder.load(model, processor, 77, True, cls.name, device, dtype), batch_size)

    def check_texts(self, texts: Sequence[str]) -> None:
        """Warn of prompts beyond 77 tokens."""
        self.encoder.warn_of_truncation(texts)

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Return pixels and texts."""
        return self.encoder.pixels(pictures), texts

    def judge(self, inputs: Any) -> Judged:
        """Scale and compare."""
        pixels, texts = inputs
        cosine = (self.encoder.encode_images(pixels) * self.encoder.encode_texts(texts)).sum(dim=-1)
        return Judged(self.model.logit_scale.float().exp() * cosine)
