"""Attention back-ends as diffusers has them: what `cogguided info` says of each is so."""

import re

import numpy as np
import pytest
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.attention_processor import AttnProcessor2_0
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer
from cogguided._cli.info import attention_backends


@pytest.fixture(scope="module")
def pipe():
    return CogGuidedPipeline.from_pipe(tiny_pipeline("flux"), target=FakeScorer("light"))


@pytest.fixture(scope="module")
def told():
    return attention_backends("cpu")


def draw(pipe):
    images = pipe("a cat", guidance=BestOfN(2), seed=0, **CALL["flux"]).images
    return np.asarray(images[0], dtype=float)


@pytest.fixture(scope="module")
def plain(pipe):
    return draw(pipe)


@pytest.fixture(autouse=True)
def _leaves_no_back_end_behind(monkeypatch):
    """Setting one model's makes it every model's that has none of its own, and resetting it does not undo that."""
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", _AttentionBackendRegistry._active_backend)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("name", [backend.value for backend in AttentionBackendName])
def test_each_back_end_does_what_info_says(name, pipe, told, plain):
    try:
        if told[name] is None:
            pipe.transformer.set_attention_backend(name)
            assert {b.processor._attention_backend for b in attention(pipe)} == {AttentionBackendName(name)}
            assert np.abs(draw(pipe) - plain).max() <= 1
        elif why := told[name].partition("fails on cpu: ")[2]:
            pipe.transformer.set_attention_backend(name)
            with pytest.raises(Exception, match=re.escape(why)):
                draw(pipe)
        else:
            assert "_hub" not in name or "kernels" in told[name]
            with pytest.raises(RuntimeError, match="not usable because"):
                pipe.transformer.set_attention_backend(name)
    finally:
        pipe.transformer.reset_attention_backend()


def attention(pipe):
    return [module for module in pipe.transformer.modules() if hasattr(module, "processor")]


def test_sdpa_is_what_is_used_unless_told_otherwise(told):
    assert {"native", "_native_math", "flex"} <= {name for name, why in told.items() if why is None}
    processors = tiny_pipeline("sd15").unet.attn_processors.values()
    assert {type(processor) for processor in processors} == {AttnProcessor2_0}, "SDPA in a U-Net"


def test_without_xformers_the_hint_is_the_extra(told):
    from importlib.util import find_spec

    if find_spec("xformers") is None:
        assert told["xformers"].startswith("install xformers")
        with pytest.raises(ModuleNotFoundError, match="xformers"):
            tiny_pipeline("sd15").enable_xformers_memory_efficient_attention()
    else:
        assert told["xformers"].startswith("fails on cpu: ")


def test_a_kernel_that_fails_is_told_in_its_own_words(monkeypatch):
    from diffusers.models import attention_dispatch

    def fail(*_, **__):
        raise RuntimeError("\nonly on Tuesdays\nmore")

    monkeypatch.setattr(attention_dispatch, "dispatch_attention_fn", fail)
    assert attention_backends("cpu")["native"] == "fails on cpu: only on Tuesdays"
