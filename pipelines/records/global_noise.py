"""Torch's global random state, which a pipeline draws from where it is given no generator, as a record has it."""

from __future__ import annotations

import base64
from typing import Any

import torch

from ..._errors import RecordError


def state_of(device: torch.device) -> dict[str, str]:
    """Return the state that a pipeline on a device would draw its next noise from, in JSON's types.

    >>> noise = state_of(torch.device("cpu"))
    >>> torch.equal(torch.randn(3), torch.randn(3, generator=generator_at(noise)))
    True
    """
    backend: Any = torch if device.type == "cpu" else getattr(torch, device.type)
    state: torch.Tensor = backend.get_rng_state()
    return {"device": device.type, "base64": base64.b64encode(state.numpy().tobytes()).decode()}


def generator_at(facts: dict[str, str]) -> torch.Generator:
    """Return a generator that draws what torch's global one drew from a recorded state.

    Raises:
        RecordError: it was one of a device that is not here.
    """
    try:
        generator = torch.Generator(facts["device"])
    except RuntimeError as error:
        raise RecordError(f"its noise was drawn on {facts['device']}, which is not here") from error
    data = bytearray(base64.b64decode(facts["base64"]))
    return generator.set_state(torch.frombuffer(data, dtype=torch.uint8))
