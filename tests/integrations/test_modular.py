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


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where diffusers copies the code of a folder to."""
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def test_a_reranking_block_loads_from_a_folder(tmp_path, cache):
    RerankBlock(FakeScorer()).save_pretrained(tmp_path / "block")
    load = {"pretrained_model_name_or_path": str(tmp_path / "block"), "trust_remote_code": True}
    block = ModularPipelineBlocks.from_pretrained(**load, target=FakeScorer("light"), keep=1)
    assert isinstance(block, RerankBlock)
    shades = [Image.new("RGB", (4, 4), (v, v, v)) for v in (10, 200, 90)]
    state = block.init_pipeline()(images=shades, prompt="a")
    assert state.get("images") == [shades[1]]
    with pytest.raises(InputError, match="pass target="):
        ModularPipelineBlocks.from_pretrained(**load)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        ModularPipelineBlocks.from_pretrained(str(tmp_path / "block"))


def test_a_guided_pipeline_loads_from_a_folder_with_its_target(base, tmp_path, cache):
    folder = str(tmp_path / "guided")
    blocks = CogGuidedBlock(base.blocks, {"fake": -1.0}, n=2)
    blocks.save_pretrained(folder)
    blocks.init_pipeline(str(embedded_path())).save_pretrained(folder, overwrite_modular_index=True)
    pipe = ModularPipeline.from_pretrained(folder, trust_remote_code=True)
    assert type(pipe) is type(base)
    assert isinstance(pipe.blocks, CogGuidedBlock)
    assert pipe.blocks.arguments() == blocks.arguments() == {
        "blocks": "QwenImageAutoBlocks", "target": {"fake": -1.0}, "n": 2, "keep": 1,
    }  # fmt: skip
    pipe.load_components(dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    state = pipe(prompt="a face", seed=5, **SMALL)
    darkest = min(drawn(base, (5, 6)), key=light)
    assert np.array_equal(np.asarray(state.get("images")[0]), np.asarray(darkest))


# diffusers 0.42 still gives huggingface_hub an argument that it no longer takes
@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
def test_a_guided_block_loads_from_the_hub(base, tmp_path, cache, monkeypatch):
    import huggingface_hub
    from tiny_hub import TinyHub

    hub = TinyHub()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", hub.token)
    huggingface_hub.set_client_factory(hub.client)
    try:
        CogGuidedBlock(base.blocks, "fake", n=2).push_to_hub("me/block")
        assert {"block.py", "modular_config.json"} <= hub.repos["me/block"].keys()
        block = ModularPipelineBlocks.from_pretrained("me/block", trust_remote_code=True, n=3)
    finally:
        huggingface_hub.set_client_factory(huggingface_hub.utils._http.default_client_factory)
    assert isinstance(block, CogGuidedBlock)
    state = with_components(block, base)(prompt="a face", seed=5, **SMALL)
    brightest = max(drawn(base, (5, 6, 7)), key=light)
    assert np.array_equal(np.asarray(state.get("images")[0]), np.asarray(brightest))


def test_blocks_of_one_s_own_are_given_anew_and_scorers_are_not_copied(base, tmp_path, cache):
    blocks = base.blocks
    blocks.sub_blocks.insert("rerank", RerankBlock(FakeScorer("light")), len(blocks.sub_blocks))
    try:
        own = CogGuidedBlock(blocks, "fake", n=2)
        assert own.init_pipeline().blocks.target is own.target
        own.save_pretrained(tmp_path / "own")
        with pytest.raises(InputError, match="pass blocks="):
            ModularPipelineBlocks.from_pretrained(str(tmp_path / "own"), trust_remote_code=True)
    finally:
        blocks.sub_blocks.pop("rerank", None)


def test_what_cannot_be_chosen_says_why():
    block = RerankBlock(FakeScorer())
    with pytest.raises(InputError, match="3 images cannot be shared among 2"):
        block.best([None] * 3, ["a", "b"])
    with pytest.raises(GenerationError, match="no such file"):
        block.best(["no-such.png"], ["a"])
    with pytest.raises(InputError, match="at least keep"):
        CogGuidedBlock(ModularPipelineBlocks(), FakeScorer(), n=1, keep=2)
