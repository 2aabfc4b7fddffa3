"""What a pipeline's call sets at its start and resets at its end, put back when the call is left from within."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import DiffusionPipeline


@contextmanager
def processors_kept(pipe: DiffusionPipeline) -> Iterator[None]:
    """Leave the attention processors of a pipeline's models as they were, whatever the call inside puts there.

    Perturbed-attention guidance does so: its processors would break the next call without it.
    """
    models = [part for part in pipe.components.values() if hasattr(part, "attn_processors")]
    before = [dict(model.attn_processors) for model in models]
    try:
        yield
    finally:
        for model, kept in zip(models, before, strict=True):
            now = model.attn_processors
            if any(now.get(name) is not processor for name, processor in kept.items()):
                model.set_attn_processor(kept)
