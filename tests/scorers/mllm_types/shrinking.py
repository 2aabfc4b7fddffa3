"""Any model type of transformers at tiny random size: configuration and processor shrunk by their fields' names.

What a type needs beyond that is in `table`. Tokenizers are trained here; nothing is downloaded.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tiny_mllm import FAMILIES, chat_template, tokenizer, wake
from tiny_mllm import build as build_family
from transformers.models.auto import (
    feature_extraction_auto,
    image_processing_auto,
    modeling_auto,
    processing_auto,
    video_processing_auto,
)

from cogguided.scorers import DIMENSIONS

from .table import CLASSES, COMMON, TYPES, Type

NAMES: dict[str, str] = dict(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
"""Class of each model type in transformers' image-text-to-text mapping."""
START, END = "<|im_start|>", "<|im_end|>"
PATTERNS = ("layer_types", "mlp_layer_types", "layers_block_type")
_SPECIAL = re.compile(r"""["'](</?[^"'\s<>{}\\]{1,40}>|\[[A-Z_]+\])["']""")
_NAMED = re.compile(r"tokenizer\.(\w+_token)(?:_id)?\b")
_ID = re.compile(r"(\w+?)_(?:token_)?(?:id|index)$")
_IMAGE_FIELDS = ("image_token_id", "image_token_index")
_PLAIN = ("pad", "eos", "bos", "unk", "sep", "cls", "mask")


def _class(names: Any) -> Any:
    """The class that a mapping of transformers names: on torch where there are two."""
    if isinstance(names, Mapping):
        names = names.get("torchvision") or names.get("pil")
    return getattr(tf, names) if names else None


def shrunk(config: tf.PreTrainedConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that make a small one of a default configuration; `given` wins, nested as the configuration is."""
    small: dict[str, Any] = {}
    for name, value in vars(config).items():
        if isinstance(value, tf.PreTrainedConfig):
            small[name] = {"model_type": value.model_type, **shrunk(value, given.get(name, {}))}
        elif name in PATTERNS and value and name not in given:
            kinds = list(dict.fromkeys(value))
            small[name] = kinds if len(kinds) > 1 else kinds * 2
        elif name == "patch_size" and isinstance(value, int):
            small[name] = value if value <= 16 else COMMON[name]
        elif name in COMMON and type(value) in (int, type(COMMON[name])):
            small[name] = COMMON[name]
        elif name in COMMON and isinstance(value, (list, tuple)):  # one number a stage, or a side
            small[name] = type(value)([COMMON[name]] * len(value)) if isinstance(COMMON[name], int) else COMMON[name]
    depth = max((len(small[name]) for name in PATTERNS if name in small), default=0)
    if depth:
        small |= {name: (small[name] * depth)[:depth] for name in PATTERNS if name in small}
        small["num_hidden_layers"] = depth
    if "mrope_section" in (getattr(config, "ignore_keys_at_rope_validation", None) or ()):
        small["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    if "image_size" in small and isinstance(small.get("patch_size"), int):
        small["image_size"] = 2 * small["patch_size"]
    nested = [name for name, value in vars(config).items() if isinstance(value, tf.PreTrainedConfig)]
    return {**small, **{name: value for name, value in given.items() if name not in nested}}


def _token_fields(config: tf.PreTrainedConfig) -> set[str]:
    """Names of the fields, of a configuration and those in it, that hold ids of tokens."""
    found = {n for n, v in vars(config).items() if (_ID.match(n) and type(v) is int) or n in _IMAGE_FIELDS}
    for value in vars(config).values():
        found |= _token_fields(value) if isinstance(value, tf.PreTrainedConfig) else set()
    return found


class Tiny:
    """A tiny model of one type with its processor, as `build` saves them."""

    def __init__(self, name: str) -> None:
        self.name, self.type = name, TYPES.get(name, Type())
        self.default = tf.AutoConfig.for_model(name)
        for part, kind in self.type.parts.items():
            setattr(self.default, part, getattr(tf, kind)())
        self.processor_class = getattr(tf, self.type.processor or processing_auto.PROCESSOR_MAPPING_NAMES[name])
        self.tokenizer = self._tokenizer()
        self.processor = self._processor()
        self.model = getattr(tf, NAMES[name])._from_config(self._config())

    def _tokenizer(self) -> tf.PreTrainedTokenizerFast:
        source = inspect.getsource(sys.modules[self.processor_class.__module__])
        names = {n.removesuffix("_token").removeprefix("add_") for n in _NAMED.findall(source)} - set(_PLAIN)
        named = {f"{name}_token": f"<{name}_token>" for name in sorted(names)}
        named = {name: token for name, token in {**named, **self.type.tokens}.items() if token}
        fields = {_ID.match(n)[1] for n in _token_fields(self.default)} - set(_PLAIN)  # type: ignore[index]
        special = ["<|endoftext|>", "<s>", START, END, *_SPECIAL.findall(source), *named.values(), *self.type.special]
        special += [f"<{field}>" for field in sorted(fields)]
        made = tokenizer("grouped", list(dict.fromkeys(special)), END, "<s>", named)
        return self.type.tokenizer(made) if self.type.tokenizer else made

    def _part(self, attribute: str) -> Any:
        """One part of the processor: its class by transformers' mappings, or by the table."""
        if "tokenizer" in attribute:
            return self.tokenizer
        mapping = {
            "image_processor": image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES,
            "video_processor": video_processing_auto.VIDEO_PROCESSOR_MAPPING_NAMES,
            "feature_extractor": feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES,
        }[attribute]
        known = CLASSES.get(self.name, {}).get(attribute)
        cls = getattr(tf, known) if known else _class(mapping[self.name])
        if attribute != "image_processor":
            return cls()
        return cls(**{**self._small_images(cls()), **self.type.images})

    def _small_images(self, default: Any) -> dict[str, Any]:
        """Sizes for an image processor, as the configuration has them."""
        side, small = 2 * (self.patch or 14), {}
        size = {k: v for k, v in dict(default.size or {}).items() if v is not None}
        if {"height", "width"} <= size.keys():
            small["size"] = {"height": side, "width": side}
        elif size.keys() == {"shortest_edge", "longest_edge"}:  # in pixels
            small["size"] = {"shortest_edge": side**2, "longest_edge": 8 * side**2}
        elif size.keys() == {"longest_edge"} or size.keys() == {"shortest_edge"}:
            small["size"] = dict.fromkeys(size, side)
        if getattr(default, "crop_size", None):
            small["crop_size"] = {"height": side, "width": side}
        if isinstance(getattr(default, "patch_size", None), int) and self.patch:
            small["patch_size"] = self.patch
        if getattr(default, "image_grid_pinpoints", None):
            small["image_grid_pinpoints"] = [[side, side], [side, 2 * side], [2 * side, side]]
        if isinstance(getattr(default, "max_patches", None), int):
            small["max_patches"] = 2
        return small

    @property
    def patch(self) -> int | None:
        """Side of a patch, if the configuration has one number for it."""
        size = shrunk(self.default, self.type.config).get("vision_config", {}).get("patch_size")
        return size if isinstance(size, int) else None

    def _processor(self) -> tf.ProcessorMixin:
        parts = {attribute: self._part(attribute) for attribute in self.processor_class.get_attributes()}
        taken = inspect.signature(self.processor_class.__init__).parameters
        if "patch_size" in taken and self.patch:
            parts["patch_size"] = self.patch
        if "vision_feature_select_strategy" in taken:
            parts |= {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        made = self.processor_class(**{**parts, **self.type.processing})
        image = self.type.image or getattr(made, "image_token", None) or getattr(self.tokenizer, "image_token", "")
        made.chat_template = chat_template(str(image), START, "\n", END)
        return made

    def _config(self) -> tf.PreTrainedConfig:
        ids = {name: self._id(name) for name in _token_fields(self.default)}
        config: tf.PreTrainedConfig = type(self.default)(
            **_placed(shrunk(self.default, self.type.config), self.default, ids)
        )
        for name, token in self.type.ids.items():  # some are in published files only
            if not hasattr(config, f"{name}_token_id"):
                setattr(config, f"{name}_token_id", self.tokenizer.convert_tokens_to_ids(token))
        return config

    def _id(self, field: str) -> int:
        name = _ID.match(field)[1]  # type: ignore[index]
        if name in _PLAIN:
            return int(getattr(self.tokenizer, f"{name}_token_id") or self.tokenizer.pad_token_id)
        words = (
            self.type.ids.get(name),
            getattr(self.processor, f"{name}_token", None),
            getattr(self.tokenizer, f"{name}_token", None) if f"{name}_token" in self.tokenizer.init_kwargs else None,
            f"<{name}>",
        )
        return int(self.tokenizer.convert_tokens_to_ids(str(next(word for word in words if word))))


def _placed(small: dict[str, Any], config: tf.PreTrainedConfig, ids: Mapping[str, int]) -> dict[str, Any]:
    """The arguments with the ids of this tokenizer, in nested configurations too."""
    for name, value in vars(config).items():
        if isinstance(value, tf.PreTrainedConfig) and isinstance(small.get(name), dict):
            small[name] = _placed(small[name], value, ids)
        elif name in ids and (value is not None or name in _IMAGE_FIELDS) and name not in small:
            small[name] = ids[name]
    return small


def build(name: str, folder: Path, seed: int = 0) -> Path:
    """Save a seeded random model of a type with its processor, as a hub checkout would lie on disk."""
    if name in FAMILIES:
        return _with_questions(name, build_family(name, folder, seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Tiny(name)
        wake(made.model)
    made.model.save_pretrained(folder)
    made.processor.save_pretrained(folder)
    return _with_questions(name, folder)


def _with_questions(name: str, folder: Path) -> Path:
    """Short questions: a tiny tokenizer spells long ones out."""
    facts = {"name": f"tiny {name}", "questions": {dimension: f"{dimension}?" for dimension in DIMENSIONS}}
    (folder / "cogguided_scorer.json").write_text(json.dumps(facts), "utf-8")
    return folder
