"""SigLIP and SigLIP 2: does an image show what the prompt says?

Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343; Tschannen et al. 2025,
"SigLIP 2", arXiv 2502.14786.

Hub: ``google/siglip2-so400m-patch14-384`` and any other checkpoint of the two families, NaFlex ones included.
Licence: Apache-2.0, commercial use included. Learnt from pairs of the web, not from ratings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..._errors import unknown_name
from .parts.dual import DualEncoder
from .parts.judge import Judge, Judged, Pictures

HUB = "google/siglip2-so400m-patch14-384"
OUTPUTS = ("probability", "cosine")


class SigLIPScorer(Judge):
    """How well an image shows its prompt; higher is better. Gradients reach image tensors.

    `output`: "probability", the sigmoid of scale x cosine + bias, 0 to 1, as published: it is near 0 for most
    pairs that do not match, where it has hardly a gradient; or "cosine", -1 to 1. A prompt is read to 64 tokens,
    in lower case as both families were trained; a longer one is scored by its beginning, with a warning.

    Make one with `from_pretrained`.
    """

    name = "siglip"
    high = 1.0
    needs_prompt = True

    def __init__(self, encoder: DualEncoder, output: str = "probability", batch_size: int = 32) -> None:
        """Take a loaded encoder.

        Raises:
            UnknownNameError: another output.
        """
        if output not in OUTPUTS:
            raise unknown_name("output of siglip", output, OUTPUTS)
        super().__init__(encoder.network, batch_size)
        self.encoder = encoder
        self.output = output
        self.low = 0.0 if output == "probability" else -1.0

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = HUB,
        output: str = "probability",
        batch_size: int = 32,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> SigLIPScorer:
        """Load a SigLIP or SigLIP 2 model from a folder or the Hub, from safetensors.

        Raises:
            ModelError: it cannot be loaded.
            UnknownNameError: another output.

        Executed examples are in ``tests/scorers/test_siglip.py``.
        """
        encoder = DualEncoder.load(model, model, 64, "max_length", cls.name, device, dtype)
        encoder.length = min(64, encoder.network.config.text_config.max_position_embeddings)
        return cls(encoder, output, batch_size)

    def check_texts(self, texts: Sequence[str]) -> None:
        """Warn of prompts beyond 64 tokens."""
        self.encoder.warn_of_truncation([text.lower() for text in texts])

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Return pixels and texts."""
        return self.encoder.pixels(pictures), [text.lower() for text in texts]

    def judge(self, inputs: Any) -> Judged:
        """Compare, and bring to a probability."""
        pixels, texts = inputs
        cosine = (self.encoder.encode_images(pixels) * self.encoder.encode_texts(texts)).sum(dim=-1)
        if self.output == "cosine":
            return Judged(cosine)
        logits = self.model.logit_scale.float().exp() * cosine + self.model.logit_bias.float()
        return Judged(torch.sigmoid(logits).reshape(len(cosine)))
