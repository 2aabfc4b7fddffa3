"""Batches: asked as the scorer asks, answered as it reads, with a loss on the answer alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from marked import EACH

from cogguided._errors import ImageError, InputError
from cogguided.scorers import DIMENSIONS
from cogguided.scorers.alignment.config import AlignmentConfig
from cogguided.scorers.alignment.data import Collator, Example, Stream, split_by_image
from cogguided.scorers.alignment.parts import head_on
from cogguided.scorers.alignment.wordings import OTHERS, wordings
from cogguided.scorers.mllm.prompting import end_token, stop_tokens
from cogguided.scorers.mllm.scorer import MLLMScorer


@pytest.fixture(scope="module")
def scorers(model_folder):
    made = {}

    def get(family):
        if family not in made:
            made[family] = MLLMScorer.from_pretrained(model_folder(family), "memorability", min_mass=0.0)
        return made[family]

    return get


def examples(ratings, question="memorability?"):
    return [Example(rating, 0.05, question, 0.3) for rating in ratings]


def collate(scorer, ratings, **settings):
    collator = Collator(scorer.processor, scorer.facts, AlignmentConfig(pixels=None, **settings), 0.15)
    return collator, collator(examples(ratings))


@pytest.mark.parametrize("family", EACH)
def test_a_batch_is_the_scorer_s_prompt_and_an_answer_it_could_read(family, scorers, ratings):
    scorer = scorers(family)
    collator, batch = collate(scorer, ratings[:3], loss="answers")
    tokenizer = scorer.processor.tokenizer
    assert collator.end in stop_tokens(scorer.model, scorer.processor)
    for row, rating in enumerate(ratings[:3]):
        from PIL import Image

        prompt = scorer.core.prepare([Image.open(rating.image)], "memorability?")["input_ids"][0].tolist()
        length = int(batch["attention_mask"][row].sum())
        ids = batch["input_ids"][row, :length].tolist()
        answer = tokenizer(DIMENSIONS["memorability"].answer(rating.score), add_special_tokens=False)
        assert ids == [*prompt, *answer["input_ids"], collator.end]  # right-padded, nothing between
        labels = batch["labels"][row]
        assert labels[labels != -100].tolist() == [*answer["input_ids"], collator.end]
        assert (labels[: len(prompt)] == -100).all()
        assert (labels[length:] == -100).all()
    # every position is the token before a supervised one, and the target's told token is that one
    flat = batch["labels"].flatten()
    told = batch["targets"]["tokens"].gather(1, batch["targets"]["told"][:, None])[:, 0]
    assert torch.equal(flat[batch["positions"] + 1], told)


@pytest.mark.parametrize("family", EACH)
def test_only_supervised_positions_go_through_the_head_and_padding_changes_nothing(family, scorers, ratings):
    scorer = scorers(family)
    collator, batch = collate(scorer, ratings[:3], loss="answers")
    known = ("labels", "positions", "targets")
    inputs = {key: value for key, value in batch.items() if key not in known}
    with torch.no_grad():
        with head_on(scorer.model, batch["positions"]):
            few = scorer.model(**inputs, use_cache=False).logits
        everything = scorer.model(**inputs, use_cache=False).logits
    assert few.shape == (len(batch["positions"]), everything.shape[-1])
    expected = everything.flatten(0, 1)[batch["positions"]]
    torch.testing.assert_close(few, expected, atol=1e-4, rtol=1e-4)
    alone = collator(examples(ratings[:1]))
    inputs = {key: value for key, value in alone.items() if key not in known}
    with torch.no_grad(), head_on(scorer.model, alone["positions"]):
        single = scorer.model(**inputs, use_cache=False).logits
    torch.testing.assert_close(single, few[: len(single)], atol=2e-3, rtol=1e-3)


def test_an_end_that_no_template_puts_is_the_tokenizer_s(scorers):
    processor = scorers("qwen2_vl").processor
    assert end_token(processor) == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    template = processor.chat_template
    processor.chat_template = (
        "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"
    )
    try:
        assert end_token(processor) == processor.tokenizer.eos_token_id
    finally:
        processor.chat_template = template


def test_losses_have_their_targets(scorers, ratings):
    scorer = scorers("qwen2_vl")
    _, batch = collate(scorer, ratings[:1], loss="cross_entropy", digit_weight=2.0)
    assert batch["targets"]["tokens"].shape[1] == 1
    assert sorted(set(batch["targets"]["weights"].tolist())) == [1.0, 2.0]
    _, batch = collate(scorer, ratings[:1], loss="triangular")
    assert batch["targets"]["tokens"].shape[1] == 10
    assert torch.allclose(batch["targets"]["probs"].sum(1), torch.ones(()))
    _, both = collate(scorer, ratings[:1], loss="triangular", value_weight=1.0)
    assert both["targets"]["allowed"].sum() < both["targets"]["allowed"].numel()
    # An answer drawn from the target differs from the rating's own; its label and number agree.
    drawn, batch = collate(scorer, ratings[:1], loss="answers", sample_prefix=True)
    text = scorer.processor.tokenizer.decode(batch["labels"][0][batch["labels"][0] != -100][:-1])
    assert text != DIMENSIONS["memorability"].answer(ratings[0].score)
    label, _, number = text.rpartition(" ")
    assert DIMENSIONS["memorability"].label(float(number)) == label
    with pytest.raises(ImageError, match="no such file"):
        drawn(examples([replace(ratings[0], image=ratings[0].image.with_name("gone.png"))]))


def test_a_stream_is_permutations_and_depends_on_nothing_but_the_index(ratings):
    questions = {"memorability": ["a?", "b?", "c?"]}
    stream = Stream(ratings, [0.05] * 8, questions, 20, seed=3)
    told = [stream[index] for index in range(20)]
    assert sorted(e.rating.key for e in told[:8]) == sorted(r.key for r in ratings)
    assert [e.rating.key for e in told[:8]] != [e.rating.key for e in told[8:16]]
    assert {e.question for e in told} == {"a?", "b?", "c?"}
    again = Stream(ratings, [0.05] * 8, questions, 20, seed=3)
    assert [again[index] for index in (19, 2, 11)] == [told[19], told[2], told[11]]
    assert [Stream(ratings, [0.05] * 8, questions, 20, seed=4)[i] for i in range(20)] != told


def test_images_are_on_one_side(ratings):
    twice = [*ratings, *(replace(r, dimension="funniness", key=f"f{r.key}") for r in ratings)]
    kept, held = split_by_image(twice, 0.4, seed=1)
    assert sorted(kept + held) == list(range(16))
    assert not {twice[i].image for i in kept} & {twice[i].image for i in held}
    assert [i - 8 for i in held if i >= 8] == [i for i in held if i < 8]
    # the side of an image does not depend on the others
    some = [twice[i] for i in range(0, 16, 2)]
    assert {some[i].image for i in split_by_image(some, 0.4, seed=1)[1]} <= {twice[i].image for i in held}
    with pytest.raises(InputError, match="leaves one side empty"):
        split_by_image(ratings[:1], 0.5)


def test_what_is_held_out_depends_on_no_path(ratings, tmp_path, monkeypatch):
    held = split_by_image(ratings, 0.4, seed=1)[1]
    monkeypatch.chdir(ratings[0].image.parent)
    relative = [replace(rating, image=Path(rating.image.name)) for rating in ratings]
    assert split_by_image(relative, 0.4, seed=1)[1] == held
    cached = [replace(r, image=tmp_path / f"cached-{i}") for i, r in enumerate(ratings)]  # as from the Hub
    for rating, copy in zip(ratings, cached, strict=True):
        copy.image.write_bytes(rating.image.read_bytes())
    assert split_by_image(cached, 0.4, seed=1)[1] == held
    assert any(split_by_image(ratings, 0.4, seed=seed)[1] != held for seed in (2, 3))
    with pytest.raises(ImageError, match="gone"):
        split_by_image([replace(ratings[0], image=tmp_path / "gone.png")], 0.5)


def test_wordings_start_with_the_scorer_s_own(model_folder):
    facts = json.loads((model_folder("qwen2_vl") / "cogguided_scorer.json").read_text())
    for name, dim in DIMENSIONS.items():
        own = replace(dim, question=facts["questions"][name])
        asked = wordings(own, 4)
        assert asked[0] == own.question
        assert len(set(asked)) == 4 == 1 + len(OTHERS[name])
        assert all(label in asked[1] for label in dim.labels)
        assert wordings(own, 1) == [own.question]
