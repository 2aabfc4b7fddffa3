"""Every family trains: what should move moves, what should not does not, and what was trained is saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_mllm import FAMILIES

from cogguided.scorers.alignment import AlignmentConfig
from cogguided.scorers.alignment.callbacks import Clock
from cogguided.scorers.alignment.loading import load_for_training
from cogguided.scorers.alignment.running import common_arguments
from cogguided.scorers.alignment.sft import sft_trainer
from cogguided.scorers.benchmark import Rating
from cogguided.scorers.mllm import MLLMScorer

CONFIG = AlignmentConfig(
    loss="answers",
    value_weight=1.0,
    rank=2,
    alpha=4,
    dropout=0.0,
    learning_rate=1e-2,
    vision_learning_rate=3e-3,
    projector_learning_rate=3e-3,
    max_steps=2,
    batch_size=4,
    micro_batch=4,
    pixels=None,
)


@pytest.fixture(scope="session")
def ratings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rated")
    made = []
    for i in range(8):
        size = (28 + 7 * (i % 3), 28 + 14 * (i % 2))
        pixels = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        made.append(Rating(folder / f"{i}.png", "memorability", 0.1 * i + 0.123, f"memorability/{i}.png"))
    return made


def trained(model, config, ratings, tmp_path, held_out=()):
    """A model after its steps, with its weights before them."""
    torch.manual_seed(0)
    names = sorted({rating.dimension for rating in ratings})
    loaded = load_for_training(model, config, names, "tiny")
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    arguments = common_arguments(tmp_path / "run", config, len(ratings), bool(held_out))
    stds = [0.05] * len(ratings)
    trainer = sft_trainer(loaded, config, arguments, ratings, stds, held_out, Clock())
    trainer.train()
    return loaded, trainer, before


def logits_of(model, scorer, pictures):
    inputs = scorer.core.prepare(pictures[:1], "memorability?")
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_what_it_should_and_is_saved_whole(
    family, model_folder, ratings, pictures, tmp_path
):
    loaded, trainer, before = trained(model_folder(family), CONFIG, ratings, tmp_path)
    parts = {"language": 0, "vision": 0, "projector": 0}
    for name, parameter in loaded.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
        if moved:
            parts[loaded.parts.of(name)] += 1
            assert ("lora_" in name) == (loaded.parts.of(name) == "language"), name
        assert "lm_head" not in name or not moved
    assert all(parts.values()), parts

    halves = replace(CONFIG, micro_batch=2)
    again, _, _ = trained(model_folder(family), halves, ratings, tmp_path)
    for (name, one), other in zip(loaded.model.named_parameters(), again.model.parameters(), strict=True):
        # A key's bias has no gradient (softmax does not see it) but rounding errors, which Adam scales up.
        tolerance = 1e-2 if "k_proj.bias" in name or "qkv.bias" in name else 2e-5
        torch.testing.assert_close(one, other, atol=tolerance, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")

    trainer.save_model(str(tmp_path / "aligned"))
    scorer = MLLMScorer.from_pretrained(tmp_path / "aligned", "memorability", min_mass=0.0)
    assert scorer.facts.grounding == {"memorability": "human"}
    expected = logits_of(loaded.plain, scorer, pictures)
    torch.testing.assert_close(logits_of(scorer.model, scorer, pictures), expected, atol=1e-4, rtol=1e-4)
    base = MLLMScorer.from_pretrained(model_folder(family), "memorability", min_mass=0.0)
    assert (logits_of(base.model, base, pictures) - expected).abs().max() > 1e-3
