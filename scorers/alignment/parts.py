"""The parts of a multimodal LLM (vision tower, projector, language model) and what trains in each."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..._errors import ModelError
from .config import AlignmentConfig

if TYPE_CHECKING:
    from peft import PeftModel

PROJECTOR = re.compile(r"projector|connector|merger|mm_proj|aligner|resampler|adapter", re.I)
"""A module of this name, beside the language model or in the tower, is (part of) the projector."""
IDLE = {
    "gemma3": ("vision_tower.head",),  # SigLIP's pooling: only its patches are looked at
    "llava_onevision": ("vision_tower.head", "vision_tower.post_layernorm"),
}
"""Modules that some families carry along and never run, by `model_type`; they are never trained."""


@dataclass(frozen=True)
class Parts:
    """Names of modules, as in ``model.named_modules()``; together they cover each part once.

    Attributes:
        language: the decoder.
        vision: the tower, less what of the projector lies in it.
        projector: what turns the tower's output to embeddings.
    """

    language: tuple[str, ...]
    vision: tuple[str, ...]
    projector: tuple[str, ...]

    def of(self, name: str) -> str:
        """Which part a parameter belongs to: "language", "vision" or "projector".

        Wrapper names that peft puts in front or between are seen through. The vocabulary head and embeddings
        count as language.

        >>> Parts(("model.language_model",), ("model.visual.blocks",), ("model.visual.merger",)).of(
        ...     "base_model.model.model.visual.merger.modules_to_save.default.mlp.0.weight"
        ... )
        'projector'
        """
        plain = f"{name}."
        for part, modules in (("vision", self.vision), ("projector", self.projector)):
            if any(f".{module}." in plain or plain.startswith(f"{module}.") for module in modules):
                return part
        return "language"


def find_parts(model: PreTrainedModel) -> Parts:
    """Find the parts by structure: the decoder, and the modules beside it that have weights.

    Raises:
        ModelError: there is no decoder with a vision tower beside it.

    Executed for every family in ``tests/scorers/alignment/test_parts.py``.
    """
    decoder = model.get_decoder()
    name = next((n for n, module in model.named_modules() if module is decoder), "")
    if not name:
        raise ModelError(f"{type(model).__name__}: no language model inside it, so it cannot be aligned")
    above = name.rpartition(".")[0]
    beside = {
        ".".join(filter(None, (above, child))): module
        for child, module in model.get_submodule(above).named_children()
        if module is not decoder and any(True for _ in module.parameters())
    }
    idle = tuple(f"{above}.{path}" for path in IDLE.get(model.config.model_type, ()))
    head = model.get_output_embeddings()
    vision: list[str] = []
    projector: list[str] = []
    for path, module in beside.items():
        if module is head:
            continue
        if PROJECTOR.search(path.rpartition(".")[2]):
            projector += _cover(path, module, idle)
            continue
        inside = [f"{path}.{child}" for child, _ in module.named_children() if PROJECTOR.search(child)]
        vision += _cover(path, module, (*inside, *idle))
        projector += [found for child in inside for found in _cover(child, model.get_submodule(child), idle)]
    if not vision:
        raise ModelError(f"{type(model).__name__}: no vision tower beside {name}, so it cannot be aligned")
    return Parts((name,), tuple(vision), tuple(projector))


def _cover(path: str, module: nn.Module, without: Collection[str]) -> list[str]:
    """Names of modules that hold all weights of `module` but those of `without`, each with a forward."""
    if path in without or not any(True for _ in module.parameters()):
        return []
    inside = any(name.startswith(f"{path}.") for name in without)
    if not inside and not isinstance(module, nn.ModuleList | nn.ModuleDict):
        return [path]
    return [
        found for child, part in module.named_children() for found in _cover(f"{path}.{child}", part, without)
    ]


def linear_pattern(model: PreTrainedModel, modules: Sequence[str]) -> str:
    """Regular expression of the names of all linear layers inside some modules, layer numbers left open.

    >>> from torch.nn import Linear, ModuleList, Sequential
    >>> tower = Sequential()
    >>> tower.layers = ModuleList(Sequential(Linear(2, 2)) for _ in range(3))
    >>> linear_pattern(tower, ["layers"])
    '(layers\\\\.\\\\d+\\\\.\\\\d+)'
    """
    inside = {
        name: isinstance(module, nn.Linear)
        for name, module in model.named_modules()
        if any(f"{name}.".startswith(f"{part}.") for part in modules)
    }
    patterns: dict[str, None] = {}
    for name in (name for name, linear in inside.items() if linear):
        pieces = [r"\d+" if piece.isdigit() else re.escape(piece) for piece in name.split(".")]
        open_ = r"\.".join(pieces)
        fits = all(linear for other, linear in inside.items() if re.fullmatch(open_, other))
        patterns[open_ if fits else re.escape(name)] = None
    return f"({'|'.join(patterns)})" if patterns else ""


def make_trainable(
    model: PreTrainedModel, config: AlignmentConfig, parts: Parts, answer_tokens: Sequence[int] = ()
) -> PreTrainedModel | PeftModel:
    """Freeze the model and open what the settings name; trainable weights are float32.

    Where a part has LoRA or DoRA, on its linear layers (never the vocabulary head), a peft model is returned,
    which holds what trains in full as copies that its adapter saves; else the model itself.

    Args:
        model: plain, or with frozen weights of 8 or 4 bits.
        config: what trains, and the adapters' size.
        parts: of this model.
        answer_tokens: ids of tokens whose embeddings train too.

    Raises:
        ModelError: peft cannot adapt this model so.

    Executed for every family in ``tests/scorers/alignment/test_parts.py``.
    """
    model.requires_grad_(False)
    modes = {"language": config.language, "vision": config.vision, "projector": config.projector}
    if config.makes_adapter:
        opened: Any = _with_adapter(model, config, parts, modes, answer_tokens)
    else:
        trained = _run_by(model, parts)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained and modes[parts.of(name)] == "full")
        opened = model
    widen(opened, model, parts)
    return opened  # type: ignore[no-any-return]


def widen(opened: Any, model: PreTrainedModel, parts: Parts) -> None:
    """Make float32 of what trains, and of what a tower that trains in full carries along: types must fit.

    Executed for every family in ``tests/scorers/alignment/test_sft.py``.
    """
    trained = {name: p for name, p in opened.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    if any(parts.of(name) == "vision" and "lora_" not in name for name in trained):
        above = parts.language[0].rpartition(".")[0]
        for path in IDLE.get(model.config.model_type, ()):
            model.get_submodule(f"{above}.{path}").float()


def _run_by(model: PreTrainedModel, parts: Parts) -> set[str]:
    """Names of the weights of the three parts and of the vocabulary head: all but what is never run."""
    head = model.get_output_embeddings()
    own = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    inside = tuple(f"{module}." for module in (*parts.language, *parts.vision, *parts.projector))
    return {n for n, parameter in model.named_parameters() if n.startswith(inside) or id(parameter) in own}


def _with_adapter(
    model: PreTrainedModel,
    config: AlignmentConfig,
    parts: Parts,
    modes: dict[str, str],
    answer_tokens: Sequence[int],
) -> PeftModel:
    from peft import LoraConfig, get_peft_model

    by_part = {"language": parts.language, "vision": parts.vision, "projector": parts.projector}
    patterns = []
    for part, mode in modes.items():
        if mode in ("lora", "dora"):
            patterns.append(linear_pattern(model, by_part[part]))
            if not patterns[-1]:
                raise ModelError(
                    f"{type(model).__name__}: {part}='{mode}' finds no linear layer; use 'full' or 'frozen'"
                )
    full = [name for part, mode in modes.items() if mode == "full" for name in by_part[part]]
    embedding = next(n for n, module in model.named_modules() if module is model.get_input_embeddings())
    head = next((n for n, module in model.named_modules() if module is model.get_output_embeddings()), "")
    tokens = sorted(answer_tokens)
    tied = not head or model.get_submodule(head).weight is model.get_submodule(embedding).weight
    heads = (embedding,) if tied else (embedding, head)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        use_dora="dora" in modes.values(),
        target_modules="|".join(patterns),
        modules_to_save=full or None,
        trainable_token_indices=dict.fromkeys(heads, tokens) if tokens else None,
    )
    try:
        with quiet_libraries():
            adapted: PeftModel = get_peft_model(model, lora)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{type(model).__name__}: peft cannot adapt it ({error})") from error
    return adapted


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep back warnings of peft and TRL about things that a user could not change."""
    with warnings.catch_warnings():
        # peft 0.21 and TRL 1.16 still ask transformers 5 by an old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


@contextmanager
def head_on(model: nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Within this context the vocabulary head sees only `positions` (N,) of the flattened (B * L) sequence.

    The model's logits are then (N, vocabulary): what is not supervised costs no memory and no time. A hook
    on the head does it, so that a forward through DDP or an adapter, and any family's own code around it,
    stay as they are.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 9))
    >>> model.get_output_embeddings = lambda: model[0]
    >>> with head_on(model, torch.tensor([0, 5])):
    ...     model(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 9])
    """
    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    hook = head.register_forward_pre_hook(
        lambda _module, args: (args[0].flatten(0, 1).index_select(0, positions), *args[1:])
    )
    try:
        yield
    finally:
        hook.remove()
