"""The two ways in which a swap changes a text encoder: weights exchanged, or an adapter beside them."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import TrainableTokensWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..._errors import ModelError

ADAPTER = "aligned"
NOT_TEXT = (
    "visual", "vision_tower", "vision_model", "audio_tower", "multi_modal_projector", "connector", "merger", "lm_head"
)  # fmt: skip
"""Modules of a multimodal model that hidden states of a text do not pass through."""


def reaches_image(name: str) -> bool:
    """Whether a weight lies on the way of a text.

    >>> reaches_image("model.visual.blocks.0.attn.qkv.weight"), reaches_image("model.language_model.norm.weight")
    (False, True)
    """
    return not set(name.split(".")) & set(NOT_TEXT)


def nothing_reaches(what: str) -> ModelError:
    """Build the error for a swap without an effect.

    >>> "language='lora'" in str(nothing_reaches("only the tower was trained"))
    True
    """
    return ModelError(
        f"a swap would change nothing: {what}. A text encoder sees no image, so only training the language model "
        "(align with language='lora', as the paper does) can reach what is drawn"
    )


class Change(Protocol):
    """What a swap does to an encoder."""

    names: list[str]

    def set_strength(self, value: float) -> None:
        """0: the original encoder, to the bit; 1: the aligned one."""
        ...

    def undo(self) -> None:
        """Leave the encoder as it was."""
        ...

    def bake(self) -> None:
        """Leave the encoder as it is now."""
        ...


class WeightChange:
    """Exchanges the weights that differ; equal ones are shared with the model given, so that there is one copy."""

    def __init__(self, encoder: nn.Module, aligned: nn.Module) -> None:
        theirs = {n.removeprefix("model."): p for n, p in aligned.named_parameters()}
        mine = {n: p for n, p in encoder.named_parameters() if reaches_image(n)}
        pairs = {n: theirs.get(n.removeprefix("model.")) for n in mine}
        missing = [n for n, p in pairs.items() if p is None]
        bad = [n for n, p in pairs.items() if p is not None and p.shape != mine[n].shape]
        if missing or bad:
            told = f"{len(missing)} weights are missing" if missing else f"{len(bad)} have another shape"
            raise ModelError(f"the model has not the weights of the encoder: {told}, such as {(missing or bad)[0]!r}")
        self.encoder = encoder
        self.original: dict[str, Tensor] = {}
        self.aligned: dict[str, Tensor] = {}
        for name, parameter in mine.items():
            other = pairs[name]
            assert other is not None
            data = other.data.to(parameter.device, parameter.dtype)
            if torch.equal(data, parameter.data):
                parameter.data = data  # the same storage where both are on one device
            else:
                self.original[name], self.aligned[name] = parameter.data, data
        if not self.original:
            raise nothing_reaches("all weights on the way of a text are equal to the encoder's own")
        self.names = list(self.original)

    def set_strength(self, value: float) -> None:
        """Exchange or mix the weights that differ."""
        parameters = dict(self.encoder.named_parameters())
        for name, old in self.original.items():
            new = self.aligned[name]
            if value == 0 or value == 1:
                parameters[name].data = old if value == 0 else new
            else:
                mixed = torch.lerp(old.float(), new.to(old.device).float(), value)
                parameters[name].data = mixed.to(old.dtype)

    def undo(self) -> None:
        """Put the original weights back."""
        self.set_strength(0.0)

    def bake(self) -> None:
        """Forget the original weights."""
        self.original, self.aligned = {}, {}


class AdapterChange:
    """Puts a peft adapter on the language model of an encoder, beside its weights."""

    def __init__(self, encoder: Any, folder: Path) -> None:
        state = load_file(folder / "adapter_model.safetensors")
        kept = {n: t for n, t in state.items() if reaches_image(n)}
        if not kept or not any(bool(t.any()) for n, t in kept.items() if not n.endswith("lora_A.weight")):
            raise nothing_reaches(f"of {len(state)} trained weights in {folder} none is on the way of a text")
        self.encoder = encoder
        with tempfile.TemporaryDirectory() as temporary:
            self._write(Path(temporary), folder, kept)
            self._check_shapes(kept)
            # peft tells of weights that were left out on purpose, and asks transformers by old names
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    self.wrapped: Any = PeftModel.from_pretrained(encoder, temporary, adapter_name=ADAPTER)
                except (ValueError, RuntimeError, KeyError, TypeError) as error:
                    kind = type(encoder).__name__
                    raise ModelError(f"{folder}: the adapter does not fit {kind}: {error}") from error
        encoder.requires_grad_(False)
        self.names = [n for n, m in encoder.named_modules() if isinstance(m, BaseTunerLayer)]
        tokens: dict[str, Any] = {
            n: m.token_adapter for n, m in encoder.named_modules() if isinstance(m, TrainableTokensWrapper)
        }
        self.rows = {
            n: (t.trainable_tokens_original[ADAPTER].clone(), t.trainable_tokens_delta[ADAPTER].data.clone())
            for n, t in tokens.items()
        }

    def _named(self, name: str) -> str:
        """A weight's name in the encoder, which may lack the head that the adapter's model had."""
        plain = name.removeprefix("base_model.model.")
        layers = set(dict(self.encoder.named_modules()))
        for found in (plain, plain.removeprefix("model."), f"model.{plain}"):
            module = found.rpartition(".lora_")[0] or found.rpartition(".")[0]
            if module in layers or module.rpartition(".")[0] in layers:
                return f"base_model.model.{found}"
        return name

    def _write(self, temporary: Path, folder: Path, kept: Mapping[str, Tensor]) -> None:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        save_file({self._named(n): t.contiguous() for n, t in kept.items()}, temporary / "adapter_model.safetensors")
        config["modules_to_save"] = None
        (temporary / "adapter_config.json").write_text(json.dumps(config), "utf-8")

    def _check_shapes(self, kept: Mapping[str, Tensor]) -> None:
        modules = dict(self.encoder.named_modules())
        wrong = []
        for name, tensor in kept.items():
            path, mark, rest = self._named(name).removeprefix("base_model.model.").rpartition(".lora_")
            if not mark:
                continue
            layer: Any = modules.get(path)
            weight = getattr(layer, "weight", None)
            if weight is None:
                wrong.append(f"no layer {path}")
            elif rest.startswith("A") and tensor.shape[1] != weight.shape[1]:
                wrong.append(f"{path} takes {weight.shape[1]} numbers, the adapter's {tensor.shape[1]}")
            elif rest.startswith("B") and tensor.shape[0] != weight.shape[0]:
                wrong.append(f"{path} gives {weight.shape[0]} numbers, the adapter's {tensor.shape[0]}")
        if wrong:
            kind = type(self.encoder).__name__
            raise ModelError(f"the adapter does not fit {kind}: {wrong[0]} ({len(wrong)} such)")

    def set_strength(self, value: float) -> None:
        """Scale the adapter; at 0 it is off."""
        for module in self.encoder.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(value != 0)
                if hasattr(module, "set_scale") and ADAPTER in getattr(module, "scaling", {}):
                    module.set_scale(ADAPTER, value)
            elif isinstance(module, TrainableTokensWrapper):
                module.enable_adapters(value != 0)
        for name, (old, new) in self.rows.items():
            adapter: Any = self.encoder.get_submodule(name)
            adapter.token_adapter.trainable_tokens_delta[ADAPTER].data = torch.lerp(old.to(new), new, value)

    def undo(self) -> None:
        """Take the adapter off."""
        self.set_strength(0.0)
        self.wrapped.unload()
        self._forget()

    def bake(self) -> None:
        """Merge the adapter into the weights."""
        self.wrapped.merge_and_unload()
        self._forget()

    def _forget(self) -> None:
        for name in ("peft_config", "_hf_peft_config_loaded"):
            self.encoder.__dict__.pop(name, None)
