"""The two read-outs against brute force: every valid answer, and the model's own greedy generation."""

from collections import defaultdict

import pytest
import torch
from marked import EACH

from cogguided.scorers.mllm import decoding
from cogguided.scorers.mllm.branching import Branches, cut_prefix
from cogguided.scorers.mllm.decoding import read_greedy
from cogguided.scorers.mllm.scorer import MLLMScorer


def chat(scorer, pictures, dimension, side="right"):
    question = scorer.facts.dimensions[dimension].question
    chats = [
        [{"role": "user", "content": [{"type": "image", "image": p}, {"type": "text", "text": question}]}]
        for p in pictures
    ]
    inputs = scorer.processor.apply_chat_template(
        chats,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        processor_kwargs={"padding": True, "padding_side": side, "return_tensors": "pt"},
    )
    return {key: torch.as_tensor(value) for key, value in inputs.items()}


def append(inputs, paths):
    """Append one path to each prompt of a batch of equal prompts."""
    grown = dict(inputs)
    for key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask"):
        if key in inputs:
            last = inputs[key][:, -1:].expand(-1, paths.shape[1], *inputs[key].shape[2:])
            added = {"input_ids": paths, "token_type_ids": last * 0, "mm_token_type_ids": last * 0}
            grown[key] = torch.cat([inputs[key], added.get(key, last)], dim=1)
    return grown


def brute_force(scorer, picture, dim, chunk=400):
    """Mean, std and mass over all valid answers, from plain runs of image, question and answer."""
    answers = [f"{label} {number}" for label in dim.labels for number in dim.numbers()]
    values = torch.tensor([float(number) for _ in dim.labels for number in dim.numbers()]).double()
    ids = scorer.processor.tokenizer(answers, add_special_tokens=False)["input_ids"]
    by_length = defaultdict(dict)  # every distinct answer without its last token, grouped by length
    for tokens in ids:
        by_length[len(tokens) - 1][tuple(tokens[:-1])] = None
    following = {}
    for stems in by_length.values():
        stems = list(stems)
        for start in range(0, len(stems), chunk):
            part = stems[start : start + chunk]
            paths = torch.tensor(part)
            inputs = append(chat(scorer, [picture] * len(part), dim.name), paths)
            logits = scorer.model(**inputs, use_cache=False, logits_to_keep=paths.shape[1] + 1).logits
            logprobs = logits.double().log_softmax(dim=-1)
            so_far = logprobs[:, :-1].gather(2, paths[:, :, None]).sum(dim=(1, 2))
            following.update(zip(part, so_far[:, None] + logprobs[:, -1], strict=True))
    weights = torch.stack([following[tuple(tokens[:-1])][tokens[-1]] for tokens in ids]).exp()
    mass = weights.sum()
    mean = (weights @ values) / mass
    return mean.item(), ((weights @ (values - mean) ** 2) / mass).sqrt().item(), mass.item()


@pytest.mark.parametrize(
    ("family", "dimension"),
    [
        ("qwen2_5_vl", "memorability"),  # single digits
        pytest.param("qwen2_5_vl", "aesthetics", marks=pytest.mark.slow),  # 50,005 answers, digit by digit
        ("mllama", "aesthetics"),  # up to three digits a token
        ("mllama", "emotional_valence"),
        ("gemma3", "memorability"),  # sentencepiece style
        ("smolvlm", "emotional_valence"),
    ],
)
@torch.inference_mode()
def test_expected_is_the_mean_over_all_valid_answers(family, dimension, model_folder, pictures):
    scorer = MLLMScorer.from_pretrained(model_folder(family), dimension, min_mass=0.0)
    dim = scorer.facts.dimensions[dimension]
    scores = scorer(pictures[:1])
    mean, std, mass = brute_force(scorer, pictures[0], dim)
    span = dim.high - dim.low
    assert scores.values.item() == pytest.approx(mean, abs=span / 1000)
    assert scores.std.item() == pytest.approx(std, abs=span / 500)
    assert 0 < mass <= scores.mass.item() * 1.001  # what is cut off is not looked at, so the mass is an upper bound


@pytest.mark.parametrize("family", EACH)
@torch.inference_mode()
def test_greedy_is_what_the_model_generates(family, model_folder, pictures):
    scorer = MLLMScorer.from_pretrained(model_folder(family), min_mass=0.0)
    names = ["aesthetics", "emotional_valence"]
    questions = {name: [scorer.core.questions[name]] * len(pictures) for name in names}
    prefix, lengths = cut_prefix(scorer.core.prepare(pictures, "aesthetics?"), len(questions["aesthetics"][0]))
    got = read_greedy(Branches(scorer.model, prefix, lengths), questions, frozenset([0]), 8)
    for row, picture in enumerate(pictures):
        for name in names:
            inputs = chat(scorer, [picture], name)
            out = scorer.model.generate(
                **inputs, do_sample=False, max_new_tokens=8, eos_token_id=0, pad_token_id=0, bos_token_id=None
            )
            expected = out[0, inputs["input_ids"].shape[1] :].tolist()
            assert got[row][name] == (expected[: expected.index(0)] if 0 in expected else expected)


def test_a_wide_vocabulary_is_read_in_more_passes_and_not_in_more_memory(model_folder, pictures, monkeypatch):
    """What an undecided judge asks for in one pass is bounded, and what it says stays the same."""
    scorer = MLLMScorer.from_pretrained(model_folder("qwen2_5_vl"), "memorability", min_mass=0.0)
    extend, sizes = Branches.extend, []

    def watched(self, *args, **kwargs):
        logits = extend(self, *args, **kwargs)
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(Branches, "extend", watched)
    expected, passes = scorer(pictures[:2]), len(sizes)
    most = max(sizes) // 8
    sizes.clear()
    monkeypatch.setattr(decoding, "MOST_LOGITS", most)
    got = scorer(pictures[:2])
    assert max(sizes[1:]) <= most
    assert len(sizes) > passes
    torch.testing.assert_close(got.values, expected.values, atol=2e-4, rtol=0)
    torch.testing.assert_close(got.mass, expected.mass, atol=1e-3, rtol=0)
