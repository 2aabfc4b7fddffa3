import json
import shutil
import warnings

import pytest
import torch
from transformers import AutoModelForImageTextToText, CLIPConfig, CLIPModel

from cogguided._errors import ModelError
from cogguided.scorers import load_scorer
from cogguided.scorers.mllm.checkpoints import ScorerFacts, load_checkpoint
from cogguided.scorers.mllm.scorer import MLLMScorer


@pytest.fixture
def copy(model_folder, tmp_path):
    """A copy of a tiny model that a test may spoil."""

    def get(name="base"):
        return shutil.copytree(model_folder("qwen2_5_vl"), tmp_path / name)

    return get


@pytest.fixture
def adapter(copy, tmp_path):
    """An adapter beside its base: LoRA on the language model, the merger of the vision tower in full."""
    peft = pytest.importorskip("peft")
    base = copy("base")
    model = AutoModelForImageTextToText.from_pretrained(base)
    config = peft.LoraConfig(
        r=2, target_modules=r".*language_model.*q_proj", modules_to_save=["merger"], init_lora_weights=False
    )
    torch.manual_seed(1)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 by an old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    folder = tmp_path / "aligned"
    wrapped.save_pretrained(folder)
    data = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**data, "base_model_name_or_path": "../base"}))
    return folder, wrapped.eval()


def test_an_adapter_folder_finds_its_base_beside_it(adapter, pictures, monkeypatch, tmp_path):
    folder, wrapped = adapter
    monkeypatch.chdir(tmp_path.parent)  # relative to the adapter, not to where we are
    scorer = MLLMScorer.from_pretrained(folder, "memorability", min_mass=0.0)
    base = MLLMScorer.from_pretrained(folder.parent / "base", "memorability", min_mass=0.0)
    explicit = MLLMScorer.from_pretrained(folder.parent / "base", "memorability", adapter=folder, min_mass=0.0)
    inputs = scorer.core.prepare(pictures[:1], "memorability?")
    with torch.no_grad():
        expected = wrapped(**inputs).logits
        torch.testing.assert_close(scorer.model(**inputs).logits, expected, atol=1e-4, rtol=1e-4)
        assert (base.model(**inputs).logits - expected).abs().max() > 1e-2
    merger = dict(scorer.model.named_parameters())["model.visual.merger.mlp.0.weight"]
    before = dict(base.model.named_parameters())["model.visual.merger.mlp.0.weight"]
    assert not torch.equal(merger, before)
    torch.testing.assert_close(scorer(pictures).values, explicit(pictures).values)
    assert load_scorer("aesthetics", model=folder, min_mass=0.0).name == "aesthetics"


def test_facts_and_own_questions(copy):
    folder = copy()
    facts = {
        "name": "small",
        "grounding": {"memorability": "proxy"},
        "dimensions": ["memorability", "emotional_valence"],
        "questions": {"memorability": "memorable?"},
        "system_prompt": "Be brief.",
    }
    (folder / "cogguided_scorer.json").write_text(json.dumps(facts))
    scorer = MLLMScorer.from_pretrained(folder)
    assert scorer.model_name == "small"
    assert scorer.dimensions == ("memorability", "emotional_valence")
    assert scorer.facts.dimensions["memorability"].question == "memorable?"
    assert scorer.facts.grounding == {"memorability": "proxy"}
    tokenizer = scorer.processor.tokenizer
    assert tokenizer.decode(scorer.core.questions["memorability"]).startswith("memorable?<|im_end|>")
    ids = scorer.core.prepare([torch_picture()], "memorable?")["input_ids"][0]
    assert "Be brief." in tokenizer.decode(ids)


def torch_picture():
    from PIL import Image

    return Image.new("RGB", (30, 30))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"dimensions": ["beauty"]}', '{"questions": {"beauty": "?"}}', '{"dimensions": 3}']
)
def test_facts_that_cannot_be_read(text, tmp_path):
    (tmp_path / "cogguided_scorer.json").write_text(text)
    with pytest.raises(ModelError, match=r"cogguided_scorer\.json"):
        ScorerFacts.read(tmp_path)


def refuse(folder, match):
    with pytest.raises(ModelError, match=match):
        load_checkpoint(folder, None, "cpu", None, False)


def test_another_kind_of_model(tmp_path):
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    CLIPModel(CLIPConfig(text_config=tiny, vision_config=tiny, projection_dim=8)).save_pretrained(tmp_path)
    refuse(tmp_path, "image-text-to-text")


def test_nothing_there(tmp_path):
    refuse(tmp_path, "image-text-to-text")


def test_pickled_weights_are_not_read(copy):
    folder = copy()
    model = AutoModelForImageTextToText.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refuse(folder, "safetensors")


def test_weights_that_are_missing_would_be_random(copy):
    from safetensors.torch import load_file, save_file

    folder = copy()
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if name.endswith("norm.weight"))
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refuse(folder, "1 weights are missing")


def test_a_model_without_a_processor_or_template(copy):
    folder = copy()
    (folder / "chat_template.jinja").unlink()
    refuse(folder, "no chat template")
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refuse(folder, "no usable processor")


def test_adapters_that_do_not_fit(adapter, tmp_path):
    folder, _ = adapter
    (folder.parent / "base").rename(folder.parent / "elsewhere")
    refuse(folder, "is not there")
    data = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**data, "base_model_name_or_path": ""}))
    refuse(folder, "names no base_model_name_or_path")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        load_checkpoint(folder.parent / "elsewhere", folder, "cpu", None, False)
