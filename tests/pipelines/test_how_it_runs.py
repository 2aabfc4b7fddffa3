"""Ways to run a pipeline that change its components: compiled, offloaded by groups, stored in another type."""

import numpy as np
import pytest
import torch
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, Drafts, FakeScorer, Halving

GUIDANCE = [BestOfN(3, batch_size=3), Halving(3, at=(0.5,)), Drafts(3, steps=2, full=2)]


def denoiser(pipe):
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def compiled(pipe):
    if hasattr(pipe, "unet"):
        pipe.unet = torch.compile(pipe.unet, backend="eager")
    else:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")


def compiled_in_place(pipe):
    denoiser(pipe).compile(backend="eager")


def repeated_blocks(pipe):
    denoiser(pipe).compile_repeated_blocks(backend="eager")


def offloaded_by_groups(pipe):
    cpu = torch.device("cpu")
    denoiser(pipe).enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


def stored_in_half(pipe):
    denoiser(pipe).enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


WAYS = [offloaded_by_groups, stored_in_half]
COMPILED = [compiled, compiled_in_place, repeated_blocks]


@pytest.mark.filterwarnings("ignore:.*was not found on the model:UserWarning")
@pytest.mark.parametrize("way", [*WAYS, *(pytest.param(way, marks=pytest.mark.slow) for way in COMPILED)])
@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_guidance_gives_what_the_base_gives_in_that_way(family, way):
    base = tiny_pipeline(family)
    if way is repeated_blocks and not getattr(denoiser(base), "_repeated_blocks", None):
        way = compiled_in_place  # it names no blocks that repeat
    way(base)
    call = {**CALL[family], "num_inference_steps": 4}
    pipe = CogGuidedPipeline.from_pipe(base)
    for guidance in GUIDANCE:
        out = pipe("a cat", seed=3, target=FakeScorer(), guidance=guidance, **call)
        (winner,) = out.chosen
        plain = base("a cat", generator=torch.Generator().manual_seed(winner.seed), **call).images[0]
        assert np.abs(np.asarray(winner.image).astype(int) - np.asarray(plain)).max() <= 1
        assert len(out.candidates) >= 3
    out = pipe("a cat", seed=3, target=FakeScorer(), guidance=BestOfN(8, batch_size=2), budget="20nfe", **call)
    assert 1 <= len(out.candidates) < 8  # evaluations are counted in every way
