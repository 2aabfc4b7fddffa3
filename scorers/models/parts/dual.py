"""Dual encoders of transformers (CLIP, SigLIP and their kin): an image and a text as unit vectors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from ...._errors import ModelError
from ...base import warn_of_truncation
from .files import place_for
from .judge import Pictures


def load_network(
    kind: Any, model: str | Path, device: torch.device | str | None, dtype: torch.dtype | None, spare: str = "^$"
) -> Any:
    """Load a transformers network from safetensors; nothing may be missing but what the pattern `spare` matches.

    Raises:
        ModelError: nothing there, another kind of model, no safetensors, or weights that are missing.

    Executed examples are in ``tests/scorers/test_pickscore.py``.
    """
    try:
        with torch.inference_mode(False):  # weights made inside it never pass a gradient on
            network, told = kind.from_pretrained(
                model, dtype=dtype or torch.float32, use_safetensors=True, output_loading_info=True
            )
            network = network.to(place_for(device))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{model}: cannot be loaded from safetensors ({type(error).__name__}: {str(error).strip()})"
        ) from error
    missing = sorted(name for name in told["missing_keys"] if not re.search(spare, name))
    if missing:
        raise ModelError(f"{model}: {len(missing)} weights are missing, such as '{missing[0]}'")
    return network


class DualEncoder:
    """A network with `get_image_features` and `get_text_features`, its tokenizer and its image processors.

    Pictures go through the processor's PIL form, as when most of these models were trained and published;
    tensors through its torch form, which keeps their graph.

    Executed examples are in ``tests/scorers/test_pickscore.py`` and ``test_siglip.py``.
    """

    def __init__(
        self, network: Any, tokenizer: Any, images: Mapping[str, Any], length: int, padding: str | bool, name: str
    ) -> None:
        """Take the parts; `length` is how many tokens of a text are read, marks included."""
        self.network = network
        self.tokenizer = tokenizer
        self.images = images
        self.length = length
        self.padding = padding
        self.name = name

    @classmethod
    def load(
        cls,
        model: str | Path,
        processor: str | Path,
        length: int,
        padding: str | bool,
        name: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> DualEncoder:
        """Load network and processor; a model folder with a tokenizer of its own uses that.

        Raises:
            ModelError: they cannot be loaded, or the network is no dual encoder.
        """
        network = load_network(AutoModel, model, device, dtype)
        if not all(hasattr(network, part) for part in ("get_image_features", "get_text_features", "logit_scale")):
            raise ModelError(f"{model}: a {type(network).__name__} does not compare images with texts")
        home = model if (Path(model) / "tokenizer_config.json").is_file() else processor
        try:
            tokenizer = AutoTokenizer.from_pretrained(home)
            images = {kind: AutoImageProcessor.from_pretrained(home, backend=kind) for kind in ("pil", "torchvision")}
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"{home}: no usable processor ({type(error).__name__}: {error})") from error
        return cls(network, tokenizer, images, length, padding, name)

    def pixels(self, pictures: Pictures) -> dict[str, torch.Tensor]:
        """Run the image processor over B pictures."""
        soft = isinstance(pictures[0], torch.Tensor)
        processor = self.images["torchvision" if soft else "pil"]
        made = processor(pictures, return_tensors="pt", **({"do_rescale": False} if soft else {}))
        place, kind = self.network.device, self.network.dtype
        return {k: v.to(place, kind) if v.is_floating_point() else v.to(place) for k, v in made.items()}

    def encode_images(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return unit vectors (B, D), float32, of what `pixels` made."""
        return _unit(self.network.get_image_features(**inputs))

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit vectors (B, D), float32; a text that occurs again is computed once."""
        distinct = list(dict.fromkeys(texts))
        tokens = self.tokenizer(
            distinct, padding=self.padding, truncation=True, max_length=self.length, return_tensors="pt"
        )
        wanted = ("input_ids", "attention_mask") if self.padding is True else ("input_ids",)
        features = _unit(self.network.get_text_features(**{k: tokens[k].to(self.network.device) for k in wanted}))
        return features[[distinct.index(text) for text in texts]]

    def warn_of_truncation(self, texts: Sequence[str]) -> None:
        """Warn of texts whose end is not read."""
        for text in texts:
            if len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"]) > self.length:
                warn_of_truncation(
                    f"{self.name}: the model reads {self.length} tokens of a prompt; "
                    f"the end of {text[:60]!r}... is not seen"
                )


def _unit(found: Any) -> torch.Tensor:
    features: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return torch.nn.functional.normalize(features.float(), dim=-1)
