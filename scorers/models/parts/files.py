"""Files that authors publish: found in a folder, on the Hub or at an address, and read without running code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...._errors import InputError, ModelError


def find_file(source: str | Path, names: Sequence[str], what: str) -> Path:
    """Return the first of some files that a folder or a Hub repository ("owner/name") has; a file is itself.

    Raises:
        InputError: no such folder or file.
        ModelError: none of these files is there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "b.pt").write_bytes(b"")
    ...     find_file(folder, ["a.safetensors", "b.pt"], "the weights").name
    'b.pt'
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        for name in names:
            if (path / name).is_file():
                return path / name
        raise ModelError(f"{path}: {what} not found there; expected one of {', '.join(names)}")
    if isinstance(source, Path) or str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
        raise InputError(f"{source}: no such file or folder, and no name on the Hub (owner/name)")
    reasons = []
    for name in names:
        try:
            return Path(hf_hub_download(str(source), name))
        except (OSError, ValueError) as error:
            reasons.append(f"{name}: {str(error).strip().partition(chr(10))[0] or type(error).__name__}")
    raise ModelError(f"{source}: {what} could not be fetched from the Hub ({'; '.join(reasons)})")


def fetch_file(address: str) -> Path:
    """Return a file from its https address, kept in torch's cache (``torch.hub.get_dir()``).

    Raises:
        ModelError: it could not be fetched.

    Executed, without a network, in ``tests/scorers/test_laion_aesthetic.py``.
    """
    kept = Path(torch.hub.get_dir(), "cogguided", *unquote(address).partition("://")[2].split("/"))
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(kept), progress=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{address}: could not be fetched ({error}); fetch it yourself to {kept}") from error
    return kept


@torch.inference_mode(False)  # what is read inside it never passes a gradient on
def read_weights(file: Path, inside: str | None = None) -> dict[str, torch.Tensor]:
    """Read tensors by name: a safetensors file, or a pickle of tensors only (``weights_only=True``).

    A pickle that holds anything else is refused before any of its code could run. `inside`: the key under which
    the file may keep its tensors.

    Raises:
        ModelError: no such file, or no plain weights.

    Executed examples are in ``tests/scorers/test_laion_aesthetic.py``.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(str(file))
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, pickle.UnpicklingError, SafetensorError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ModelError(f"{file}: cannot be read as plain weights ({type(error).__name__}: {first})") from error
    if inside is not None and isinstance(found, Mapping) and inside in found:
        found = found[inside]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelError(f"{file}: holds no plain tensors by name")
    return {str(name): value for name, value in found.items()}


def fill(
    model: torch.nn.Module, weights: Mapping[str, torch.Tensor], where: object, spare: Sequence[str] = ()
) -> None:
    """Put weights into a network; every one must be there, and none more but those that start with `spare`.

    Raises:
        ModelError: weights are missing, too many, or of another shape.

    >>> fill(torch.nn.Linear(1, 1), {"weight": torch.ones(1, 1)}, "w.pt")
    Traceback (most recent call last):
    ...
    cogguided._errors.ModelError: w.pt: 1 weights are missing, such as 'bias'
    """
    try:
        found = model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        line = str(error).partition("\n")[2].strip().partition("\n")[0]
        raise ModelError(f"{where}: weights of another shape ({line or error})") from error
    if found.missing_keys:
        raise ModelError(f"{where}: {len(found.missing_keys)} weights are missing, such as '{found.missing_keys[0]}'")
    unknown = [name for name in found.unexpected_keys if not name.startswith(tuple(spare))]
    if unknown:
        raise ModelError(f"{where}: {len(unknown)} weights have no place in this network, such as '{unknown[0]}'")


def place_for(device: torch.device | str | None) -> torch.device:
    """Return the device that was asked for, else the GPU if there is one.

    >>> place_for("cpu")
    device(type='cpu')
    """
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
