"""The parts of every family are found, and cover its weights once."""

import pytest
import torch
from tiny_mllm import FAMILIES
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from cogguided._errors import ModelError
from cogguided.scorers.alignment.config import AlignmentConfig
from cogguided.scorers.alignment.parts import IDLE, find_parts, linear_pattern, make_trainable


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_cover_the_weights_once(family, model_folder):
    model = AutoModelForImageTextToText.from_pretrained(model_folder(family))
    parts = find_parts(model)
    assert parts.vision
    assert parts.projector
    inside = [
        [n for n, _ in model.named_parameters() if n.startswith(f"{module}.")]
        for module in (*parts.language, *parts.vision, *parts.projector)
    ]
    names = [name for own in inside for name in own]
    assert len(names) == len(set(names))
    left = {n for n, _ in model.named_parameters()} - set(names)
    idle = tuple(f"model.{path}." for path in IDLE.get(model.config.model_type, ()))
    # beside the head, only what is never run, and LLaVA's single vector between rows of image tokens
    assert {n for n in left if not n.startswith(idle)} <= {"lm_head.weight", "model.image_newline"}
    decoder = {n for n, _ in model.named_parameters() if parts.of(n) == "language"}
    assert {n for n in decoder if "vision" in n or "visual" in n} <= {n for n in left if n.startswith(idle)}


def test_a_language_model_alone_cannot_be_aligned(model_folder):
    from transformers import LlamaConfig

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=16, **small))
    with pytest.raises(ModelError, match="cannot be aligned"):
        find_parts(model)


def test_a_part_without_linear_layers_has_no_adapter(model_folder):
    model = AutoModelForImageTextToText.from_pretrained(model_folder("gemma3"))
    parts = find_parts(model)
    assert linear_pattern(model, parts.projector) == ""
    config = AlignmentConfig(projector="lora", vision="frozen", language="frozen")
    with pytest.raises(ModelError, match=r"projector='lora'.*no linear layer.*'full'"):
        make_trainable(model, config, parts)


def test_adapters_are_never_on_the_head_and_weights_train_in_float32(model_folder):
    model = AutoModelForImageTextToText.from_pretrained(model_folder("qwen3_vl"), dtype=torch.bfloat16)
    opened = make_trainable(model, AlignmentConfig(vision="lora"), find_parts(model))
    trained = {n: p for n, p in opened.named_parameters() if p.requires_grad}
    assert not any("lm_head" in name or "embed_tokens" in name for name in trained)
    assert all(p.dtype == torch.float32 for p in trained.values())
    assert all(p.dtype == torch.bfloat16 for p in opened.parameters() if not p.requires_grad)
