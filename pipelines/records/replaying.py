"""Make a recorded candidate again, pixel for pixel, or say why that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image

from ..._errors import ModelError, RecordError
from ..arguments import check_arguments
from ..cog_guided import CogGuidedPipeline
from ..driving.sampler import PipelineSampler
from .global_noise import generator_at
from .record import NOT_RECORDED, Record, describe_pipeline, from_json, pixels_sha256, versions
from .streamed import read_record
from .trace import LATENTS, Entries, play, read_trace


@dataclass(frozen=True, eq=False)
class Replay:
    """A candidate made again.

    Attributes:
        image: the new image.
        same: whether every pixel is the recorded one.
        differences: what is not as it was then (versions, device, dtype, ...), as sentences.
        candidate: the recorded facts.
    """

    image: Image.Image
    same: bool
    differences: list[str]
    candidate: dict[str, Any]


def replay(record: str | Path | Record, index: int | None = None, pipe: CogGuidedPipeline | None = None) -> Replay:
    """Make a candidate of a record again, with the batch mates it had, so that not even rounding differs.

    Args:
        record: a `candidates.json` or `candidates.jsonl`, its folder, or a PNG that was saved with one.
        index: which candidate; None: the first chosen one, or the only one of a PNG.
        pipe: the pipeline to use; None: the recorded model is loaded, with its revision, dtype and scheduler,
            on the recorded kind of device if there is one here.

    Raises:
        RecordError: no such candidate, or something that shaped the image is not in the record.
        ModelError: `pipe` is of another class.

    >>> pipe = CogGuidedPipeline.from_pretrained("embedded")
    >>> pipe.set_progress_bar_config(disable=True)
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pipe("a cat", seed=3, num_inference_steps=2).save(folder)
    ...     replay(folder, 0).same
    True
    """
    record = record if isinstance(record, Record) else read_record(record, index)
    candidate = pick(record, index)
    model, arguments = record.facts["model"], record.facts["call"]["arguments"]
    check_replayable(record, candidate, arguments)
    if pipe is None:
        pipe = load_recorded(record)
    elif pipe.base_class.__name__ != model["class"]:
        raise ModelError(f"the record is of a {model['class']}, the pipeline a {pipe.base_class.__name__}")
    check_arguments(pipe.base_class, arguments)
    sampler = PipelineSampler(pipe, pipe.base_class, {k: from_json(v) for k, v in arguments.items()})
    batch = candidate["batch"]
    if "entry" in batch:
        trace = trace_of(record, batch["entry"])
        image = play(sampler, trace, batch["entry"])[batch["index"]]
        return Replay(image, pixels_sha256(image) == candidate["sha256"], differences(record, pipe), candidate)
    prompts = batch["prompts"][:: arguments.get("num_images_per_prompt") or 1]
    if "state" in batch:
        images = sampler.call(prompts if len(prompts) > 1 else prompts[0], generator_at(batch["state"]))
    else:
        images = sampler.sample(prompts, batch["seeds"])
    image = images[batch["index"]]
    return Replay(image, pixels_sha256(image) == candidate["sha256"], differences(record, pipe), candidate)


def pick(record: Record, index: int | None) -> dict[str, Any]:
    """Return the facts of one candidate.

    Raises:
        RecordError: the record has none of that index.

    >>> pick(Record(Path("r"), {"candidates": [{"index": 4, "chosen": True}]}), None)["index"]
    4
    """
    if index is None:
        return next((c for c in record.candidates if c["chosen"]), record.candidates[0])
    for candidate in record.candidates:
        if candidate["index"] == index:
            return candidate
    known = [c["index"] for c in record.candidates]
    raise RecordError(f"{record.path}: no candidate {index}; it has {known[0]} to {known[-1]}")


def check_replayable(record: Record, candidate: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Check that all that shaped a candidate is in its record.

    Raises:
        RecordError: something is not.
    """
    lost = [n for n, v in arguments.items() if isinstance(v, dict) and NOT_RECORDED in v]
    if lost:
        what = ", ".join(f"{name} ({arguments[name][NOT_RECORDED]})" for name in lost)
        raise RecordError(f"{record.path}: cannot be replayed, these arguments are not in it: {what}")
    if "entry" in candidate["batch"]:
        trace_of(record, candidate["batch"]["entry"])
    elif None in candidate["batch"]["seeds"] and "state" not in candidate["batch"]:
        raise RecordError(
            f"{record.path}: cannot be replayed, its noise came from a generator that is not a fresh CPU one "
            "with a seed; call with seed=... next time"
        )


def trace_of(record: Record, entry: int) -> Entries:
    """Return what an entry of a record's trace rests on (see `read_trace`)."""
    return read_trace(record.facts.get("trace", {}), record.path, entry, record.facts.get("latents", LATENTS))


def load_recorded(record: Record) -> CogGuidedPipeline:
    """Load the recorded model as it was: revision, dtype, scheduler, and device where there is one.

    Raises:
        RecordError: it was not loaded by a name, or had adapters; pass `pipe` then.
    """
    model = record.facts["model"]
    if not model["name"]:
        raise RecordError(f"{record.path}: the {model['class']} was not loaded by a name; pass pipe=...")
    adapters = {part: names for part, names in model["adapters"].items() if names}
    if adapters:
        raise RecordError(f"{record.path}: the model had adapters {adapters}; load them and pass pipe=...")
    dtype = getattr(torch, model["dtype"])
    kwargs = {"revision": model["revision"]} if model["revision"] else {}
    pipe = CogGuidedPipeline.from_pretrained(model["name"], dtype=dtype, **kwargs)
    scheduler = model["scheduler"]
    if scheduler is not None:
        try:
            pipe.scheduler = getattr(diffusers, scheduler["_class_name"]).from_config(from_json(scheduler))
        except ImportError as error:
            raise RecordError(f"{record.path}: {' '.join(str(error).split())}") from error
    if model["device"].startswith("cuda") and torch.cuda.is_available():
        pipe.to("cuda")
    return pipe


def differences(record: Record, pipe: CogGuidedPipeline) -> list[str]:
    """Say what is not as it was when a record was made: versions, model, dtype, device, adapters.

    >>> pipe = CogGuidedPipeline.from_pretrained("embedded")
    >>> facts = {"versions": {**versions(), "torch": "1.0"}, "model": {"class": "FluxPipeline"}}
    >>> differences(Record(Path("r"), facts), pipe)[1]
    "class was 'FluxPipeline', is 'QwenImagePipeline'"
    """
    now = describe_pipeline(pipe, pipe.base_class.__name__, pipe._revision)
    found = [
        f"{name} was {then}, is {versions().get(name)}"
        for name, then in record.facts["versions"].items()
        if versions().get(name) != then
    ]
    return found + [f"{n} was {t!r}, is {now[n]!r}" for n, t in record.facts["model"].items() if now[n] != t]
