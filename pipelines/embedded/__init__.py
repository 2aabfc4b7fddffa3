"""The model that comes with the package: small, offline, of the same classes as the big ones."""

from __future__ import annotations

from pathlib import Path

from ..._errors import ModelError
from . import packed as packed  # diffusers opens the folder with the classes there

WEIGHTS = Path(__file__).parent / "weights"


def is_embedded(name: object) -> bool:
    """Whether a pipeline that was loaded by this name or from this folder is the embedded model.

    >>> is_embedded("embedded"), is_embedded(None)
    (True, False)
    """
    return str(name) in ("embedded", str(WEIGHTS))


def embedded_path() -> Path:
    """Return the folder of the embedded model, a diffusers folder with its scorers beside.

    Raises:
        ModelError: the weights are not in this copy of the package.

    >>> embedded_path().name
    'weights'
    """
    folder = WEIGHTS
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            f"the embedded model is not in {folder}: this copy of cogguided was made without its weights; "
            "install the wheel or clone the whole repository, or train it again with 'make embedded'"
        )
    return folder
