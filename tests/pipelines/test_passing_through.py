"""What a guided pipeline hands on to diffusers: devices, offloading, LoRA, back-ends, schedulers, progress bars."""

import copy

import diffusers
import numpy as np
import pytest
import torch
from comparing import generator, pixels, same
from diffusers import DiffusionPipeline, EulerDiscreteScheduler
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer
from cogguided.scorers import register_scorer, unregister_scorer

diffusers.utils.logging.disable_progress_bar()
SD = CALL["sd15"]


@pytest.fixture(scope="module")
def base():
    return tiny_pipeline("sd15")


@pytest.fixture
def own():
    return CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"))


def test_to_moves_and_casts(own):
    moved = []

    class Movable(FakeScorer):
        def to(self, device):
            moved.append(str(device))
            return self

    register_scorer("movable", lambda: Movable("movable"))
    try:
        own.target = "movable"
        own.load_target()
        assert own.to("cpu") is own
        assert moved == ["cpu", "cpu"]  # when loaded, and along with the pipeline
    finally:
        unregister_scorer("movable")
    assert own.to(torch.float64).dtype == torch.float64
    assert own("a cat", seed=0, **SD).images[0].size == (16, 16)


def test_model_offload(own):
    expected = own("a cat", seed=0, **SD).images[0]
    own.enable_model_cpu_offload(device="cpu")
    assert own.unet._hf_hook is not None
    out = own("a cat", seed=0, target=FakeScorer(), guidance=BestOfN(2), **SD)
    assert np.abs(pixels(out.candidates[0].image) - pixels(expected)).max() <= 1


def test_sequential_offload_reaches_every_layer(own):
    """Running it needs an accelerator (`test_on_a_gpu`); here: the hooks are where diffusers puts them."""
    expected = own("a cat", seed=0, **SD).images[0]
    own.enable_sequential_cpu_offload(device="cpu")
    assert own.unet.conv_in._hf_hook is not None
    own.remove_all_hooks()
    assert same(own("a cat", seed=0, **SD).images[0], expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "to"])
def test_on_a_gpu(own, base, method):
    expected = base("a cat", generator=generator(0), **SD).images[0]
    getattr(own, method)(**({} if method != "to" else {"device": "cuda"}))
    out = own("a cat", seed=0, target=FakeScorer(), guidance=BestOfN(2, batch_size=1), **SD)
    assert np.abs(pixels(out.candidates[0].image) - pixels(expected)).max() <= 2


def lora_folder(pipe, folder):
    """A LoRA of random weights, saved as people publish them."""
    unet = copy.deepcopy(pipe.unet)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    type(pipe).save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return folder


def test_lora(own, tmp_path):
    before = own("a cat", seed=0, **SD)
    own.load_lora_weights(lora_folder(own, tmp_path), adapter_name="style")
    after = own("a cat", seed=0, **SD)
    assert not same(before.images[0], after.images[0])
    assert after.facts["model"]["adapters"] == {"unet": ["style"]}
    own.set_adapters("style", adapter_weights=0.0)
    assert same(own("a cat", seed=0, **SD).images[0], before.images[0])
    own.unload_lora_weights()
    assert same(own("a cat", seed=0, **SD).images[0], before.images[0])


def test_attention_slicing_and_vae_tiling(own):
    expected = own("a cat", seed=0, **SD).images[0]
    own.enable_attention_slicing()
    own.vae.enable_slicing()
    assert np.abs(pixels(own("a cat", seed=0, **SD).images[0]) - pixels(expected)).max() <= 1


def test_progress_bars(own, capsys):
    own.set_progress_bar_config(disable=False)
    own("a cat", seed=0, **SD)
    assert "2/2" in capsys.readouterr().err, "the base's own bar over steps"
    own("a cat", seed=0, target=FakeScorer(), guidance=BestOfN(4, batch_size=2), **SD)
    text = capsys.readouterr().err
    assert "4/4" in text
    assert "best=" in text
    own.set_progress_bar_config(disable=True)
    own("a cat", seed=0, target=FakeScorer(), guidance=BestOfN(2), **SD)
    assert capsys.readouterr().err == ""


def test_swapped_scheduler(own):
    expected = own("a cat", seed=0, **SD).images[0]
    own.scheduler = EulerDiscreteScheduler.from_config(own.scheduler.config)
    assert not same(own("a cat", seed=0, **SD).images[0], expected)


def test_custom_pipeline_takes_components_and_settings(base, tmp_path):
    from cogguided.pipelines import CUSTOM_PIPELINE

    base.save_pretrained(tmp_path)
    euler = EulerDiscreteScheduler.from_config(base.scheduler.config)
    pipe = DiffusionPipeline.from_pretrained(
        tmp_path,
        custom_pipeline=CUSTOM_PIPELINE,
        trust_remote_code=True,
        scheduler=euler,
        target="fake=-1",
        guidance=BestOfN(2),
    )
    assert pipe.scheduler is euler
    assert (pipe.target, pipe.guidance) == ("fake=-1", [BestOfN(2)])
    assert pipe.config["requires_safety_checker"] is False
    assert pipe.name_or_path == str(tmp_path) or pipe.name_or_path == tmp_path
