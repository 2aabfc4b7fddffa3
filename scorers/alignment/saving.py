"""What training leaves behind: an adapter or model that `MLLMScorer` loads, and plain models made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, ProcessorMixin

from ..._errors import InputError, ModelError
from ..mllm.checkpoints import ScorerFacts, base_of, load_checkpoint, local_adapter
from .parts import quiet_libraries


def save_aligned(
    model: PreTrainedModel | Any, processor: ProcessorMixin, facts: ScorerFacts, folder: Path, base: str
) -> None:
    """Save everything that was trained, with processor and facts, as a folder that `load_scorer` takes.

    A peft model becomes an adapter which names `base`, the folder or hub name of its base; another model is
    saved whole. Either way the questions that it was taught are in the folder, and are those it is asked.

    Executed in ``tests/scorers/alignment/test_sft.py``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(folder)
    else:
        with quiet_libraries():
            model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        config_file = folder / "adapter_config.json"
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base
        config_file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    saved: Any = processor
    saved.save_pretrained(folder)
    facts.write(folder)


def merge(
    adapter: str | Path,
    output: str | Path,
    model: str | Path | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Write a plain model out of an adapter and its base; it scores like the adapter.

    Args:
        adapter: folder or hub name of an adapter.
        output: a folder that is not there yet, or empty.
        model: the base, where the adapter does not say it rightly.
        dtype: of the weights; default: as the base is stored. A type of 16 bits rounds what was learnt.
        trust_remote_code: run code that comes with the model.

    Returns:
        the folder, which also plain transformers opens.

    Raises:
        ModelError: not an adapter, or one that does not fit its base.
        InputError: the output folder holds something.

    Executed in ``tests/scorers/alignment/test_saving.py``.
    """
    target = Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not empty: name a new folder")
    home = local_adapter(adapter)
    base = base_of(home) if model is None else model
    merged, processor, facts = load_checkpoint(base, home, "cpu", torch.float32, trust_remote_code)
    kind = stored_dtype(base, trust_remote_code) if dtype is None else dtype
    plain: Any = merged
    save_aligned(plain.to(dtype=kind), processor, facts, target, str(base))
    return target


def stored_dtype(model: str | Path, trust_remote_code: bool = False) -> torch.dtype:
    """Type that a model's weights are stored in, by its config; float32 where that does not say.

    Raises:
        ModelError: no config there.

    Executed in ``tests/scorers/alignment/test_saving.py``.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(f"{model}: no model config ({error})") from error
    kind = config.dtype
    return kind if isinstance(kind, torch.dtype) else torch.float32
