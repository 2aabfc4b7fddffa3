"""An adapter, taken up again or merged, scores as it did."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForImageTextToText

from cogguided._errors import InputError, MissingExtraError, ModelError
from cogguided.scorers import load_scorer
from cogguided.scorers.alignment import AlignmentConfig, align, merge, recipe
from cogguided.scorers.alignment.loading import (
    limit_pixels,
    load_for_training,
    of_adapter,
    open_adapter,
    precision,
    quantization,
    taught,
    training_dtype,
)
from cogguided.scorers.alignment.parts import find_parts
from cogguided.scorers.alignment.saving import stored_dtype
from cogguided.scorers.mllm.checkpoints import ScorerFacts, load_model
from cogguided.scorers.mllm.scorer import MLLMScorer

CONFIG = AlignmentConfig(
    loss="answers", rank=2, learning_rate=1e-2, vision_learning_rate=3e-3, projector_learning_rate=3e-3,
    max_steps=3, batch_size=4, micro_batch=4, save_every=None, pixels=None, answer_tokens=True,
)  # fmt: skip


@pytest.fixture(scope="module", params=["gemma3", "qwen2_5_vl"])
def aligned(request, model_folder, ratings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned") / request.param
    align(model_folder(request.param), ratings, folder, CONFIG)
    return model_folder(request.param), folder


def scores(scorer, ratings):
    return scorer([rating.image for rating in ratings[:2]]).values


def logits(scorer, pictures):
    with torch.no_grad():
        return scorer.model(**scorer.core.prepare(pictures[:1], "memorability?")).logits


def test_a_merged_model_is_plain_and_scores_alike(aligned, pictures, ratings, tmp_path):
    base, adapter = aligned
    plain = merge(adapter, tmp_path / "plain")
    assert not (plain / "adapter_config.json").exists()
    one, other = (MLLMScorer.from_pretrained(f, "memorability", min_mass=0.0) for f in (adapter, plain))
    torch.testing.assert_close(logits(one, pictures), logits(other, pictures), atol=1e-5, rtol=1e-5)
    assert one.facts.dimensions == other.facts.dimensions
    AutoModelForImageTextToText.from_pretrained(plain)
    explicit = load_scorer("memorability", model=base, adapter=adapter, min_mass=0.0)
    torch.testing.assert_close(logits(one, pictures), logits(explicit, pictures))
    if "gemma3" in str(adapter):
        torch.testing.assert_close(scores(one, ratings), scores(other, ratings), atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="not empty"):
        merge(adapter, tmp_path)
    half = merge(adapter, tmp_path / "half", dtype=torch.float16)
    assert stored_dtype(half) == torch.float16
    assert stored_dtype(base) == torch.float32


def test_training_goes_on_from_an_adapter(aligned, pictures, ratings, tmp_path):
    base, adapter = aligned
    before = load_for_training(base, CONFIG, ["memorability"], "more", adapter)
    trained = {n for n, p in before.model.named_parameters() if p.requires_grad}
    assert {before.parts.of(name) for name in trained} == {"language", "vision", "projector"}
    scorer = MLLMScorer.from_pretrained(adapter, "memorability", min_mass=0.0)
    with torch.no_grad():
        inputs = scorer.core.prepare(pictures[:1], "memorability?")
        torch.testing.assert_close(
            before.plain.eval()(**inputs).logits, logits(scorer, pictures), atol=1e-4, rtol=1e-4
        )
    result = align(adapter, ratings, tmp_path / "more", CONFIG)  # the adapter names its base
    config = json.loads((result.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    again = MLLMScorer.from_pretrained(result.folder, "memorability", min_mass=0.0)
    assert (logits(again, pictures) - logits(scorer, pictures)).abs().max() > 1e-3
    with pytest.raises(InputError, match="is an adapter"):
        load_for_training(adapter, CONFIG, ["memorability"], "more", adapter)


def test_an_adapter_of_another_model(aligned, model_folder):
    _, adapter = aligned
    model = load_model(model_folder("smolvlm"), torch.float32)
    with pytest.raises(ModelError, match="does not fit"):
        open_adapter(model, adapter, find_parts(model))


def test_settings_that_are_the_adapter_s(aligned, ratings, tmp_path):
    base, adapter = aligned
    usual = replace(recipe(base), pixels=None, max_steps=1, batch_size=4, micro_batch=4)
    wrong = replace(usual, rank=7, vision="frozen")
    new = tmp_path / "new"
    with pytest.raises(InputError, match=r"vision is full and not frozen, rank is 2 and not 7"):
        align(base, ratings, new, wrong, adapter=adapter)
    assert not new.exists()
    # What was not asked for is taken, and written down, as the adapter has it; also when resumed.
    for resume in (False, True):
        align(base, ratings, new, usual, adapter=adapter, resume=resume)
        config = json.loads((new / "alignment.json").read_text())["config"]
        assert (config["rank"], config["alpha"], config["answer_tokens"]) == (2, 64, True)
        assert (config["language"], config["vision"], config["projector"]) == ("lora", "full", "full")
    assert json.loads((new / "adapter_config.json").read_text())["r"] == 2


def test_an_adapter_s_parts_are_found_out(model_folder, ratings, tmp_path):
    config = replace(CONFIG, language="dora", vision="dora", projector="frozen", answer_tokens=False)
    align(model_folder("qwen2_5_vl"), ratings, tmp_path / "one", config)
    usual = recipe("other")
    loaded = load_for_training(model_folder("qwen2_5_vl"), usual, ["memorability"], "two", tmp_path / "one")
    found = of_adapter(loaded, usual, usual)
    assert (found.language, found.vision, found.projector) == ("dora", "dora", "frozen")
    assert not found.answer_tokens


def test_pixels_are_limited_within_the_processor_s_own(model_folder):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(model_folder("qwen2_5_vl"))
    images = processor.image_processor
    low, high = images.size["shortest_edge"], images.size["longest_edge"]
    limit_pixels(processor, (low + 100, high - 100))
    assert (images.size["shortest_edge"], images.size["longest_edge"]) == (low + 100, high - 100)
    limit_pixels(processor, (10 * high, 20 * high))
    assert images.size["longest_edge"] == images.size["shortest_edge"] == high - 100
    other = AutoProcessor.from_pretrained(model_folder("gemma3"))
    before = dict(other.image_processor.size)
    limit_pixels(other, AlignmentConfig().pixels)  # the paper's, which are the default for every family
    assert dict(other.image_processor.size) == before
    with pytest.raises(ModelError, match="has no limits in pixels"):
        limit_pixels(other, (1, 2))


def test_precision_follows_the_machine_and_full_weights_are_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert precision(AlignmentConfig()) == "float32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert training_dtype(AlignmentConfig()) == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert training_dtype(AlignmentConfig()) == torch.bfloat16
    assert training_dtype(AlignmentConfig(language="full")) == torch.float32


def test_fewer_bits_need_their_extra_and_a_gpu(monkeypatch):
    config = AlignmentConfig(bits=4)
    monkeypatch.setattr("cogguided.scorers.mllm.checkpoints.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"cogguided\[quantized\]"):
        quantization(config)
    monkeypatch.setattr("cogguided.scorers.mllm.checkpoints.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        quantization(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    made = quantization(config)
    assert made.load_in_4bit
    assert made.bnb_4bit_compute_dtype == torch.bfloat16
    assert {"lm_head", "visual", "multi_modal_projector"} <= set(made.llm_int8_skip_modules)
    assert "visual" not in quantization(replace(config, vision="lora")).llm_int8_skip_modules


def test_facts_of_what_was_taught():
    facts = taught(ScorerFacts(grounding={"funniness": "proxy"}), "mine", ["memorability"])
    assert facts.grounding == {"funniness": "proxy", "memorability": "human"}
    assert list(facts.dimensions) == list(ScorerFacts().dimensions)
    with pytest.raises(InputError, match="no dimension beauty"):
        taught(ScorerFacts(), "mine", ["beauty"])
    assert taught(ScorerFacts(), "mine", ["memorability"], grounding="proxy").grounding["memorability"] == "proxy"
