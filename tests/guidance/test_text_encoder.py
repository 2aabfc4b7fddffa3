"""Swapping an aligned model in as text encoder: what changes, what comes back, and what is refused with a reason."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_diffusion import CALL, tiny_pipeline
from tiny_listeners import LISTENER_CALL, LISTENERS, tiny_listener
from transformers import Qwen3ForCausalLM, Qwen3VLForConditionalGeneration

from cogguided import CogGuidedError, CogGuidedPipeline, load_scorer
from cogguided.guidance.text_encoder.swap import swap_text_encoder
from cogguided.pipelines.embedded import embedded_path

# peft asks transformers 5 by an old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


def draw(pipe, family="qwen_image", seed=5):
    image = pipe("a cat", generator=torch.Generator().manual_seed(seed), **CALL[family]).images[0]
    return np.asarray(image).astype(int)


def moved(a, b):
    return np.abs(a - b).max()


def save_adapter(encoder, folder, where="language_model", dora=False):
    """A peft adapter with weights that matter, trained on a copy of the encoder."""
    copy = type(encoder)(encoder.config)
    copy.load_state_dict(encoder.state_dict())
    config = LoraConfig(r=2, lora_alpha=4, target_modules=rf".*{where}.*({LINEARS}|qkv|proj)", use_dora=dora)
    wrapped = get_peft_model(copy, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=2.0)
    wrapped.save_pretrained(str(folder))
    return wrapped


def save_full(pipe, folder, where="language_model"):
    """A full checkpoint with its tokenizer, in which the weights of one part differ."""
    encoder = pipe.text_encoder
    copy = type(encoder)(encoder.config)
    copy.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if where in name and parameter.ndim > 1 and "embed" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    copy.save_pretrained(str(folder))
    pipe.tokenizer.save_pretrained(str(folder))
    return copy


@pytest.fixture
def pipe():
    return tiny_pipeline("qwen_image")


@pytest.mark.parametrize("kind", ["lora", "dora", "full", "loaded"])
def test_strength_goes_from_the_original_to_the_aligned_and_back(kind, pipe, tmp_path):
    torch.manual_seed(0)
    before = draw(pipe)
    if kind in ("lora", "dora"):
        model = save_adapter(pipe.text_encoder, tmp_path, dora=kind == "dora").merge_and_unload()
        source = tmp_path
    else:
        model = save_full(pipe, tmp_path)
        source = tmp_path if kind == "full" else model
    expected_pipe = tiny_pipeline("qwen_image")
    expected_pipe.text_encoder.load_state_dict(model.state_dict())
    expected = draw(expected_pipe)
    assert moved(expected, before) > 0
    swap = swap_text_encoder(pipe, source)
    assert swap.component == "text_encoder"
    assert moved(draw(pipe), expected) <= 1
    swap.strength = 0.5
    half = draw(pipe)
    assert moved(half, before) > 0
    swap.strength = 2.0
    assert moved(draw(pipe), half) > 0
    swap.strength = 0.0
    assert np.array_equal(draw(pipe), before)
    swap.unswap()
    swap.unswap()
    assert np.array_equal(draw(pipe), before)
    fresh = tiny_pipeline("qwen_image")
    own = dict(pipe.text_encoder.named_parameters())
    assert own.keys() == dict(fresh.text_encoder.named_parameters()).keys()
    assert all(torch.equal(p, own[n]) for n, p in fresh.text_encoder.named_parameters())
    with pytest.raises(CogGuidedError, match="was undone or baked"):
        swap.strength = 1.0


def test_half_strength_is_half_of_the_way(pipe, tmp_path):
    """A LoRA at strength 0.5, and full weights at 0.5, are the original plus half of the difference."""
    aligned = save_full(pipe, tmp_path)
    before = {n: p.clone() for n, p in pipe.text_encoder.named_parameters()}
    with swap_text_encoder(pipe, tmp_path, strength=0.5) as swap:
        after = dict(pipe.text_encoder.named_parameters())
        name = next(n for n in swap.changed if "q_proj.weight" in n)
        wanted = (before[name] + dict(aligned.named_parameters())[name]) / 2
        assert torch.allclose(after[name], wanted, atol=1e-6)
    save_adapter(pipe.text_encoder, tmp_path / "lora")
    merged = save_adapter(pipe.text_encoder, tmp_path / "lora").merge_and_unload()
    with swap_text_encoder(pipe, tmp_path / "lora", strength=0.5) as swap:
        layer = pipe.text_encoder.get_submodule(swap.changed[0])
        x = torch.randn(1, layer.in_features)
        base = x @ before[f"{swap.changed[0]}.weight"].T
        full = x @ merged.get_submodule(swap.changed[0]).weight.T
        bias = layer.base_layer.bias
        assert torch.allclose(layer(x), (base + full) / 2 + (0 if bias is None else bias), atol=1e-4)


def test_a_context_undoes_itself_even_after_an_error(pipe, tmp_path):
    save_adapter(pipe.text_encoder, tmp_path)
    before = draw(pipe)
    with pytest.raises(ZeroDivisionError), swap_text_encoder(pipe, tmp_path):
        raise ZeroDivisionError
    assert np.array_equal(draw(pipe), before)


def test_a_baked_swap_stays_and_saves(pipe, tmp_path):
    save_adapter(pipe.text_encoder, tmp_path / "adapter")
    guided = CogGuidedPipeline.from_pipe(pipe)
    swap = swap_text_encoder(guided, tmp_path / "adapter")
    aligned = draw(guided)
    with pytest.raises(CogGuidedError, match=r"bake\(\)"):
        guided.save_pretrained(tmp_path / "saved")
    swap.bake()
    assert moved(draw(guided), aligned) <= 1
    guided.text_encoder.save_pretrained(str(tmp_path / "encoder"))
    again = type(pipe.text_encoder).from_pretrained(tmp_path / "encoder", dtype=torch.float32)
    assert all(torch.equal(p, again.state_dict()[n]) for n, p in guided.text_encoder.state_dict().items())


def test_equal_weights_are_kept_once(pipe, tmp_path):
    aligned = save_full(pipe, tmp_path)
    swap = swap_text_encoder(pipe, aligned)
    theirs = dict(aligned.named_parameters())
    for name, parameter in pipe.text_encoder.named_parameters():
        if "visual" not in name and "lm_head" not in name:
            assert parameter.data_ptr() == theirs[name].data_ptr(), name
    assert all("language_model.layers" in name for name in swap.changed)


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_swap_that_cannot_reach_the_image_says_so(kind, pipe, tmp_path):
    (save_adapter if kind == "adapter" else save_full)(
        pipe.text_encoder if kind == "adapter" else pipe, tmp_path, where="visual"
    )
    with pytest.raises(CogGuidedError, match=r"would change nothing.*language='lora'"):
        swap_text_encoder(pipe, tmp_path)


def test_a_model_that_differs_is_refused_with_all_that_differs(pipe, tmp_path):
    save_full(pipe, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["hidden_size"] *= 2
    config["text_config"]["num_hidden_layers"] += 1
    config["text_config"]["layer_types"] *= 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    before = draw(pipe)
    with pytest.raises(CogGuidedError, match=r"width 16 against 32; layers 1 against 2; tokens of a probe text"):
        swap_text_encoder(pipe, tmp_path)
    assert np.array_equal(draw(pipe), before), "nothing was changed"


def test_a_chat_template_that_differs_is_refused(pipe, tmp_path):
    save_full(pipe, tmp_path)
    file = next(tmp_path.glob("chat_template*"), None) or tmp_path / "chat_template.jinja"
    file.write_text("{{ messages[0]['content'] }}")
    with pytest.raises(CogGuidedError, match="the chat template"):
        swap_text_encoder(pipe, tmp_path)


def test_an_adapter_of_another_width_is_refused(pipe, tmp_path):
    from safetensors.torch import load_file, save_file

    save_adapter(pipe.text_encoder, tmp_path)
    state = load_file(tmp_path / "adapter_model.safetensors")
    wide = {n: t.repeat(1, 2) if "q_proj.lora_A" in n else t for n, t in state.items()}
    save_file(wide, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CogGuidedError, match=r"q_proj takes 16 numbers, the adapter's 32"):
        swap_text_encoder(pipe, tmp_path)


def test_a_pipeline_that_listens_to_no_such_model_is_told(tmp_path):
    save_full(tiny_pipeline("qwen_image"), tmp_path)
    with pytest.raises(CogGuidedError, match=r"does not listen to a qwen2_5_vl model.*clip_text_model"):
        swap_text_encoder(tiny_pipeline("sd15"), tmp_path)


@pytest.mark.parametrize("strength", [float("nan"), 11.0])
def test_a_strength_out_of_range_is_refused_and_nothing_changed(strength, pipe, tmp_path):
    save_adapter(pipe.text_encoder, tmp_path)
    before = draw(pipe)
    with pytest.raises(CogGuidedError, match="strength"):
        swap_text_encoder(pipe, tmp_path, strength=strength)
    assert np.array_equal(draw(pipe), before)
    swap_text_encoder(pipe, tmp_path).unswap()


def test_two_swaps_at_once_are_refused(pipe, tmp_path):
    save_adapter(pipe.text_encoder, tmp_path)
    swap_text_encoder(pipe, tmp_path)
    with pytest.raises(CogGuidedError, match="swapped in already"):
        swap_text_encoder(pipe, tmp_path)


def test_nothing_there_is_told(pipe, tmp_path):
    with pytest.raises(CogGuidedError, match="no model and no adapter"):
        swap_text_encoder(pipe, tmp_path / "nothing")
    shutil.rmtree(tmp_path)


def test_one_model_encodes_scores_and_rewrites():
    """The embedded scorer as text encoder: one copy of the weights, and the images of its adapter."""
    aligned = embedded_path() / "aligned"
    pipe = CogGuidedPipeline.from_pretrained("embedded", text_encoder=aligned)
    pipe.set_progress_bar_config(disable=True)
    few = {"num_inference_steps": 4}
    from_adapter = np.asarray(pipe("a face", seed=3, **few).images[0]).astype(int)
    plain = CogGuidedPipeline.from_pretrained("embedded")
    plain.set_progress_bar_config(disable=True)
    original = np.asarray(plain("a face", seed=3, **few).images[0]).astype(int)
    assert moved(from_adapter, original) > 8
    scorer = load_scorer("emotional_valence")
    with swap_text_encoder(plain, scorer, strength=1.0):
        theirs = dict(scorer.model.named_parameters())
        for name, parameter in plain.text_encoder.named_parameters():
            if "visual" not in name and "lm_head" not in name:
                assert parameter.data_ptr() == theirs[name].data_ptr(), name
        shared = np.asarray(plain("a face", target=scorer, seed=3, **few).images[0]).astype(int)
    assert moved(shared, from_adapter) <= 2
    again = np.asarray(plain("a face", seed=3, **few).images[0]).astype(int)
    assert np.array_equal(again, original)


@pytest.mark.parametrize("family", ["qwen_image", *LISTENERS, "z_image"])
def test_any_pipeline_that_listens_to_a_language_model(family, tmp_path):
    """Swapped in by what the pipeline has; strength 0 and undoing give the image back to the bit."""
    pipe = tiny_listener(family) if family in LISTENERS else tiny_pipeline(family)
    call = LISTENER_CALL.get(family) or CALL[family]

    def image():
        made = pipe(prompt="a cat", generator=torch.Generator().manual_seed(1), **call)[0][0]
        return np.asarray(made).astype(int)

    before = image()
    copy = type(pipe.text_encoder)(pipe.text_encoder.config)
    copy.load_state_dict(pipe.text_encoder.state_dict())
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if parameter.ndim > 1 and "embed" not in name and "visual" not in name and "vision" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    copy.save_pretrained(str(tmp_path))
    with swap_text_encoder(pipe, tmp_path) as swap:
        assert swap.component == "text_encoder"
        aligned = image()
        assert moved(aligned, before) > 0
        swap.strength = 0
        assert np.array_equal(image(), before)
        swap.strength = 1
        assert np.array_equal(image(), aligned)
    assert np.array_equal(image(), before)
    # the guided view of the same pipeline takes it too
    guided = CogGuidedPipeline.from_pipe(pipe, target="fake")
    with swap_text_encoder(guided, copy):
        made = np.asarray(guided("a cat", seed=1, **call).images[0]).astype(int)
        assert moved(made, aligned) <= 1


@pytest.mark.parametrize("family", ["krea2", "ovis_image", "flux2"])
def test_adapters_fit_encoders_with_and_without_a_head(family, tmp_path):
    """An adapter of the model with its head, as align writes it, on an encoder that has none, such as Krea 2's."""
    pipe = tiny_listener(family)
    encoder = pipe.text_encoder
    whole = {"krea2": Qwen3VLForConditionalGeneration, "ovis_image": Qwen3ForCausalLM}.get(family, type(encoder))
    trained = whole(encoder.config)
    wrapped = get_peft_model(trained, LoraConfig(r=2, target_modules=rf".*layers\..*({LINEARS})$"))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=2.0)
    wrapped.save_pretrained(str(tmp_path))

    def image():
        made = pipe(prompt="a cat", generator=torch.Generator().manual_seed(1), **LISTENER_CALL[family])[0][0]
        return np.asarray(made).astype(int)

    before = image()
    with swap_text_encoder(pipe, tmp_path) as swap:
        assert swap.changed
        assert moved(image(), before) > 0
    assert np.array_equal(image(), before)
