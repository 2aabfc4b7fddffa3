"""Records: what a call was and what came of it, in `candidates.json` and in every PNG."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import diffusers
import numpy as np
import PIL
import torch
import transformers
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LoraBaseMixin
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..._errors import InputError, RecordError
from ..._texts import to_json_text
from ..._version import __version__
from ...guidance import Budget, Candidate, Guidance, Request, guidance_to_dict
from ...scorers import Target

FORMAT = "cogguided candidates"
VERSION = 1
FILE = "candidates.json"
PNG_KEY = "cogguided"
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Record:
    """A record as read back; `facts` is the JSON, `path` where it came from."""

    path: Path
    facts: dict[str, Any]

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """The facts of each candidate, in the order they were made."""
        found: list[dict[str, Any]] = self.facts["candidates"]
        return found


def versions() -> dict[str, str]:
    """Return the versions that an image can depend on.

    >>> sorted(versions())
    ['cogguided', 'diffusers', 'pillow', 'python', 'torch', 'transformers']
    """
    return {
        "cogguided": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "pillow": PIL.__version__,
    }


def describe_pipeline(pipe: DiffusionPipeline, base_class: str, revision: str | None) -> dict[str, Any]:
    """Say what a pipeline is: where it was loaded from, class, dtype, device, scheduler, adapters."""
    name = pipe.config.get("_name_or_path")
    if name and Path(name).is_dir():
        name = str(Path(name).resolve())
    scheduler = pipe.components.get("scheduler")
    return {
        "name": name,
        "revision": commit(name, revision),
        "class": base_class,
        "dtype": str(pipe.dtype).removeprefix("torch."),
        "device": describe_device(pipe._execution_device),
        "scheduler": None if scheduler is None else to_json(json.loads(scheduler.to_json_string())),
        "adapters": pipe.get_list_adapters() if isinstance(pipe, LoraBaseMixin) else {},
    }


def commit(name: str | None, revision: str | None) -> str | None:
    """Return the commit of a hub model that the local cache has; the revision as asked for if it has none.

    >>> commit("/some/folder", None) is None
    True
    """
    if not name or Path(name).is_absolute() or name.count("/") != 1:
        return revision
    cached = try_to_load_from_cache(name, "model_index.json", revision=revision)
    return Path(cached).parent.name if isinstance(cached, str) else revision


def describe_device(device: torch.device) -> str:
    """Return a device's type and, for a GPU, its name.

    >>> describe_device(torch.device("cpu"))
    'cpu'
    """
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def describe_call(
    requests: Sequence[Request],
    target: Target | None,
    steps: Sequence[Guidance],
    budget: Budget,
    arguments: dict[str, Any],
) -> dict[str, Any]:
    """Say what a call asked for, in JSON's types."""
    guidance = []
    for step in steps:
        try:
            guidance.append(guidance_to_dict(step))
        except InputError:  # one of the user's own, known by its name and what it shows of itself
            guidance.append({"name": step.name, NOT_RECORDED: repr(step)})
    return {
        "prompts": [request.prompt for request in requests],
        "seeds": [None if request.seed < 0 else request.seed for request in requests],
        "target": None if target is None else target.weights,
        "ranges": {} if target is None else {t.name: [t.scorer.low, t.scorer.high] for t in target.terms},
        "guidance": guidance,
        "budget": {"seconds": budget.seconds, "nfe": budget.nfe},
        "arguments": {name: to_json(value) for name, value in arguments.items() if name != "generator"},
    }


def to_json(value: Any) -> Any:
    """Return an argument in JSON's types; what has no place there is described, and then cannot be replayed.

    >>> to_json((0, 1)), to_json(torch.zeros(1, 3))
    ({'tuple': [0, 1]}, {'not recorded': 'Tensor (1, 3)'})
    """
    if isinstance(value, tuple):
        return {"tuple": [to_json(item) for item in value]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, np.generic):
        return to_json(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    shape = f" {tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
    return {NOT_RECORDED: type(value).__name__ + shape}


def from_json(value: Any) -> Any:
    """Undo `to_json`.

    >>> from_json({"tuple": [0, 1]})
    (0, 1)
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"tuple"}:
            return tuple(from_json(item) for item in value["tuple"])
        if set(value) == {"float"}:
            return float(value["float"])
        return {key: from_json(item) for key, item in value.items()}
    return value


def pixels_sha256(image: Image.Image) -> str:
    """Return a fingerprint of an image's mode, size and pixels, whatever file it is in.

    >>> pixels_sha256(Image.new("RGB", (1, 1)))[:8]
    'b1570eaa'
    """
    head = f"{image.mode} {image.width} {image.height} ".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def candidate_facts(candidate: Candidate, index: int) -> dict[str, Any]:
    """Say all that is known of a candidate, in JSON's types; a score that is NaN is null."""
    return {
        "index": index,
        "file": file_name(candidate, index),
        "prompt": candidate.prompt,
        "seed": candidate.seed,
        "request": candidate.request,
        "chosen": candidate.chosen,
        "score": _finite(candidate.score),
        "scores": {name: _finite(value) for name, value in candidate.scores.items()},
        "stds": {name: _finite(value) for name, value in candidate.stds.items()},
        "valid": candidate.valid,
        "error": candidate.error,
        "finished": candidate.finished,
        "held_back": candidate.held_back,
        "origin": to_json(candidate.origin),
        "base_output": to_json(candidate.base_output),
        "seconds": {name: round(value, 4) for name, value in candidate.seconds.items()},
        "batch": candidate.batch,
        "sha256": pixels_sha256(candidate.image),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def file_name(candidate: Candidate, index: int) -> str:
    """Return where a candidate is saved: the chosen ones at the top, the others in `candidates/`.

    >>> file_name(Candidate(Image.new("RGB", (1, 1)), "A happy face!", 3, chosen=True), 5)
    '005_a-happy-face_seed3.png'
    """
    return ("" if candidate.chosen else "candidates/") + f"{index:03d}_{title(candidate)}.png"


def title(candidate: Candidate) -> str:
    """Return a candidate's wording and seed as a part of a file name.

    >>> title(Candidate(Image.new("RGB", (1, 1)), "名前", 3))
    'image_seed3'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", candidate.prompt.lower()).strip("-")[:40].strip("-") or "image"
    return slug if candidate.seed is None else f"{slug}_seed{candidate.seed}"


def write_png(image: Image.Image, path: Path, record: dict[str, Any]) -> None:
    """Save an image with a record of itself in its text chunks, whole or not at all."""
    info = PngInfo()
    info.add_itxt("Description", record["candidates"][0]["prompt"])
    info.add_text("Software", f"cogguided {__version__}")
    info.add_itxt(PNG_KEY, to_json_text(record))
    write_whole(path, lambda file: image.save(file, "PNG", pnginfo=info))


def write_json(facts: dict[str, Any], path: Path) -> None:
    """Save JSON, whole or not at all."""
    text = to_json_text(facts, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under another name and then rename it, so that nobody ever sees half of it.

    Raises:
        RecordError: it cannot be written; an older file of that name is still there.

    >>> write_whole(Path("/proc/nowhere/x"), lambda file: None)
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: cannot write /proc/nowhere/x: ...
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_single(path: str | Path) -> Record:
    """Read the record of one call: a `candidates.json`, the folder it is in, or a PNG that was saved with one.

    Raises:
        RecordError: there is none, or not one of this format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    try:
        if path.suffix.lower() == ".png":
            with Image.open(path) as image:
                image.load()
                text = image.info.get(PNG_KEY)
            if text is None:
                raise RecordError(f"{path}: this PNG carries no cogguided record")
            facts = json.loads(text)
        else:
            facts = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or not facts.get("candidates"):
        raise RecordError(f"{path}: not a record of cogguided (expected {FILE} or one of its PNGs)")
    if facts["version"] != VERSION:
        raise RecordError(f"{path}: version {facts['version']} of the format, expected {VERSION}")
    return Record(path, facts)
