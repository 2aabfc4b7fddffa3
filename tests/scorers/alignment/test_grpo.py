"""Learning by reward: what an answer is worth, what moves, and that the embedded model gets better by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_mllm import FAMILIES

from cogguided._errors import MissingExtraError, ModelError
from cogguided.scorers import DIMENSIONS
from cogguided.scorers.alignment import AlignmentConfig, align, recipe
from cogguided.scorers.alignment.loading import load_for_training
from cogguided.scorers.alignment.running import common_arguments, trainer_of
from cogguided.scorers.alignment.training.callbacks import Clock
from cogguided.scorers.alignment.training.grpo import asked, grpo_trainer
from cogguided.scorers.alignment.training.rewards import closeness
from cogguided.scorers.benchmark import Rating

CONFIG = AlignmentConfig(
    method="grpo", rank=2, dropout=0.0, learning_rate=1e-2, vision_learning_rate=1e-3,
    projector_learning_rate=1e-3, weight_decay=0.1, max_steps=2, batch_size=4, micro_batch=4, save_every=None,
    max_new_tokens=4, pixels=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "truth", "reward"),
    [
        ("aesthetics", "medium 5.577", 5.577, 1.0),
        ("aesthetics", "high 7", 5.0, 0.8),
        ("aesthetics", "very high 10.000", 0.0, 0.0),
        ("emotional_valence", "negative -3.000", 3.0, 0.0),
        ("memorability", "low 0.450", 0.7, 0.75),  # not 0.975, as with the official division by 10
        ("memorability", "low", 0.7, -0.5),
        ("memorability", "12", 0.7, -0.5),  # out of range is unreadable
        ("memorability", "0.2 or 0.3", 0.2, -0.5),
        ("memorability", "", 0.2, -0.5),
    ],
)
def test_the_reward_is_closeness_on_the_dimension_s_own_range(name, text, truth, reward):
    assert closeness(text, truth, DIMENSIONS[name]) == pytest.approx(reward)


def set_up(model, config, ratings, tmp_path, adapter=None):
    loaded = load_for_training(model, config, ["memorability"], "tiny", adapter)
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    arguments = common_arguments(tmp_path / "run", config, len(ratings), False)
    return loaded, grpo_trainer(loaded, config, arguments, ratings, [], [], Clock()), before


def prompt_ids(trainer, row):
    ids, _, _ = trainer._tokenize_prompts(
        [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": row["image"]},
                        {"type": "text", "text": row["prompt"][0]["content"]},
                    ],
                }
            ]
        ]
    )
    return ids[0]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mllama"])
def test_every_other_family_is_asked_as_in_scoring_and_moves(family, model_folder, ratings, tmp_path):
    from cogguided.scorers.alignment.parts import quiet_libraries

    # a reward for the length of an answer, since random models write nothing that can be read
    loaded, trainer, before = set_up(model_folder(family), CONFIG, ratings, tmp_path)
    trainer.reward_funcs[0] = lambda completions, **_: [float(len(c[0]["content"])) for c in completions]
    rows = asked(ratings, loaded, CONFIG)
    scorer = loaded.scorer()
    expected = scorer.core.prepare([rows[0]["image"]], "memorability?")["input_ids"][0].tolist()
    assert list(prompt_ids(trainer, rows[0])) == expected
    with quiet_libraries():
        trainer.train()
    losses = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert losses[0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference is the model as it was
    for name, parameter in loaded.model.named_parameters():
        if name not in before:
            assert ".ref" in name
            start = before[name.replace(".ref", ".default")]
            assert torch.equal(parameter, start), f"the reference moved: {name}"
        elif not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), name
    moved = {
        loaded.parts.of(n)
        for n, p in loaded.model.named_parameters()
        if n in before and not torch.equal(p, before[n])
    }
    assert moved == {"language", "vision", "projector"}
    trainer.save_model(str(tmp_path / "saved"))
    assert not (tmp_path / "saved/ref").exists()


def test_what_trl_cannot_train(model_folder, ratings, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="mllama: use method='sft'"):
        set_up(model_folder("mllama"), CONFIG, ratings, tmp_path)
    monkeypatch.setattr("cogguided.scorers.alignment.running.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"cogguided\[train\]"):
        trainer_of(CONFIG)
    with pytest.raises(MissingExtraError, match="wandb"):
        trainer_of(AlignmentConfig(report_to="wandb"))


@pytest.mark.slow
def test_the_embedded_model_learns_by_reward(tmp_path):
    """SFT teaches that redder is more pleasant, but vaguely (a deviation of 1.5 in 6); GRPO makes it sure."""
    rated = []
    for i in range(48):
        part = i / 47
        pixels = np.full((64, 64, 3), (round(255 * part), round(255 * (1 - part)), 90), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        score = round(6 * part - 3, 3)
        rated.append(Rating(tmp_path / f"{i}.png", "emotional_valence", score, f"emotional_valence/{i}"))
    vague = replace(
        recipe("embedded"), loss="answers", value_weight=0.0, width=0.25, max_steps=80, batch_size=16, micro_batch=16
    )
    align("embedded", rated, tmp_path / "vague", vague)
    config = replace(
        recipe("embedded"), method="grpo", max_steps=30, batch_size=32, micro_batch=32, generations=8,
        learning_rate=3e-4, log_every=1,
    )  # fmt: skip
    result = align("embedded", rated, tmp_path / "sure", config, adapter=tmp_path / "vague")
    rewards = [entry["reward"] for entry in result.history if "reward" in entry]
    print("rewards", [round(reward, 3) for reward in rewards])
    assert len(rewards) == 30
    first, last = np.mean(rewards[:5]), np.mean(rewards[-5:])
    assert last > first + 0.05
