"""LoRAs and learned words as plain diffusers has them: what is trained here works there, and theirs work here."""

import diffusers
import numpy as np
import pytest
import torch
from comparing import pixels
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from tiny_diffusion import CALL, tiny_pipeline
from tiny_parts import DIM

from cogguided import BestOfN, CogGuidedPipeline, Drafts, FakeScorer, FinetuneConfig, Halving, finetune
from cogguided.guidance.finetuning import METHODS

diffusers.utils.logging.disable_progress_bar()
FAMILY_OF = {"rwr": "flux", "nft": "sdxl", "dpo": "sd15", "drtune": "sd3"}


def draw(pipe, family, seed=5, prompt="a cat", **changes):
    generator = torch.Generator().manual_seed(seed)
    return pixels(pipe(prompt, generator=generator, **{**CALL[family], **changes}).images[0])


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


# ---------------------------------------------------------------------- LoRAs under a search

GUIDANCE = [BestOfN(4, batch_size=3), Halving(4, at=(0.5,), batch_size=3), Drafts(4, steps=2, full=1, batch_size=3)]
LAYERS = {
    "sd15": {"unet": ["to_q", "to_v"], "text_encoder": ["q_proj", "v_proj"]},
    "flux": {"transformer": ["to_q", "to_k", "to_v", "to_out.0"]},
}


def with_lora(family):
    """A random LoRA on the denoiser, and where people have one there, on the text encoder."""
    pipe = tiny_pipeline(family)
    torch.manual_seed(0)
    for part, layers in LAYERS[family].items():
        config = LoraConfig(r=2, lora_alpha=16, target_modules=layers, init_lora_weights=False)
        inject_adapter_in_model(config, pipe.components[part], adapter_name="style")
        pipe.components[part].peft_config = {"style": config}  # where diffusers looks for names
    return pipe


def by_weight(pipe, scale):
    pipe.set_adapters("style", scale)
    return {}


def by_call(name):
    return lambda pipe, scale: {name: {"scale": scale}}


@pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize(
    ("family", "scaled"),
    [
        pytest.param("sd15", by_weight, id="sd15-set_adapters"),
        pytest.param("sd15", by_call("cross_attention_kwargs"), id="sd15-cross_attention_kwargs"),
        pytest.param("flux", by_call("joint_attention_kwargs"), id="flux-joint_attention_kwargs"),
    ],
)
def test_survivors_have_the_loras_scale(family, scaled, guidance):
    base = with_lora(family)
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    call = {**CALL[family], "num_inference_steps": 4}
    for scale, others in ((1.0, (0.5,)), (0.5, (0.0, 1.0))):
        (survivor,) = pipe("a cat", guidance=guidance, seed=0, **call, **scaled(base, scale)).chosen
        assert survivor.finished
        plain = {each: draw(base, family, survivor.seed, **call, **scaled(base, each)) for each in (scale, *others)}
        assert apart(pixels(survivor.image), plain[scale]) <= 1
        assert all(apart(plain[scale], plain[other]) > 8 for other in others)


# ---------------------------------------------------------------------- learned words

WORD = "<joy>"


def learned_word(folder, vectors):
    """A file as textual inversion leaves it: several vectors under one word."""
    rows = torch.randn(3, DIM, generator=torch.Generator().manual_seed(1))
    save_file({WORD: rows[:vectors].clone()}, folder / "learned_embeds.safetensors")
    return folder / "learned_embeds.safetensors"


def with_word(folder, vectors):
    base = tiny_pipeline("sd15")
    pipe = CogGuidedPipeline.from_pipe(base, scorer=FakeScorer())
    pipe.load_textual_inversion(learned_word(folder, vectors))
    return base, pipe


def test_a_learned_word_of_several_vectors(tmp_path):
    """The base's image, alone, beside other prompts, under a search and as what is not wanted."""
    base, pipe = with_word(tmp_path, 3)
    single, _ = with_word(tmp_path, 1)
    assert len(base.tokenizer) == len(single.tokenizer) + 2
    for prompts, changes in (
        ([f"{WORD} cat"], {}),
        (["a dog", f"a cat like {WORD}", WORD], {}),
        (["a cat"], {"negative_prompt": WORD}),
    ):
        for guidance in ([], BestOfN(2), Halving(2, at=(0.5,))):
            out = pipe(prompts, seed=5, guidance=guidance, **CALL["sd15"], **changes)
            assert [c.prompt for c in out.chosen] == prompts
            for candidate in out.chosen:
                plain = draw(base, "sd15", candidate.seed, candidate.prompt, **changes)
                assert apart(pixels(candidate.image), plain) <= 1
        assert apart(plain, draw(single, "sd15", candidate.seed, candidate.prompt, **changes)) > 4, "all are read"
