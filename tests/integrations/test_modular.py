"""The blocks in a real modular pipeline of diffusers: the embedded Qwen-Image."""

import numpy as np
import pytest
import torch
from diffusers import ModularPipeline
from diffusers.modular_pipelines import ModularPipelineBlocks
from PIL import Image

from cogguided import FakeScorer
from cogguided._errors import GenerationError, InputError
from cogguided.integrations import CogGuidedBlock, RerankBlock
from cogguided.pipelines import embedded_path

SMALL = {"height": 64, "width": 64, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def base():
    pipe = ModularPipeline.from_pretrained(str(embedded_path()))
    pipe.load_components(dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def light(image):
    return float(np.asarray(image).mean() / 255)


def with_components(blocks, base):
    pipe = blocks.init_pipeline()
    pipe.update_components(**{n: c for n, c in base.components.items() if c is not None and n in pipe.components})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(base, seeds, prompt="a face"):
    make = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return [base(prompt=prompt, generator=g, output="images", **SMALL)[0] for g in make]


def test_best_of_n_around_a_workflow(base):
    pipe = with_components(CogGuidedBlock(base.blocks, FakeScorer("light"), n=3, keep=2), base)
    assert type(pipe) is type(base)
    state = pipe(prompt="a face", seed=5, **SMALL)
    expected = sorted(drawn(base, (5, 6, 7)), key=light, reverse=True)[:2]
    for image, other in zip(state.get("images"), expected, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(other))
    assert state.get("scores") == pytest.approx([light(image) for image in expected], abs=1e-3)


def test_a_block_that_only_reranks_goes_behind_any_workflow(base):
    blocks = base.blocks
    blocks.sub_blocks.insert("rerank", RerankBlock(FakeScorer("light")), len(blocks.sub_blocks))
    try:
        pipe = with_components(blocks, base)
        make = [torch.Generator("cpu").manual_seed(seed) for seed in range(3)]
        images = pipe(prompt="a face", num_images_per_prompt=3, generator=make, output="images", **SMALL)
    finally:
        blocks.sub_blocks.pop("rerank", None)
    assert len(images) == 1
    assert light(images[0]) == pytest.approx(max(light(image) for image in drawn(base, range(3))), abs=2e-3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_loads_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "cache"))
    RerankBlock(FakeScorer()).save_pretrained(tmp_path / "block")
    block = ModularPipelineBlocks.from_pretrained(
        str(tmp_path / "block"), trust_remote_code=True, target=FakeScorer("light"), keep=1
    )
    assert isinstance(block, RerankBlock)
    shades = [Image.new("RGB", (4, 4), (v, v, v)) for v in (10, 200, 90)]
    state = block.init_pipeline()(images=shades, prompt="a")
    assert state.get("images") == [shades[1]]


def test_what_cannot_be_chosen_says_why():
    block = RerankBlock(FakeScorer())
    with pytest.raises(InputError, match="3 images cannot be shared among 2"):
        block.best([None] * 3, ["a", "b"])
    with pytest.raises(GenerationError, match="no such file"):
        block.best(["no-such.png"], ["a"])
    with pytest.raises(InputError, match="at least keep"):
        CogGuidedBlock(ModularPipelineBlocks(), FakeScorer(), n=1, keep=2)
