"""Branches on a shared prefix against plain runs of each path from the start."""

import functools
import warnings

import pytest
import torch
from marked import EACH
from transformers import AutoModelForImageTextToText, AutoProcessor

from cogguided._errors import ModelError
from cogguided.scorers.mllm.branching import Branches, Copies, Reruns, cache_keyword, check_branchable, cut_prefix
from cogguided.scorers.mllm.scorer import MLLMScorer


def load(folder, pictures, question="How beautiful?"):
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": p}, {"type": "text", "text": question}]}]
        for p in pictures
    ]
    inputs = processor.apply_chat_template(
        chats,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        processor_kwargs={"padding": True, "padding_side": "right", "return_tensors": "pt"},
    )
    return model, {key: torch.as_tensor(value) for key, value in inputs.items()}


@pytest.mark.parametrize("family", EACH)
@torch.inference_mode()
def test_a_tree_over_a_batch_equals_paths_run_alone(family, model_folder, pictures):
    model, inputs = load(model_folder(family), pictures)
    prefix, lengths = cut_prefix(inputs, 5)
    # row 0 and 1 differ in number and shape of nodes, row 2 has none in the second call
    steps = [
        ([[10, 11, 12, 13], [20, 21], [30]], [[-1, -1, 0, 2], [-1, 0], [-1]]),
        ([[14, 15], [22, 23, 24, 25], []], [[3, 1], [-1, 4, 5, 1], []]),
        ([[16], [26], [31]], [[4], [7], [0]]),
    ]
    packed = Branches(model, prefix, lengths)
    alone = [load(model_folder(family), [picture]) for picture in pictures]
    reruns = [Reruns(alone_model, *cut_prefix(one, 5)) for alone_model, one in alone]
    slots = [{-1: -1} for _ in pictures]  # packed slot -> slot of the row alone
    for tokens, parents in steps:
        base = packed.num_slots
        logits = packed.extend(tokens, parents)
        for row, rerun in enumerate(reruns):
            if not tokens[row]:
                continue
            first = rerun.num_slots
            own = {**slots[row], **{base + j: first + j for j in range(len(tokens[row]))}}
            expected = rerun.extend([tokens[row]], [[own[parent] for parent in parents[row]]])[0]
            slots[row] = own
            torch.testing.assert_close(logits[row, : len(tokens[row])], expected, atol=2e-4, rtol=1e-4)


@torch.inference_mode()
def test_only_the_logits_to_keep_are_made(model_folder, pictures):
    model, inputs = load(model_folder("qwen2_vl"), pictures[:1])
    prefix, lengths = cut_prefix(inputs, 1)
    tokens, parents = [[40, 41, 42]], [[-1, 0, 1]]
    whole = Branches(model, prefix, lengths).extend(tokens, parents)
    for cls in (Branches, Copies, Reruns):
        kept = cls(model, prefix, lengths).extend(tokens, parents, [2, 0])
        torch.testing.assert_close(kept, whole[:, [2, 0]], atol=1e-4, rtol=1e-4)


def test_a_model_that_looks_ahead_is_refused(model_folder, monkeypatch):
    """Its answers have no probability token by token."""
    plain = Reruns.extend

    def look_ahead(self, tokens, parents, keep=None):
        return plain(self, tokens, parents, keep) * (1 + len(tokens[0]) / 10)

    monkeypatch.setattr(Reruns, "extend", look_ahead)
    with pytest.raises(ModelError, match="attends in both directions"):
        MLLMScorer.from_pretrained(model_folder("qwen2_vl"))


def test_a_model_that_mixes_a_batch_is_asked_one_at_a_time(model_folder, pictures, monkeypatch):
    plain = Branches.extend

    def mix(self, tokens, parents, keep=None):
        logits = plain(self, tokens, parents, keep)
        return logits + logits.roll(1, 0) if len(logits) > 1 else logits

    monkeypatch.setattr(Branches, "extend", mix)
    with pytest.warns(UserWarning, match="one at a time: in a batch they get other answers"):
        scorer = MLLMScorer.from_pretrained(model_folder("mllama"), "memorability", min_mass=0.0)
    values = scorer(pictures[:2]).values
    monkeypatch.undo()
    alone = MLLMScorer.from_pretrained(model_folder("mllama"), "memorability", min_mass=0.0)(pictures[:2]).values
    torch.testing.assert_close(values, alone, atol=1e-4, rtol=0)


def renamed(forward):
    """Decorate as transformers 5.24 does: the old name still works, with a warning."""

    @functools.wraps(forward)
    def wrapped(*args, **kwargs):
        if "past_key_values" in kwargs:
            warnings.warn("Use `cache` instead.", FutureWarning, stacklevel=2)
            kwargs["cache"] = kwargs.pop("past_key_values")
        return forward(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize("word", ["cache", "past_key_values"])
@torch.inference_mode()
def test_the_cache_goes_by_the_name_that_forward_has(word, model_folder, pictures):
    model, inputs = load(model_folder("qwen2_vl"), pictures[:1])
    own = cache_keyword(model)
    plain = model.forward

    def old(*, past_key_values=None, **kwargs):
        return plain(**{own: past_key_values}, **kwargs)

    def new(*, cache=None, **kwargs):
        return plain(**{own: cache}, **kwargs)

    prefix, lengths = cut_prefix(inputs, 1)
    expected = Branches(model, prefix, lengths).extend([[40, 41]], [[-1, 0]])
    model.forward = renamed(new) if word == "cache" else old
    assert cache_keyword(model) == word
    got = Branches(model, prefix, lengths).extend([[40, 41]], [[-1, 0]])  # a warning would be an error
    torch.testing.assert_close(got, expected)


def test_layers_with_a_state_are_refused(model_folder, pictures):
    model, _ = load(model_folder("gemma3"), pictures[:1])
    check_branchable(model)
    model.config.get_text_config().layer_types = ["linear_attention", "full_attention"]
    with pytest.raises(ModelError, match="linear_attention"):
        check_branchable(model)


def test_reruns_take_one_prompt():
    with pytest.raises(ModelError, match="one prompt"):
        Reruns(None, {}, [1, 2])
