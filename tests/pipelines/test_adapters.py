"""LoRAs and learned words as plain diffusers has them: what is trained here works there, and theirs work here."""

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import FakeScorer, FinetuneConfig, finetune
from cogguided.guidance.finetuning import METHODS

diffusers.utils.logging.disable_progress_bar()
FAMILY_OF = {"rwr": "flux", "nft": "sdxl", "dpo": "sd15", "drtune": "sd3"}


def pixels(image):
    return np.asarray(image).astype(int)


def draw(pipe, family, seed=5, **changes):
    generator = torch.Generator().manual_seed(seed)
    return pixels(pipe("a cat", generator=generator, **CALL[family], **changes).images[0])


def apart(a, b):
    return int(np.abs(a - b).max())


# ---------------------------------------------------------------------- what fine-tuning leaves

RANK, ALPHA = 2, 3.0  # unlike each other: a scale that is not written down would show


def train(pipe, method, folder):
    config = FinetuneConfig(
        method=method, rounds=3, prompts_per_round=2, images_per_prompt=2, timesteps=1, updates=1, rank=RANK,
        alpha=ALPHA, learning_rate=0.1, warmup=0, images_per_evaluation=1, patience=0, save="last",
    )  # fmt: skip
    options = {"evaluation": ["a tree"], "faithfulness": None, "progress": False, **CALL[FAMILY_OF[method]]}
    finetune(pipe, FakeScorer(), ["a dog", "a car"], folder, config, **options)


def added_by_hand(family, folder, share):
    """The base with share x alpha / rank x up x down of the file added to its weights, without peft."""
    pipe = tiny_pipeline(family)
    state = load_file(folder / "pytorch_lora_weights.safetensors")
    downs = [name for name in state if name.endswith(".lora_A.weight")]
    assert len(downs) * 2 == len(state)
    for name in downs:
        part, _, layer = name.removesuffix(".lora_A.weight").partition(".")
        change = state[name.replace("lora_A", "lora_B")] @ state[name]
        pipe.components[part].get_submodule(layer).weight.data += share * ALPHA / RANK * change
    return pipe


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")  # peft's, of any second LoRA
@pytest.mark.parametrize("method", METHODS)
def test_a_trained_lora_does_in_plain_diffusers_what_loras_do(method, tmp_path):
    """Names, weights 0, 0.5 and 1, two at once, fused, unfused, unloaded."""
    family = FAMILY_OF[method]
    teacher, plain = tiny_pipeline(family), tiny_pipeline(family)
    untrained = draw(plain, family)
    train(teacher, method, tmp_path)
    trained = draw(teacher, family)
    half = draw(added_by_hand(family, tmp_path, 0.5), family)
    assert min(apart(trained, untrained), apart(half, untrained), apart(half, trained)) > 8

    for name in ("joy", "twin"):
        plain.load_lora_weights(tmp_path, adapter_name=name)
    assert {name for of in plain.get_list_adapters().values() for name in of} == {"joy", "twin"}
    for weights, expected, tolerance in (
        ((1.0, 0.0), trained, 0),
        ((0.0, 1.0), trained, 0),
        ((0.0, 0.0), untrained, 0),
        ((0.5, 0.5), trained, 1),
        ((0.5, 0.0), half, 1),
    ):
        plain.set_adapters(["joy", "twin"], list(weights))
        assert apart(draw(plain, family), expected) <= tolerance, weights
    plain.set_adapters("joy")
    assert plain.get_active_adapters() == ["joy"]
    assert apart(draw(plain, family), trained) == 0

    plain.unload_lora_weights()
    assert not plain.get_list_adapters()
    assert apart(draw(plain, family), untrained) == 0

    for scale, expected in ((0.5, half), (1.0, trained)):
        fused = tiny_pipeline(family)
        fused.load_lora_weights(tmp_path)
        fused.fuse_lora(lora_scale=scale)
        fused.unload_lora_weights()  # it is part of the weights by now
        assert apart(draw(fused, family), expected) <= 1
