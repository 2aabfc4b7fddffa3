"""Loading any text-to-image checkpoint as its own diffusers pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from .._errors import ModelError
from .._loading import LOADING
from .embedded import embedded_path

EMBEDDED = "embedded"


def load_base(model: str | Path, **kwargs: Any) -> tuple[DiffusionPipeline, str]:
    """Load a checkpoint, and say which folder or hub repository it was.

    Args:
        model: "embedded", a folder, or a hub name.
        **kwargs: as for `DiffusionPipeline.from_pretrained`.

    Raises:
        ModelError: there is no such model, or diffusers cannot load it; the cause is attached.

    >>> load_base("./nowhere")
    Traceback (most recent call last):
    ...
    cogguided._errors.ModelError: model './nowhere': no such folder
    """
    name = str(model)
    source = str(embedded_path()) if name == EMBEDDED else name
    if name == EMBEDDED:
        kwargs = {"dtype": torch.float32, **kwargs}  # kept in half precision, which a CPU is slow at
    elif not Path(name).is_dir() and (isinstance(model, Path) or name.startswith((".", "/", "~"))):
        raise ModelError(f"model {name!r}: no such folder")
    try:
        with LOADING:
            base = DiffusionPipeline.from_pretrained(source, **kwargs)
    except ModelError:
        raise
    except (OSError, ValueError, AttributeError, ImportError, RuntimeError) as error:
        hint = "'embedded' is the one that is always at hand"
        why = " ".join(str(error).split()) if isinstance(error, ImportError) else str(error)  # begins on a new line
        raise ModelError(f"model {name!r} cannot be loaded ({hint}): {why}") from error
    base.register_to_config(_name_or_path=name)
    return base, source
