"""HPS v3: how much would people prefer this image for its prompt, and how sure is that?

Ma et al. 2025, "HPSv3: Towards Wide-Spectrum Human Preference Score", arXiv 2508.03789. A Qwen2-VL-7B with a head of
three layers on what it makes of a token of its own, ``<|Reward|>``, behind image, instruction and prompt; learnt from
1.17 million comparisons by people. The head gives the mean and the logarithm of the spread of a normal distribution.

Hub: ``MizzenAI/HPSv3``, file ``HPSv3.safetensors`` (about 17 GB), with config and processor of
``Qwen/Qwen2-VL-7B-Instruct``. Licence: Apache-2.0, commercial use included. The instruction is long and is read from
the authors' own file on GitHub (MIT), without running it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode
from transformers import AutoConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from ...._errors import InputError, ModelError
from ...mllm.checkpoints import load_processor
from ..parts.asking import AskedJudge, fill_in
from ..parts.files import fill, find_file, place_for, read_weights
from ..parts.judge import Judged, Pictures
from ..parts.wordings import published

HUB = "MizzenAI/HPSv3"
BASE = "Qwen/Qwen2-VL-7B-Instruct"
TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28
"""Every image is scaled to about this many, its aspect ratio kept."""
WORDING = ("MizzenAI/HPSv3", "d232ff8669a0b00759766067c6c3a26e2e717fac", "hpsv3/dataset/data_collator_qwen.py")
"""Repository, commit and file of the authors' instruction."""


class HPSv3Scorer(AskedJudge):
    """The mean of the model's belief, and in `std` its spread; higher is preferred more.

    There is no fixed range: `low` and `high`, -5 and 15, are what a target brings to 0 and 1; no published table of
    values was at hand when they were chosen, so look at yours; values outside are not clamped. The whole prompt is
    read; one with the reward token's text in it is refused. Gradients reach image tensors.

    Make one with `from_pretrained`.
    """

    name = "hpsv3"
    low = -5.0
    high = 15.0
    needs_prompt = True

    def __init__(
        self,
        model: Any,
        head: nn.Module,
        processor: Any,
        instruction: str,
        batch_size: int = 8,
        pixels: int = PIXELS,
    ) -> None:
        """Take a Qwen2-VL, its head, a processor that knows the reward token, and the instruction.

        Raises:
            InputError: an instruction without a place for the prompt or without one reward token.
        """
        if "{text_prompt}" not in instruction or instruction.count(TOKEN) != 1:
            raise InputError(f"instruction: expected a text with {{text_prompt}} and one {TOKEN} in it")
        super().__init__(nn.ModuleDict({"body": model, "head": head}), processor, batch_size)
        self.instruction = instruction
        self.token: int = processor.tokenizer.convert_tokens_to_ids(TOKEN)
        self.pixels = pixels
        images = processor.image_processor
        self.grain: int = images.patch_size * images.merge_size

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = HUB,
        base: str | Path = BASE,
        instruction: str | None = None,
        batch_size: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        pixels: int = PIXELS,
    ) -> HPSv3Scorer:
        """Load the authors' file.

        Args:
            model: Hub name or folder with ``HPSv3.safetensors``, or the file; names of weights as in transformers
                before 4.52 or since.
            base: folder or Hub name of the Qwen2-VL whose config and processor are used.
            instruction: what is asked, with ``{text_prompt}`` and ``<|Reward|>``; default: the authors', fetched
                once from GitHub.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32 on a CPU, bfloat16 elsewhere; the head is float32.
            pixels: of an image as the model sees it; the model was trained on the default.

        Raises:
            ModelError: a part cannot be loaded, or holds something else.
            InputError: an instruction without its places.

        Executed examples are in ``tests/scorers/test_hpsv3.py``.
        """
        file = find_file(model, ["HPSv3.safetensors"], "the weights of HPS v3")
        place = place_for(device)
        kind = dtype or (torch.float32 if place.type == "cpu" else torch.bfloat16)
        if instruction is None:
            instruction = "".join(published(*WORDING, "{text_prompt}", TOKEN))
        processor: Any = load_processor([Path(base)], str(base))
        processor.tokenizer.add_special_tokens({"additional_special_tokens": [TOKEN]})
        weights = read_weights(file)
        with torch.inference_mode(False):  # weights made inside it never pass a gradient on
            head = _head(weights, file).to(place)
            body = _body(weights, base, kind, file).to(place)
        return cls(body, head, processor, instruction, batch_size, pixels)

    def check_texts(self, texts: Sequence[str]) -> None:
        """Refuse prompts that hold the reward token's text."""
        if any(TOKEN in text for text in texts):
            raise InputError(f"{self.name}: a prompt holds {TOKEN!r}, which is the place where the model is read")

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Scale each image and ask."""
        scaled: Any = [self._scaled(picture) for picture in pictures]
        questions = [fill_in(self.instruction, text_prompt=text) for text in texts]
        return self.ask(scaled, questions, do_resize=False)

    def judge(self, inputs: Any) -> Judged:
        """Read the head at the reward token."""
        hidden = self.model["body"].model(**inputs, use_cache=False).last_hidden_state
        found = self.model["head"](hidden[inputs["input_ids"] == self.token].float())
        return Judged(found[:, 0], found[:, 1].exp())

    def _scaled(self, picture: Image.Image | torch.Tensor) -> Image.Image | torch.Tensor:
        tensor = isinstance(picture, torch.Tensor)
        height, width = picture.shape[-2:] if isinstance(picture, torch.Tensor) else picture.size[::-1]
        size = smart_resize(height, width, self.grain, self.pixels, self.pixels)
        mode = InterpolationMode.BICUBIC
        scaled: Image.Image | torch.Tensor = F.resize(picture, list(size), interpolation=mode, antialias=True)
        return scaled.clamp(0, 1) if tensor and isinstance(scaled, torch.Tensor) else scaled


def _head(weights: dict[str, torch.Tensor], file: Path) -> nn.Module:
    """Take the head out of the weights: three linear layers in the places 0, 3 and 5, ReLU between them."""
    own = {name.removeprefix("rm_head."): weights.pop(name) for name in list(weights) if name.startswith("rm_head.")}
    try:
        wide, middle, narrow = (own[f"{place}.weight"].shape for place in (0, 3, 5))
    except KeyError as error:
        raise ModelError(f"{file}: has no head of HPS v3 (no weight 'rm_head.{error.args[0]}')") from error
    if narrow[0] != 2:
        raise ModelError(f"{file}: its head gives {narrow[0]} numbers, expected 2, a mean and a spread")
    head = nn.Sequential(
        nn.Linear(wide[1], wide[0]),
        nn.ReLU(),
        nn.Identity(),  # dropout in training
        nn.Linear(middle[1], middle[0]),
        nn.ReLU(),
        nn.Linear(narrow[1], narrow[0]),
    )
    fill(head, own, file)
    return head.float()


def _body(weights: Mapping[str, torch.Tensor], base: str | Path, dtype: torch.dtype, file: Path) -> Any:
    """Qwen2-VL with these weights, and of their number of tokens."""
    renamed = {_name(name): tensor for name, tensor in weights.items()}
    try:
        config = AutoConfig.from_pretrained(base)
        config.text_config.vocab_size = len(renamed["model.language_model.embed_tokens.weight"])
        loaded: Any = Qwen2VLForConditionalGeneration.from_pretrained(
            None, config=config, state_dict=renamed, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{file}: does not fit {base} ({type(error).__name__}: {error})") from error
    missing = sorted(loaded[1]["missing_keys"])
    if missing:
        raise ModelError(f"{file}: {len(missing)} weights are missing, such as '{missing[0]}'")
    return loaded[0]


def _name(name: str) -> str:
    """Today's name of a weight of Qwen2-VL, from either."""
    if name.startswith("visual."):
        return "model." + name
    if name.startswith(("model.layers.", "model.embed_tokens.", "model.norm.")):
        return "model.language_model." + name.removeprefix("model.")
    return name
