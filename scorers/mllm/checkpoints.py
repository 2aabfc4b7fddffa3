"""Load an image-text-to-text model for scoring: a folder, a hub name, or a peft adapter on one of these."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from ..._defaults import EMBEDDED
from ..._errors import InputError, ModelError, missing_extra
from ..._loading import LOADING
from ..dimensions import DIMENSIONS, Dimension
from ..folders import PROCESSOR_FILES, home_of
from .reading.templates import from_json, to_json

FACTS_FILE = "cogguided_scorer.json"
ADAPTER_FILE = "adapter_config.json"
_OPTIONAL = ("default", "model", "adapter")


@dataclass(frozen=True)
class ScorerFacts:
    """What a model folder's ``cogguided_scorer.json`` says; every key may be left out.

    Attributes:
        name: the model's name.
        description: one paragraph.
        licence: licence of the weights.
        grounding: per dimension "human" or "proxy": what the model was aligned with.
        dimensions: the dimensions it can be asked for, with its own questions where it has some
            (keys "dimensions": names, "questions": texts by name, and "templates": those of its own, by name, with
            "readout", "question", "levels", "low", "high" and "words" as `load_scorer("mllm", ...)` takes them).
        system_prompt: put before the question, or None.
        default: what is scored unless another dimension is named, or "".
        model: folder or hub name of the model, where the folder holds none itself.
        adapter: of a peft adapter on it, or "".
    """

    name: str = ""
    description: str = ""
    licence: str = ""
    grounding: dict[str, str] = field(default_factory=dict)
    dimensions: dict[str, Dimension] = field(default_factory=lambda: dict(DIMENSIONS))
    system_prompt: str | None = None
    default: str = ""
    model: str = ""
    adapter: str = ""

    @staticmethod
    def read(folder: Path) -> ScorerFacts:
        """Read the facts in a folder; without the file, the defaults with the folder's name.

        Raises:
            ModelError: not a JSON object, or a value of the wrong kind.

        >>> ScorerFacts.read(Path("no/such/model")).name
        'model'
        """
        path = folder / FACTS_FILE
        if not path.is_file():
            return ScorerFacts(name=folder.name)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return ScorerFacts(
                name=str(data.get("name", folder.name)),
                description=str(data.get("description", "")),
                licence=str(data.get("licence", "")),
                grounding={str(name): str(value) for name, value in data.get("grounding", {}).items()},
                dimensions=from_json(data),
                system_prompt=data.get("system_prompt"),
                **{key: str(data.get(key, "")) for key in _OPTIONAL},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path}: {type(error).__name__}: {error}") from error

    def write(self, folder: Path) -> None:
        """Write the facts into a folder, every question in full.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ScorerFacts(name="mine").write(Path(folder))
        ...     ScorerFacts.read(Path(folder)) == ScorerFacts(name="mine")
        True
        """
        templates = to_json(self.dimensions)
        facts: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "licence": self.licence,
            "dimensions": list(self.dimensions),
            "grounding": self.grounding,
            "questions": {name: dim.question for name, dim in self.dimensions.items() if name not in templates},
        }
        if templates:
            facts["templates"] = templates
        if self.system_prompt is not None:
            facts["system_prompt"] = self.system_prompt
        facts |= {key: getattr(self, key) for key in _OPTIONAL if getattr(self, key)}
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(
    model: str | Path,
    adapter: str | Path | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    trust_remote_code: bool,
    bits: int | None = None,
) -> tuple[PreTrainedModel, ProcessorMixin, ScorerFacts]:
    """Load model, processor and facts; weights from safetensors only.

    `model` may itself be an adapter, a folder or on the hub: it names its base. An adapter is merged into the
    weights, modules that it saved in full included. Processor and facts come from the adapter's folder where it has
    them. The device defaults to the GPU if there is one, the type to float32 on a CPU and bfloat16 elsewhere.
    `bits`: weights in 8 or 4 bits, on a GPU; an adapter cannot be merged into these.

    Raises:
        InputError: `bits` with an adapter, or without a GPU; MissingExtraError: without bitsandbytes.
        ModelError: nothing there, another kind of model, no safetensors, or weights that are missing.

    Executed examples are in ``tests/scorers/test_checkpoints.py``.
    """
    given = model
    model, adapter = elsewhere(model, adapter)
    if adapter is None and hub_file(model, ADAPTER_FILE) is not None:
        adapter = local_adapter(model)
        model = base_of(adapter)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = dtype or (torch.float32 if place.type == "cpu" else torch.bfloat16)
    if bits is not None and adapter is not None:
        raise InputError(
            f"bits={bits}: an adapter is not merged into weights of {bits} bits; make a plain model of it first: "
            f"cogguided align merge {adapter} FOLDER"
        )
    loaded = load_model(model, kind, trust_remote_code, few_bits(bits, kind))
    homes = [Path(model)]
    if adapter is not None:
        homes.insert(0, local_adapter(adapter))
        loaded = _merge_adapter(loaded, homes[0])
    processor = load_processor(homes, str(model), trust_remote_code)
    files = (hub_file(home, FACTS_FILE) for home in (given, adapter, model) if home)
    told = next((file for file in files if file is not None), None)
    facts = ScorerFacts.read(homes[0] if told is None else told.parent)
    ready: Any = loaded.eval().requires_grad_(False)
    return ready if bits is not None else ready.to(place), processor, facts


def elsewhere(model: str | Path, adapter: str | Path | None) -> tuple[str | Path, str | Path | None]:
    """Where the weights of a folder are that holds facts alone, relative to it if it says so.

    >>> elsewhere("owner/model", None)
    ('owner/model', None)
    """
    folder = Path(model)
    weights = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    if weights or not (folder / FACTS_FILE).is_file():
        return model, adapter
    facts = ScorerFacts.read(folder)
    if not facts.model:
        return model, adapter
    found = [str(folder / name) if name.startswith(".") else name for name in (facts.model, facts.adapter)]
    return found[0], adapter or found[1] or None


def few_bits(bits: int | None, dtype: torch.dtype, skipped: Sequence[str] = ("lm_head",)) -> object:
    """Settings for weights of 8 or 4 bits (NF4), or None for None.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        InputError: there is no GPU, or another number of bits.

    >>> few_bits(None, torch.float32) is None
    True
    """
    if bits is None:
        return None
    if bits not in (4, 8):
        raise InputError(f"bits: expected 4 or 8, got {bits}")
    if find_spec("bitsandbytes") is None:
        raise missing_extra("bitsandbytes", "quantized")
    if not torch.cuda.is_available():
        raise InputError(f"bits={bits} needs a CUDA GPU, and none is here")
    return BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(skipped),
    )


def hub_file(model: str | Path, name: str) -> Path | None:
    """Return a small file of a folder or hub repository, fetched if need be; None where there is none.

    >>> hub_file("no/such/folder", "config.json") is None
    True
    """
    if Path(model).is_dir():
        found = Path(model) / name
        return found if found.is_file() else None
    if str(model).count("/") != 1 or str(model).startswith((".", "/", "~")):
        return None
    try:
        return Path(hf_hub_download(str(model), name))
    except (OSError, ValueError, EntryNotFoundError):
        # no such file, repository or network: loading the weights says what is wrong
        return None


def base_of(adapter: Path) -> str | Path:
    """Folder or hub name of the model that an adapter folder belongs to; "embedded" is the one of the package.

    Raises:
        ModelError: it names none, or a folder that is not there.

    Executed examples are in ``tests/scorers/test_checkpoints.py``.
    """
    config: dict[str, Any] = json.loads((adapter / ADAPTER_FILE).read_text(encoding="utf-8"))
    base = str(config.get("base_model_name_or_path") or "")
    if not base:
        raise ModelError(
            f"{adapter}/adapter_config.json names no base_model_name_or_path: pass model=... too"
        )
    if base == "embedded":
        return EMBEDDED / "text_encoder"
    beside = adapter / base
    if beside.is_dir():
        return beside.resolve()
    if base.startswith("."):
        raise ModelError(f"{adapter}: its base {base!r} is not there: no folder {beside.resolve()}")
    return base


def load_model(
    model: str | Path,
    dtype: torch.dtype | Literal["auto"],
    trust_remote_code: bool = False,
    quantization: object = None,
) -> PreTrainedModel:
    """Load an image-text-to-text model from safetensors; `quantization` is a transformers config, or None.

    Raises:
        ModelError: nothing there, another kind of model, no safetensors, or weights that are missing.

    Executed examples are in ``tests/scorers/test_checkpoints.py``.
    """
    extra: dict[str, Any] = {}
    if quantization is not None:
        extra = {"quantization_config": quantization, "device_map": {"": torch.cuda.current_device()}}
    try:
        with LOADING:
            answer: Any = AutoModelForImageTextToText.from_pretrained(
                model,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **extra,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{model}: cannot be loaded as an image-text-to-text model with safetensors weights "
            f"({type(error).__name__}: {str(error).strip()})"
        ) from error
    loaded: PreTrainedModel = answer[0]
    missing = sorted(answer[1]["missing_keys"])
    if missing:
        raise ModelError(f"{model}: {len(missing)} weights are missing, such as '{missing[0]}'")
    return loaded


def local_adapter(adapter: str | Path) -> Path:
    """Folder of an adapter, fetched from the hub if need be.

    Raises:
        ModelError: nothing there, or no safetensors.

    Executed examples are in ``tests/scorers/test_checkpoints.py``.
    """
    if Path(adapter).is_dir():
        folder = Path(adapter)
    else:
        try:
            folder = Path(
                snapshot_download(str(adapter), ignore_patterns=["*.bin", "*.pt", "*.pth", "*.ckpt"])
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"{adapter}: no such adapter folder, nor on the hub ({error})") from error
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter}: no adapter_model.safetensors; weights are read from safetensors only")
    return folder


def _merge_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            # peft 0.21 still asks transformers 5 by an old name; nothing that a user could change
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            wrapped = PeftModel.from_pretrained(model, str(adapter))
        merged: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{adapter}: does not fit its base model ({type(error).__name__}: {error})"
        ) from error
    return merged


def load_processor(homes: list[Path], hub_name: str, trust_remote_code: bool = False) -> ProcessorMixin:
    """Load the processor from the first folder that has one, or the pipeline it is of, else from the hub.

    Raises:
        ModelError: none that can be used, or one without a chat template.

    Executed examples are in ``tests/scorers/test_checkpoints.py``.
    """
    home = home_of(PROCESSOR_FILES, *homes)
    try:
        loaded: Any = AutoProcessor.from_pretrained(home or hub_name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"{home or hub_name}: no usable processor ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(loaded, ProcessorMixin):
        raise ModelError(
            f"{home or hub_name}: holds a {type(loaded).__name__}, not an image-and-text processor"
        )
    if not loaded.chat_template:  # some processors drop what their own tokenizer reads from the same file
        tokenizer: Any = getattr(loaded, "tokenizer", None)
        loaded.chat_template = getattr(tokenizer, "chat_template", None)
    if not loaded.chat_template:
        raise ModelError(
            f"{home or hub_name}: its processor has no chat template, so the model cannot be asked"
        )
    return loaded
