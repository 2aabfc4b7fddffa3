"""CLIP-IQA: does an image look good, by CLIP's choice between two opposite prompts?

Wang, Chan and Loy 2023, "Exploring CLIP for Assessing the Look and Feel of Images", arXiv 2207.12396: OpenAI's
CLIP RN50 without the positional embedding of its last layer, so that images are seen at their own size.

Weights: open_clip's "RN50-quickgelu", tag "openai", or a folder in open_clip's layout. Licence: MIT (OpenAI's CLIP),
commercial use included; the authors' own code (NTU S-Lab License, non-commercial) is not used. Learnt from pairs of
the web, not from ratings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..._errors import InputError, ModelError
from .clip import CLIPScorer
from .parts.judge import Judge, Judged, Pictures
from .parts.pixels import as_tensor, normalised

SMALLEST = 32
"""Pixels of a side below which nothing is left for the last layer."""


class CLIPIQAScorer(Judge):
    """Probability of the first prompt of a pair against the second, 0 to 1; higher is better. No prompt of yours.

    The default pair is the paper's for quality, "Good photo." and "Bad photo."; others there: "Happy photo." and
    "Sad photo.", "Bright photo." and "Dark photo.", "Aesthetic photo." and "Not aesthetic photo.", "Natural photo."
    and "Synthetic photo.". Images are not resized; those of one size are computed together. Gradients reach image
    tensors.

    Make one with `from_pretrained`.
    """

    name = "clip_iqa"
    low = 0.0
    high = 1.0

    def __init__(
        self, clip: CLIPScorer, pair: Sequence[str] = ("Good photo.", "Bad photo."), batch_size: int = 16
    ) -> None:
        """Take a loaded CLIP with a ResNet, whose last layer's positional embedding is taken out.

        Raises:
            ModelError: its image encoder is no ResNet with an attention pool.
            InputError: not two prompts.
        """
        if isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"pair: expected two opposite prompts, got {pair!r}")
        super().__init__(clip.model, batch_size)
        pool: Any = getattr(self.model.visual, "attnpool", None)
        if getattr(pool, "positional_embedding", None) is None:
            raise ModelError(
                f"clip_iqa: sees images at their own size, which takes a CLIP with a ResNet (RN50), not a "
                f"{type(self.model.visual).__name__}"
            )
        self.pair = tuple(pair)
        with torch.inference_mode(False):  # what is made inside it never passes a gradient on
            nothing = torch.zeros_like(pool.positional_embedding[:1])
            pool.positional_embedding = torch.nn.Parameter(nothing, requires_grad=False)
            self.answers = clip.encode_texts(self.pair)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "RN50-quickgelu",
        pretrained: str | None = None,
        pair: Sequence[str] = ("Good photo.", "Bad photo."),
        batch_size: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> CLIPIQAScorer:
        """Load an open_clip model with a ResNet, from safetensors.

        Args:
            model: open_clip name, or a folder in open_clip's layout.
            pretrained: with a name: its tag or a safetensors file, default "openai".
            pair: the wanted prompt and its opposite.
            batch_size: images of one size a pass.
            device: default: the GPU if there is one.
            dtype: default: float32.

        Raises:
            ModelError: it cannot be loaded, or has no ResNet.
            InputError: not two prompts.

        Executed examples are in ``tests/scorers/test_clip_iqa.py``.
        """
        tag = pretrained if pretrained is not None or Path(model).is_dir() else "openai"
        return cls(CLIPScorer.from_pretrained(model, tag, batch_size, device, dtype), pair, batch_size)

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Return pixels by size, with the rows that they are of."""
        by_size: dict[torch.Size, list[tuple[int, torch.Tensor]]] = {}
        for row, picture in enumerate(pictures):
            tensor = as_tensor(picture)
            if min(tensor.shape[1:]) < SMALLEST:
                raise ValueError(f"a side is shorter than {SMALLEST} pixels")
            by_size.setdefault(tensor.shape, []).append((row, tensor))
        return by_size

    def judge(self, inputs: Any) -> Judged:
        """Weigh the two prompts, images of one size at a time."""
        scale = self.model.logit_scale.float().exp()
        rows, values = [], []
        for group in inputs.values():
            pixels = normalised(torch.stack([tensor for _, tensor in group])).to(self.device, self.dtype)
            features = self.model.encode_image(pixels, normalize=True).float()
            values.append((scale * features @ self.answers.to(self.device).T).softmax(dim=-1)[:, 0])
            rows += [row for row, _ in group]
        order = torch.tensor(rows, device=self.device).argsort()
        return Judged(torch.cat(values)[order])
