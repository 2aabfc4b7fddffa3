"""CLIP: does an image show what the prompt says?

Radford et al. 2021, arXiv 2103.00020, used as in CLIPScore, Hessel et al. 2021, arXiv 2104.08718.

Models and preprocessing come from open_clip (MIT licence); the weights have licences of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from tqdm import tqdm

from ..._errors import InputError, ModelError, unknown_name
from ..base import ImageInput, Scores, check_prompts, warn_of_truncation
from ..images import check_images, load_images
from ..precision import own_precision


class CLIPScorer:
    """Cosine similarity of image and prompt, from -1 to 1; higher is more faithful.

    For natural pairs CLIP's values crowd together (about 0.1 to 0.4 for ViT-B-32), so in a target this term
    wants a larger weight than one that spans its range. Gradients reach image tensors.

    A prompt longer than the model's context is scored by its beginning, with a warning that says so.

    Make one with `from_pretrained`.
    """

    low = -1.0
    high = 1.0
    differentiable = True
    needs_prompt = True

    def __init__(
        self, model: Any, preprocess: Any, tokenizer: Any, name: str = "clip", batch_size: int = 64
    ) -> None:
        """Take an open_clip model, its evaluation transform and its tokenizer."""
        if batch_size < 1:
            raise InputError(f"expected batch_size >= 1, got {batch_size}")
        self.model = model.eval().requires_grad_(False)
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.name = name
        self.batch_size = batch_size
        self.progress: bool | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        pretrained: str | None = None,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        name: str = "clip",
    ) -> CLIPScorer:
        """Load an open_clip model; weights from safetensors only.

        Args:
            model: a folder with ``open_clip_config.json``, weights and, if the config names an
                ``hf_tokenizer_name``, tokenizer files; "hf-hub:owner/model"; or an open_clip
                name ("ViT-B-32").
            pretrained: with an open_clip name: its tag ("laion2b_s34b_b79k") or a safetensors file.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32.
            name: name of the scorer.

        Raises:
            ModelError: no such model, no weights, or weights that are not safetensors.

        Executed examples are in ``tests/scorers/test_clip.py``.
        """
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        folder = Path(model)
        identifier = f"local-dir:{folder}" if folder.is_dir() else str(model)
        _check_safetensors(identifier, pretrained)
        try:
            with torch.inference_mode(False):  # weights made inside it never pass a gradient on
                loaded, preprocess = open_clip.create_model_from_pretrained(identifier, pretrained)
            tokenizer = open_clip.get_tokenizer(identifier)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ModelError(
                f"{model}: cannot be loaded by open_clip ({type(error).__name__}: {error})"
            ) from error
        with torch.inference_mode(False):
            loaded = loaded.to(place, dtype or torch.float32)
        return cls(loaded, preprocess, tokenizer, name, batch_size)

    @property
    def context_length(self) -> int:
        """How many tokens of a prompt the model reads, start and end marks included."""
        length: int = self.model.context_length
        return length

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images, each against its own prompt.

        Raises:
            InputError: not a batch of images, or not one prompt per image.
        """
        check_images(images)
        texts = check_prompts(prompts, len(images), self.name)
        if not texts:
            return Scores(torch.empty(0))
        with own_precision(self._device):
            features, errors = self._encode(images)
            values = (features * self.encode_texts(texts)).sum(dim=-1)
            return Scores(values, errors=errors)

    def encode_images(self, images: ImageInput) -> torch.Tensor:
        """Return unit vectors (B, D), float32; NaN for an image that cannot be read.

        Raises:
            InputError: not a batch of images.
        """
        check_images(images)
        with own_precision(self._device):
            return self._encode(images)[0]

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit vectors (B, D), float32; a text that occurs again is computed once."""
        distinct = list(dict.fromkeys(texts))
        self._warn_of_truncation(distinct)
        parts = []
        with torch.no_grad(), own_precision(self._device):
            for start in range(0, len(distinct), self.batch_size):
                tokens = self._tokenize(distinct[start : start + self.batch_size]).to(self._device)
                parts.append(self.model.encode_text(tokens, normalize=True).float())
        index = {text: row for row, text in enumerate(distinct)}
        return torch.cat(parts)[[index[text] for text in texts]] if parts else torch.empty(0, 0)

    @property
    def _end(self) -> int | None:
        """Token at which a model looks for its summary of the text, where the tokenizer may not put it."""
        if getattr(self.model, "text_pool_type", None) != "eos":
            return None
        end: int | None = getattr(self.model, "text_eos_id", None)
        return end

    def _tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Tokens (B, context length), each row with the end mark in it: a full row gives its last token up for it.

        A model that pools at the end mark would take the first token for the whole text where there is none.
        """
        tokens: torch.Tensor = self.tokenizer(list(texts))
        if self._end is not None:
            full = ~(tokens == self._end).any(dim=1)
            tokens[full, -1] = self._end
        return tokens

    def to(self, device: torch.device | str) -> CLIPScorer:
        """Move the weights and return the scorer itself."""
        self.model.to(device)
        return self

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    def _encode(self, images: ImageInput) -> tuple[torch.Tensor, list[str | None]]:
        parts: list[torch.Tensor] = []
        errors: list[str | None] = []
        starts = range(0, len(images), self.batch_size)
        hidden = True if len(starts) < 2 else (None if self.progress is None else not self.progress)
        for start in tqdm(starts, desc="scoring", unit="batch", disable=hidden, leave=False):
            part, part_errors = self._encode_batch(images[start : start + self.batch_size])
            parts.append(part)
            errors.extend(part_errors)
        return (torch.cat(parts) if parts else torch.empty(0, 0)), errors

    def _encode_batch(self, images: ImageInput) -> tuple[torch.Tensor, list[str | None]]:
        dtype = next(iter(self.model.parameters())).dtype
        if isinstance(images, torch.Tensor):
            finite = images.detach().isfinite().flatten(1).all(dim=1).tolist()
            errors = [
                None if ok else f"image {i}: has pixels that are not finite" for i, ok in enumerate(finite)
            ]
            pixels = [self.preprocess(image.float()) for image, ok in zip(images, finite, strict=True) if ok]
        else:
            pictures, errors = load_images(images, on_error="nan")
            pixels = [self.preprocess(picture) for picture in pictures if picture is not None]
        if not pixels:
            width = self.encode_texts([""]).shape[1]
            return torch.full((len(errors), width), torch.nan, device=self._device), errors
        stacked = torch.stack(pixels).to(self._device, dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and stacked.requires_grad):
            features = self.model.encode_image(stacked, normalize=True).float()
        good = [row for row, error in enumerate(errors) if error is None]
        whole = torch.full((len(errors), features.shape[1]), torch.nan, device=features.device)
        return whole.index_copy(0, torch.tensor(good, device=features.device), features), errors

    def _warn_of_truncation(self, texts: Sequence[str]) -> None:
        """Tokenize once more into twice the room: what lies beyond the context is not seen by the model."""
        room = self.context_length
        seen = room if self._end is None else room - 1  # the end mark takes the last place
        empty, *written = self.tokenizer(["", *texts], context_length=2 * room)[:, seen:]
        for text, beyond in zip(texts, written, strict=True):
            if not torch.equal(beyond, empty):
                warn_of_truncation(
                    f"{self.name}: the model reads {room} tokens of a prompt; the end of {text[:60]!r}... is not seen"
                )


def _check_safetensors(identifier: str, pretrained: str | None) -> None:
    """Refuse weights that are not safetensors, before anything is unpickled."""
    if identifier.startswith("local-dir:"):
        folder = Path(identifier.removeprefix("local-dir:"))
        if pretrained is not None:
            raise InputError(f"pretrained={pretrained!r}: a folder brings its own weights")
        if not any(folder.glob("*.safetensors")):
            raise ModelError(f"{folder}: no *.safetensors; weights are read from safetensors only")
        return
    if identifier.startswith("hf-hub:"):
        try:
            found = open_clip.pretrained.download_pretrained_from_hf(identifier.removeprefix("hf-hub:"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{identifier}: no weights could be fetched ({error})") from error
    elif identifier.replace("/", "-") not in open_clip.list_models():
        raise unknown_name("open_clip model", identifier, open_clip.list_models())
    elif pretrained is None:
        tags = open_clip.list_pretrained_tags_by_model(identifier)
        raise ModelError(
            f"{identifier}: which weights? Pass pretrained=, one of {tags} or a safetensors file"
        )
    elif pretrained in open_clip.list_pretrained_tags_by_model(identifier):
        config = open_clip.get_pretrained_cfg(identifier, pretrained)
        try:
            found = open_clip.download_pretrained(config)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{identifier}, {pretrained}: no weights could be fetched ({error})") from error
    else:
        found = pretrained
    if not str(found).endswith(".safetensors"):
        raise ModelError(
            f"{identifier}: {found} is not a safetensors file; weights are read from safetensors only"
        )
