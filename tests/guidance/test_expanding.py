"""The proposer that lets the embedded language model expand a prompt."""

from pathlib import Path

import pytest
import torch
import transformers as tf

from cogguided._errors import InputError
from cogguided.guidance.rewriting.proposers import (
    ExpandingProposer,
    Proposer,
    Trial,
)
from cogguided.guidance.rewriting.proposers.base import holds, plain
from cogguided.guidance.rewriting.proposers.expanding import TEMPLATE, is_about, parse_expansion
from cogguided.pipelines.embedded import embedded_path

ROOT = Path(__file__).resolve().parents[2]
SAD = {"emotional_valence": -1.0}


@pytest.fixture(scope="module")
def expander():
    tokenizer = tf.AutoTokenizer.from_pretrained(embedded_path() / "tokenizer")
    model = tf.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        embedded_path() / "text_encoder", dtype=torch.float32
    )
    return ExpandingProposer(model.eval(), tokenizer)


def test_template_is_the_one_the_model_was_taught_with():
    from diffusers import QwenImagePipeline

    pipe = QwenImagePipeline.from_pretrained(embedded_path(), transformer=None, vae=None, text_encoder=None)
    assert pipe.prompt_template_encode == TEMPLATE


@pytest.mark.parametrize(("text", "name"), [("flat cat", "cat"), ("flat: cat", None), ("", None), ("x 12: a", None)])
def test_reading_expansions(text, name):
    found = parse_expansion(text)
    assert (found and found.name) == name


def test_embedded_model_expands(expander):
    assert isinstance(expander, Proposer)
    state = torch.get_rng_state()
    found = expander.propose("a face", SAD, [], 6, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    assert found == expander.propose("a face", SAD, [], 6, seed=0)
    assert found != expander.propose("a face", SAD, [], 6, seed=1)
    assert len(found) == 6
    assert any("face" in text.split() for text in found)
    assert "crying cat" in expander.propose("a sad cat", SAD, [], 6, seed=0)
    assert expander.propose("the stock market in 1929", SAD, [], 4, seed=0) == []


def test_expansions_refine_the_best_and_keep_style_and_words(expander):
    history = [Trial("a face", 0.4, 4), Trial("crying face", 0.6, 4), Trial("dog face", 0.9, 4, kept=False)]
    found = expander.propose("a face", SAD, history, 4, seed=0)
    assert found[:2] == ["glossy crying face", "flat crying face"]
    assert not {plain(text) for text in found} & {trial.prompt for trial in history}
    styled = expander.propose("a glossy [face]", SAD, [], 4, seed=0)
    assert styled
    assert all(text.startswith("glossy ") and holds(text, "face") for text in styled)


def test_expansions_are_about_the_prompt():
    flat = parse_expansion("flat crying cat: animal, sad")
    assert is_about("a sad [cat]", flat)
    assert not is_about("a sad dog", flat)
    assert not is_about("a", flat)


def test_expanding_refuses_arguments(expander):
    with pytest.raises(InputError, match="template"):
        ExpandingProposer(expander.model, expander.tokenizer, template="no place")
    with pytest.raises(InputError, match="samples"):
        ExpandingProposer(expander.model, expander.tokenizer, samples=0)
