"""An aligned language model in the place of a pipeline's text encoder, as in arXiv 2511.22805, for any pipeline.

Only what reaches the image counts: a text encoder sees text alone, so of a multimodal model the language model. An
adapter is put beside the encoder's own weights, which stay as they are; of a full model only the weights that differ
are exchanged.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, PreTrainedModel
from typing_extensions import Self

from ..._errors import InputError, ModelError
from ...scorers.folders import TOKENIZER_FILES, home_of
from ...scorers.mllm.checkpoints import local_adapter
from ...scorers.mllm.scorer import MLLMScorer
from .changes import AdapterChange, Change, WeightChange

PROBE = "A [red] hat, 3 cats & the sea: 5.577!\nÜber 世界"
ACTIVE = "_swapped_text_encoder"
"""Attribute of a pipeline that holds the swap in force."""


class Swap:
    """A swap in force; made by `swap_text_encoder`. As a context manager it undoes itself at the end.

    Attributes:
        component: the pipeline's component that was changed, such as "text_encoder".
        changed: names of its weights, or of its layers with an adapter, that reach the image and differ.
        notes: what could not be checked.
    """

    def __init__(self, pipe: Any, component: str, change: Change, notes: list[str]) -> None:
        self.pipe, self.component, self.notes = pipe, component, notes
        self._change: Change | None = change
        self._strength = 1.0
        self.changed = change.names

    @property
    def strength(self) -> float:
        """0: the original encoder, 1: the aligned one; between and beyond, in proportion. Set it to change it."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        if self._change is None:
            raise InputError("this swap was undone or baked: swap_text_encoder makes a new one")
        check_strength(value)
        self._change.set_strength(float(value))
        self._strength = float(value)

    def unswap(self) -> None:
        """Put the original encoder back, to the bit; does nothing the second time."""
        if self._change is not None:
            self._change.undo()
            self._end()

    def bake(self) -> None:
        """Make the encoder's weights what they are at this strength, for good, so that the pipeline can be saved."""
        if self._change is not None:
            self._change.bake()
            self._end()

    def _end(self) -> None:
        self._change = None
        self.pipe.__dict__.pop(ACTIVE, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unswap()


def check_strength(value: float) -> None:
    """Check a strength.

    Raises:
        InputError: not a number from -10 to 10.

    >>> check_strength(float("nan"))
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: strength: expected a number round 0 to 1, got nan
    """
    if not -10 <= value <= 10:
        raise InputError(f"strength: expected a number round 0 to 1, got {value}")


def swap_text_encoder(
    pipe: Any,
    model: str | Path | PreTrainedModel | MLLMScorer,
    strength: float = 1.0,
    component: str | None = None,
    trust_remote_code: bool = False,
) -> Swap:
    """Put an aligned model in the place of a pipeline's text encoder.

    Everything is checked before anything is changed. Prompts that were encoded before must be encoded again.

    Args:
        pipe: any diffusers pipeline that is conditioned by a language model of the same architecture.
        model: an aligned model: a folder or hub name of a full checkpoint or of a peft adapter; a loaded model; or an
            `MLLMScorer`, whose weights are then shared: one copy in memory for scoring and for encoding.
        strength: 0 original, 1 aligned (see `Swap.strength`).
        component: the text encoder; default: the one whose architecture is the model's.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: the model does not fit, with everything that differs: family, width, layers, vocabulary, special
            tokens, chat template, the ids of a probe text; or nothing in it reaches the image.
        InputError: a swap is in force already, or no such component.

    Executed examples are in ``tests/guidance/test_text_encoder.py``.
    """
    check_strength(strength)
    if ACTIVE in pipe.__dict__:
        raise InputError("a text encoder is swapped in already: unswap() or bake() it first")
    is_adapter = isinstance(model, str | Path) and _is_adapter(model)
    if is_adapter:
        folder = local_adapter(str(model))
        name = component or _fitting(pipe, _adapter_family(folder))
        encoder = _component(pipe, name)
        notes = _check_tokenizer(pipe, name, _tokenizer_of(folder))
        change: Change = AdapterChange(encoder, folder)
    else:
        config = model.model.config if isinstance(model, MLLMScorer) else getattr(model, "config", None)
        if config is None:
            try:
                config = AutoConfig.from_pretrained(str(model), trust_remote_code=trust_remote_code)
            except (OSError, ValueError, KeyError) as error:
                raise ModelError(f"{model}: no model and no adapter that can be read ({error})") from error
        name = component or _fitting(pipe, config)
        encoder = _component(pipe, name)
        tokenizer = model.processor.tokenizer if isinstance(model, MLLMScorer) else None
        if isinstance(model, str | Path):
            tokenizer = _tokenizer_of(model)
        differs = _config_differences(encoder.config, config)
        notes = _check_tokenizer(pipe, name, tokenizer, differs)
        aligned: Any = model.model if isinstance(model, MLLMScorer) else model
        if isinstance(model, str | Path):
            aligned = _load_like(encoder, model, trust_remote_code)
        change = WeightChange(encoder, aligned)
    swap = Swap(pipe, name, change, notes)
    pipe.__dict__[ACTIVE] = swap
    swap.strength = strength
    return swap


# ---------------------------------------------------------------------- finding and checking


def _is_adapter(model: str | Path) -> bool:
    if Path(model).is_dir():
        return (Path(model) / "adapter_config.json").is_file()
    try:
        AutoConfig.from_pretrained(str(model))
    except (OSError, ValueError, KeyError):
        return not Path(model).exists() and "/" in str(model) and not str(model).startswith((".", "/"))
    return False


def _component(pipe: Any, name: str) -> Any:
    encoder = pipe.components.get(name)
    if not isinstance(encoder, nn.Module):
        raise InputError(f"{type(pipe).__name__} has no component {name!r} to swap; it has {sorted(pipe.components)}")
    return encoder


def _encoders(pipe: Any) -> dict[str, Any]:
    named = {n: m for n, m in pipe.components.items() if n.startswith("text_encoder")}
    return {n: m for n, m in named.items() if isinstance(m, PreTrainedModel)}


def _fitting(pipe: Any, wanted: Any) -> str:
    """The text encoder whose architecture is the model's; `wanted`: its configuration, its type by name, or None."""
    encoders = _encoders(pipe)
    family = wanted if isinstance(wanted, str) or wanted is None else wanted.model_type
    listening = {n: m for n, m in encoders.items() if hasattr(m, "get_decoder") or "t5" not in m.config.model_type}
    fitting = [n for n, m in listening.items() if family is None or _same_family(m.config.model_type, family)]
    if not fitting:
        told = ", ".join(f"{n} ({m.config.model_type})" for n, m in encoders.items()) or "none"
        raise ModelError(
            f"{type(pipe).__name__} does not listen to a {family or 'language'} model; its text encoders: {told}"
        )
    return fitting[0]


def _same_family(own: str, other: str) -> bool:
    """Whether two `model_type`s are one family; the text part of a model goes by a longer name.

    >>> _same_family("qwen2_5_vl_text", "qwen2_5_vl"), _same_family("qwen3", "qwen3_vl")
    (True, False)
    """
    return own.removesuffix("_text") == other.removesuffix("_text")


def _config_differences(own: Any, other: Any) -> list[str]:
    """What differs between two configurations that must not."""
    found = []
    if not _same_family(own.model_type, other.model_type):
        found.append(f"family {own.model_type} against {other.model_type}")
    mine, theirs = own.get_text_config(), other.get_text_config()
    for key, what in (("hidden_size", "width"), ("num_hidden_layers", "layers"), ("vocab_size", "vocabulary")):
        if getattr(mine, key, None) != getattr(theirs, key, None):
            found.append(f"{what} {getattr(mine, key, None)} against {getattr(theirs, key, None)}")
    return found


def _tokenizer_of(folder: str | Path) -> Any:
    """The tokenizer that comes with a model, or None; transformers would make up an empty one."""
    home: str | Path | None = home_of(TOKENIZER_FILES, Path(folder)) if Path(folder).is_dir() else folder
    if home is None:
        return None
    for kind in (AutoTokenizer, AutoProcessor):
        try:
            found: Any = kind.from_pretrained(str(home))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        return getattr(found, "tokenizer", found)
    return None


def _check_tokenizer(pipe: Any, component: str, tokenizer: Any, differs: list[str] | None = None) -> list[str]:
    """Raise if anything differs, configurations or how texts become tokens; return what could not be told."""
    found = list(differs or [])
    notes = []
    suffix = component.removeprefix("text_encoder")
    parts = [pipe.components.get(f"{kind}{suffix}") for kind in ("tokenizer", "processor", "text_processor")]
    whole: Any = next((part for part in parts if part is not None), None)
    own: Any = getattr(whole, "tokenizer", whole)
    if tokenizer is None or own is None:
        notes.append("the model comes without a tokenizer: that texts become the same tokens could not be checked")
    else:
        mine, theirs = own(PROBE)["input_ids"], tokenizer(PROBE)["input_ids"]
        if mine != theirs:
            place = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), len(mine))
            found.append(f"tokens of a probe text, from the {place + 1}. on")
        for key in ("pad_token", "eos_token"):
            if getattr(own, key, None) != getattr(tokenizer, key, None):
                found.append(f"{key} {getattr(own, key, None)!r} against {getattr(tokenizer, key, None)!r}")
        templates = [getattr(whole, "chat_template", None) or getattr(own, "chat_template", None)]
        templates.append(getattr(tokenizer, "chat_template", None))
        if None not in templates and templates[0] != templates[1]:
            found.append("the chat template")
    if found:
        raise ModelError(
            f"the model cannot take the place of {type(pipe).__name__}'s {component}, as they differ in "
            f"{'; '.join(found)} (the pipeline's against the model's)"
        )
    return notes


def _load_like(encoder: PreTrainedModel, model: str | Path, trust_remote_code: bool) -> Any:
    try:
        return type(encoder).from_pretrained(
            str(model), dtype=encoder.dtype, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{model}: cannot be loaded as {type(encoder).__name__} ({str(error).strip()})") from error


def _adapter_family(folder: Path) -> str | None:
    """The `model_type` of what an adapter was trained on, if it says so."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    library = str((config.get("auto_mapping") or {}).get("parent_library") or "")
    found = library.split(".models.")[1].split(".")[0] if ".models." in library else None
    return found
