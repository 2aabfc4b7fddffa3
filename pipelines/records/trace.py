"""What a search did with its images, entry by entry, so that each of them can be made again.

A sampler writes an entry for whatever it computes: "begin" (prompts and noise), "advance" (steps taken by rows of
earlier entries), "put" (their latents replaced) and "decode" (images made of them). A candidate names the entry that
its image came from and its place there; to make it again, that entry and all it rests on are computed anew, in the
very batches, so that not even rounding differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..._errors import RecordError
from ...guidance import Noise
from ..driving.sampler import PipelineSampler
from ..driving.trajectories import Trajectories
from .record import NOT_RECORDED, from_json, to_json

CHILDREN = ("advance", "put", "decode")
"""Kinds of entries that work on rows of earlier ones."""
LATENTS = "latents.safetensors"
"""File beside a record with what no seed gives: noise of one image by "entry.row", latents (B, ...) by "entry"."""

Entries = dict[int, dict[str, Any]]


def parents(entry: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return where the rows of an entry come from, as (entry, row); none for one that begins.

    >>> parents({"decode": [[3, 0], [3, 2]], "clean": True})
    [(3, 0), (3, 2)]
    """
    return [(at, row) for name in CHILDREN for at, row in entry.get(name, ())]


def needed(trace: Mapping[int, Mapping[str, Any]], entries: Iterable[int]) -> list[int]:
    """Return the entries that some of them rest on, themselves too, in order.

    Raises:
        KeyError: the trace lacks one of them.

    >>> trace = {0: {"begin": ["a cat"]}, 1: {"begin": ["a dog"]}, 2: {"decode": [[1, 0]]}}
    >>> needed(trace, [2])
    [1, 2]
    """
    found: set[int] = set()
    waiting = list(entries)
    while waiting:
        entry = waiting.pop()
        if entry not in found:
            found.add(entry)
            waiting += {at for at, _ in parents(trace[entry])}
    return sorted(found)


def to_facts(trace: Sequence[Mapping[str, Any]], entries: Iterable[int]) -> dict[str, Any]:
    """Describe the entries that some rest on in JSON's types, by number; given latents are named, not included."""
    whole = dict(enumerate(trace))
    return {str(number): _entry_facts(number, whole[number]) for number in needed(whole, entries)}


def _entry_facts(number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: value for name, value in entry.items() if name not in ("noise", "arguments", "latents")}
    if "begin" in entry:
        facts["noise"] = [
            {"mix": [list(part) for part in noise.mix]}
            | ({} if noise.latents is None else {"latents": f"{number}.{row}"})
            for row, noise in enumerate(entry["noise"])
        ]
        facts["arguments"] = to_json(entry["arguments"])
    return {name: [list(place) for place in value] if name in CHILDREN else value for name, value in facts.items()}


def latents_file(trace: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Return the content of `LATENTS`, or None if every noise comes from seeds."""
    tensors = {
        f"{number}.{row}": noise.latents.detach().cpu().contiguous()
        for number, entry in enumerate(trace)
        for row, noise in enumerate(entry.get("noise", ()))
        if noise.latents is not None
    }
    tensors |= {str(n): entry["latents"].contiguous() for n, entry in enumerate(trace) if "put" in entry}
    return save(tensors) if tensors else None


def read_trace(facts: Mapping[str, Any], path: Path, entry: int, latents: str = LATENTS) -> Entries:
    """Return the entries that one rests on, with their noise, from a record's facts.

    Args:
        facts: the record's `trace`.
        path: the record's file; given latents lie beside it, or for a PNG in folders below one or two up.
        entry: that a candidate's image came from.
        latents: the file of given latents.

    Raises:
        RecordError: an entry, an argument or latents are missing.
    """
    whole = {int(number): value for number, value in facts.items()}
    try:
        numbers = needed(whole, [entry])
    except KeyError as error:
        raise RecordError(f"{path}: cannot be replayed, entry {error} of its trace is missing") from error
    found: Entries = {}
    for number in numbers:
        value = dict(whole[number])
        if "begin" in value:
            lost = [n for n, v in value["arguments"].items() if isinstance(v, dict) and NOT_RECORDED in v]
            if lost:
                raise RecordError(f"{path}: cannot be replayed, these arguments are not in it: {lost}")
            value["arguments"] = {n: from_json(v) for n, v in value["arguments"].items()}
            value["noise"] = [_noise(noise, path, latents) for noise in value["noise"]]
        if "put" in value:
            value["latents"] = _latents(str(number), path, latents)
        found[number] = value
    return found


def _noise(facts: Mapping[str, Any], path: Path, file: str) -> Noise:
    mix = tuple((int(seed), float(weight)) for seed, weight in facts["mix"])
    return Noise(mix, _latents(facts["latents"], path, file) if "latents" in facts else None)


def _latents(name: str, path: Path, file: str) -> torch.Tensor:
    for folder in list(path.parents)[:3]:
        if (folder / file).is_file():
            try:
                return load_file(folder / file)[name]
            except (SafetensorError, KeyError, OSError) as error:
                raise RecordError(f"{folder / file}: cannot read latents {name}: {error}") from error
    raise RecordError(
        f"{path}: its noise was searched for, no seed gives it; it lies in {file} of the folder that was saved: "
        "replay from there"
    )


@torch.no_grad()
def play(sampler: PipelineSampler, trace: Entries, entry: int) -> list[Image.Image]:
    """Compute an entry anew and all that it rests on; returns its images."""
    rows: dict[int, Trajectories] = {}
    for number in needed(trace, [entry]):
        facts = trace[number]
        if "begin" in facts:
            rows[number] = sampler.begin(facts["begin"], facts["noise"], facts["arguments"])
            continue
        start = Trajectories.join([rows[at].select([row]) for at, row in parents(facts)])
        if "advance" in facts:
            rows[number] = sampler.advance(start, facts["until"], facts["eta"], facts["seeds"])
        elif "put" in facts:
            rows[number] = sampler.put(start, facts["latents"].to(sampler.latents(start)))
        elif number == entry:
            return sampler.decode(start, facts["clean"], facts["quick"])[0]
    raise RecordError(f"entry {entry} of the trace makes no images")
