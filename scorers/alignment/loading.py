"""Load what is to be trained: the base model, opened where the settings say, or an adapter to go on with."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin, set_seed

from ..._errors import InputError, ModelError
from ..mllm.checkpoints import (
    ADAPTER_FILE,
    ScorerFacts,
    base_of,
    few_bits,
    hub_file,
    load_model,
    load_processor,
    local_adapter,
)
from ..mllm.options import ReadOptions
from ..mllm.scorer import MLLMScorer
from ..pixels import counts_pixels, no_limits
from ..registry import EMBEDDED
from .config import OF_ADAPTER, AlignmentConfig
from .data import Collator
from .parts import Parts, find_parts, make_trainable, quiet_libraries, widen


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in training with all that belongs to it.

    Attributes:
        model: the model, or a peft model on it.
        processor: the model's.
        facts: dimensions, with the questions that are trained and asked.
        base: folder or hub name of the base, as an adapter is to name it.
        parts: names of the model's parts.
        model_type: the kind of model, as in its config.
        dtype: what is computed in.
    """

    model: Any
    processor: ProcessorMixin
    facts: ScorerFacts
    base: str
    parts: Parts
    model_type: str
    dtype: torch.dtype = torch.float32

    @property
    def plain(self) -> PreTrainedModel:
        """The transformers model, with whatever is injected into it."""
        plain: PreTrainedModel = (
            self.model if isinstance(self.model, PreTrainedModel) else self.model.get_base_model()
        )
        return plain

    def computing(self) -> AbstractContextManager[object]:
        """Context to run the model in, since what trains is float32 and the rest may not be."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.plain.device.type, self.dtype)

    def scorer(self, batch_size: int = 16) -> MLLMScorer:
        """The model as it is now, as a scorer that shares its weights and computes in `dtype`."""
        first = next(iter(self.facts.dimensions))
        half = None if self.dtype == torch.float32 else self.dtype
        return MLLMScorer.from_loaded(
            self.plain, self.processor, self.facts, first, ReadOptions(batch_size=batch_size), half
        )


def load_for_training(
    model: str | Path,
    config: AlignmentConfig,
    dimensions: Collection[str],
    name: str,
    adapter: str | Path | None = None,
    trust_remote_code: bool = False,
    images: Collection[Path] = (),
) -> Loaded:
    """Load a model and open what the settings name for training.

    Args:
        model: "embedded" (the small base that comes with the package), a folder, or a hub name; or an adapter.
        config: what trains, and in which precision.
        dimensions: those that are taught.
        name: of the scorer to be.
        adapter: an adapter to go on with, which then says what trains (see `of_adapter`).
        trust_remote_code: run code that comes with the model.
        images: files that are to be trained on, whose sizes are put to the processor before the model is loaded.

    Raises:
        ModelError: the model cannot be loaded, or not be adapted as the settings ask.
        InputError: a dimension that the model does not have, or images of a size that its processor refuses.
        MissingExtraError: bitsandbytes, for weights of 8 or 4 bits.

    Executed in ``tests/scorers/alignment/test_saving.py``.
    """
    embedded = model == "embedded"
    base = EMBEDDED / "text_encoder" if embedded else model
    if hub_file(base, ADAPTER_FILE) is not None:
        if adapter is not None:
            raise InputError(f"{base} is an adapter: name its base as the model, or leave adapter out")
        adapter = local_adapter(base)
        base = base_of(adapter)
    homes = [Path(base)]
    facts_home = EMBEDDED / "aligned" if embedded else Path(base)
    if adapter is not None:
        home = local_adapter(adapter)
        homes.insert(0, home)
        facts_home = home if (home / "cogguided_scorer.json").is_file() else facts_home
    processor = load_processor(homes, str(base), trust_remote_code)
    limit_pixels(processor, config.pixels)
    check_sizes(processor, images)
    only = embedded and adapter is None
    facts = taught(ScorerFacts.read(facts_home), name, dimensions, only, config.grounding)
    plain = load_model(base, training_dtype(config), trust_remote_code, quantization(config))
    parts = find_parts(plain)
    set_seed(config.seed)  # adapters start at random
    model_type = str(plain.config.model_type)
    opened: Any
    if adapter is None:
        tokens: set[int] = set()
        if config.answer_tokens:
            collator = Collator(processor, facts, config, 0.0)
            tokens = {collator.end}.union(*(collator.space(name).tokens for name in dimensions))
        opened = make_trainable(plain, config, parts, sorted(tokens))
    else:
        opened = open_adapter(plain, homes[0], parts)
    where = str(Path(base).resolve()) if Path(base).is_dir() else str(base)
    return Loaded(opened, processor, facts, where, parts, model_type, named_dtype(config))


def open_adapter(model: PreTrainedModel, adapter: Path, parts: Parts) -> Any:
    """Put an adapter on its base, with the parts of that, to train on.

    Raises:
        ModelError: it does not fit, or is no LoRA.

    Executed in ``tests/scorers/alignment/test_saving.py``.
    """
    from peft import LoraConfig, PeftModel

    model.requires_grad_(False)
    try:
        with quiet_libraries():
            opened = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{adapter}: does not fit its base model ({type(error).__name__}: {error})"
        ) from error
    kind = opened.peft_config["default"]
    if not isinstance(kind, LoraConfig):
        raise ModelError(f"{adapter}: expected a LoRA or DoRA adapter, got {kind.peft_type}")
    widen(opened, model, parts)
    return opened


def of_adapter(loaded: Loaded, config: AlignmentConfig, usual: AlignmentConfig) -> AlignmentConfig:
    """Settings of a run that goes on from an adapter: with what that has of `OF_ADAPTER`.

    Raises:
        InputError: one of these was asked for (it is not as `usual`), and the adapter has another.

    Executed in ``tests/scorers/alignment/test_saving.py``.
    """
    lora = loaded.model.peft_config["default"]
    trained = [name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad]
    has: dict[str, Any] = {"rank": lora.r, "alpha": float(lora.lora_alpha), "dropout": lora.lora_dropout}
    has["answer_tokens"] = any("trainable_tokens" in name for name in trained)
    for part in ("language", "vision", "projector"):
        own = [n for n in trained if loaded.parts.of(n) == part and "trainable_tokens" not in n]
        adapted = "dora" if lora.use_dora else "lora"
        has[part] = "frozen" if not own else adapted if any("lora_" in n for n in own) else "full"
    asked = {name: getattr(config, name) for name in OF_ADAPTER}
    wrong = [n for n, value in asked.items() if value not in (has[n], getattr(usual, n))]
    if wrong:
        told = ", ".join(f"{n} is {has[n]} and not {asked[n]}" for n in wrong)
        raise InputError(
            f"an adapter that training goes on from says what trains, and there {told}: leave that out, or "
            "merge the adapter (cogguided align merge) and train the plain model anew"
        )
    return replace(config, **has)


def taught(
    facts: ScorerFacts, name: str, dimensions: Collection[str], only: bool = False, grounding: str = "human"
) -> ScorerFacts:
    """Facts of the scorer to be: `grounding` is what the ratings are; the licence is yours to add.

    Raises:
        InputError: a dimension that the model does not have.

    >>> taught(ScorerFacts(), "mine", ["memorability"], only=True).grounding
    {'memorability': 'human'}
    """
    unknown = sorted(set(dimensions) - set(facts.dimensions))
    if unknown:
        raise InputError(
            f"the model has no dimension {', '.join(unknown)}; it has {', '.join(facts.dimensions)}"
        )
    kept = {key: dim for key, dim in facts.dimensions.items() if not only or key in dimensions}
    known = {key: value for key, value in facts.grounding.items() if key in kept and not only}
    return replace(
        facts,
        name=name,
        description="",
        licence="",
        dimensions=kept,
        grounding={**known, **dict.fromkeys(dimensions, grounding)},
    )


def training_dtype(config: AlignmentConfig) -> torch.dtype:
    """Type that frozen weights are loaded in: that of computing; float32 where the weights themselves train.

    >>> training_dtype(AlignmentConfig(precision="bfloat16"))
    torch.bfloat16
    """
    return named_dtype(config) if config.makes_adapter else torch.float32


def named_dtype(config: AlignmentConfig) -> torch.dtype:
    """Type to compute in.

    >>> named_dtype(AlignmentConfig(precision="float16", language="full"))
    torch.float16
    """
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return names[precision(config)]


def precision(config: AlignmentConfig) -> str:
    """Name of the type to compute in, with None filled in for what is here.

    >>> precision(AlignmentConfig(precision="float16"))
    'float16'
    """
    if config.precision is not None:
        return config.precision
    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def quantization(config: AlignmentConfig) -> object:
    """Settings for weights of 8 or 4 bits (NF4), or None.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        InputError: there is no GPU.

    >>> quantization(AlignmentConfig()) is None
    True
    """
    # What trains in full is copied from the loaded weights, so it must be loaded as it is.
    skipped = ["lm_head", *(["visual", "vision_tower", "vision_model"] if config.vision == "full" else [])]
    skipped += ["multi_modal_projector", "connector", "merger"] if config.projector == "full" else []
    return few_bits(config.bits, training_dtype(config), skipped)


def check_sizes(processor: ProcessorMixin, files: Collection[Path], shown: int = 5) -> None:
    """Put the sizes of pictures to a model's processor, as blank ones; of many different sizes the odd ones.

    Raises:
        InputError: it refuses some, with their names.

    Executed in ``tests/scorers/alignment/test_running.py``.
    """
    by_size: dict[tuple[int, int], list[Path]] = {}
    for file in dict.fromkeys(files):
        with Image.open(file) as opened:
            by_size.setdefault(opened.size, []).append(file)
    sizes = list(by_size)
    if len(sizes) > 64:
        sizes = [size for size in sizes if max(size) > 10 * min(size) or min(size) < 64]
    see: Any = processor.image_processor
    refused: list[str] = []
    for width, height in sizes:
        try:
            see(images=[Image.new("RGB", (width, height))], return_tensors="pt")
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            refused += [f"{file} ({width}x{height}: {error})" for file in by_size[width, height]]
    if refused:
        more = f", and {len(refused) - shown} more" if len(refused) > shown else ""
        raise InputError(
            f"{len(refused)} images are of a size that the model's processor refuses: {'; '.join(refused[:shown])}"
            f"{more}. Leave their rows out of the data, or crop them"
        )


def limit_pixels(processor: ProcessorMixin, pixels: tuple[int, int] | None) -> None:
    """Keep images between a fewest and a most number of pixels, within the processor's own limits.

    Processors that do not count pixels resize as they are made to, under the paper's limits (the default) too.

    Raises:
        ModelError: other limits, for such a processor.

    Executed in ``tests/scorers/alignment/test_saving.py``.
    """
    images: Any = processor.image_processor
    size = dict(images.size or {})
    if pixels is None or (not counts_pixels(images) and pixels == AlignmentConfig.pixels):
        return
    if not counts_pixels(images):
        raise no_limits(images)
    most = min(size["longest_edge"], pixels[1])
    images.size = {"shortest_edge": min(max(size["shortest_edge"], pixels[0]), most), "longest_edge": most}
