"""Every family trains: what should move moves, what should not does not, and what was trained is saved."""

from dataclasses import replace

import pytest
import torch
from tiny_mllm import FAMILIES

from cogguided._errors import TrainingError
from cogguided.scorers import load_scorer
from cogguided.scorers.alignment import AlignmentConfig, align
from cogguided.scorers.alignment.callbacks import Clock
from cogguided.scorers.alignment.loading import load_for_training
from cogguided.scorers.alignment.running import common_arguments
from cogguided.scorers.alignment.sft import sft_trainer
from cogguided.scorers.alignment.trainer import parameter_groups
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
    save_every=None,
    pixels=None,
)


def trained(model, config, ratings, tmp_path):
    """A model after its steps, with its weights before them."""
    loaded = load_for_training(model, config, ["memorability"], "tiny")
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    arguments = common_arguments(tmp_path / "run", config, len(ratings), False)
    trainer = sft_trainer(loaded, config, arguments, ratings, [0.05] * len(ratings), [], Clock())
    trainer.train()
    return loaded, trainer, before


def logits_of(model, scorer, pictures):
    inputs = scorer.core.prepare(pictures[:1], "memorability?")
    with torch.no_grad():
        return model.eval()(**inputs).logits


def check_moved(loaded, before, **expected):
    """Every trainable moved, nothing frozen did, and the parts that moved are those expected."""
    moved_parts = set()
    for name, parameter in loaded.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
        if moved:
            part = loaded.parts.of(name)
            moved_parts.add(part)
            assert ("lora_" in name) == (expected[part] in ("lora", "dora")), name
            assert parameter.dtype == torch.float32
    assert moved_parts == set(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_what_it_should_and_is_saved_whole(
    family, model_folder, ratings, pictures, tmp_path
):
    loaded, trainer, before = trained(model_folder(family), CONFIG, ratings, tmp_path)
    check_moved(loaded, before, language="lora", vision="full", projector="full")
    assert not any(p.requires_grad for n, p in loaded.model.named_parameters() if "lm_head" in n)

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
    base = load_scorer("memorability", model=model_folder(family), min_mass=0.0)
    assert (logits_of(base.model, base, pictures) - expected).abs().max() > 1e-3


MODES = {
    "all LoRA": {"vision": "lora", "projector": "lora"},
    "DoRA alone": {"language": "dora", "vision": "frozen", "projector": "frozen"},
    "all in full": {"language": "full"},
    "projector in full, alone": {"language": "frozen", "vision": "frozen"},
    "vision LoRA, projector in full": {"language": "frozen", "vision": "lora"},
    "answers' tokens": {"vision": "frozen", "projector": "frozen", "answer_tokens": True},
}


@pytest.mark.parametrize("modes", MODES.values(), ids=MODES)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])  # separate and tied vocabulary heads
def test_what_trains_can_be_chosen(modes, family, model_folder, ratings, pictures, tmp_path):
    if family == "gemma3" and modes.get("projector") == "lora":
        modes = {**modes, "projector": "full"}  # its projector is no linear layer
    config = replace(CONFIG, **modes)
    loaded, trainer, before = trained(model_folder(family), config, ratings, tmp_path)
    parts = {"language": config.language, "vision": config.vision, "projector": config.projector}
    if not config.answer_tokens:
        check_moved(loaded, before, **{part: mode for part, mode in parts.items() if mode != "frozen"})
    trainer.save_model(str(tmp_path / "aligned"))
    assert (tmp_path / "aligned/adapter_config.json").is_file() == config.makes_adapter
    scorer = MLLMScorer.from_pretrained(tmp_path / "aligned", "memorability", min_mass=0.0)
    in_memory = loaded.scorer()
    expected = logits_of(loaded.plain, scorer, pictures)
    torch.testing.assert_close(logits_of(scorer.model, scorer, pictures), expected, atol=1e-4, rtol=1e-4)
    if family == "gemma3":
        values = in_memory.with_dimension("memorability")(pictures).values
        torch.testing.assert_close(scorer(pictures).values, values, atol=1e-3, rtol=0)


def test_embeddings_of_answers_tokens_train_and_no_others(model_folder, ratings, tmp_path):
    config = replace(CONFIG, vision="frozen", projector="frozen", answer_tokens=True)
    loaded, trainer, before = trained(model_folder("qwen2_5_vl"), config, ratings, tmp_path)
    deltas = {n: p for n, p in loaded.model.named_parameters() if "trainable_tokens_delta" in n}
    assert len(deltas) == 2  # embeddings and head are separate here
    space = trainer.data_collator.space("memorability")
    for name, delta in deltas.items():
        assert delta.shape[0] == len(space.tokens | {trainer.data_collator.end})
        assert not torch.equal(delta, before[name])


def test_each_part_has_its_learning_rate_and_vectors_do_not_decay(model_folder):
    loaded = load_for_training(model_folder("qwen2_5_vl"), CONFIG, ["memorability"], "tiny")
    groups = parameter_groups(loaded, replace(CONFIG, weight_decay=0.1))
    rates = {(g["lr"], g["weight_decay"]) for g in groups}
    assert rates == {(1e-2, 0.1), (3e-3, 0.1), (3e-3, 0.0)}
    assert all(p.ndim < 2 for g in groups for p in g["params"] if g["weight_decay"] == 0.0)
    count = sum(p.requires_grad for p in loaded.model.parameters())
    assert sum(len(g["params"]) for g in groups) == count
    assert AlignmentConfig().rates("gemma3")["language"] == 1e-5
    assert AlignmentConfig(method="grpo").rates("qwen2_5_vl") == dict.fromkeys(
        ("language", "vision", "projector"), 1e-6
    )


@pytest.mark.parametrize(("loss", "weight"), [("cross_entropy", 0.0), ("triangular", 1.0), ("answers", 0.0)])
def test_every_loss_learns(loss, weight, model_folder, ratings, tmp_path):
    config = replace(CONFIG, loss=loss, value_weight=weight, max_steps=12)
    result = align(model_folder("qwen2_5_vl"), ratings, tmp_path / loss, config)
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    assert len(losses) == result.steps == 12
    assert losses[-1] < 0.92 * losses[0]
    assert result.metrics == {}


def test_evaluation_in_training_is_the_benchmark_s(model_folder, ratings, tmp_path):
    config = replace(CONFIG, eval_every=1)
    held = ratings[6:]
    result = align(model_folder("gemma3"), ratings[:6], tmp_path / "aligned", config, evaluation=held)
    evaluated = [entry for entry in result.history if "eval_mae_memorability" in entry]
    assert [entry["step"] for entry in evaluated] == [1, 2, 2]
    scorer = MLLMScorer.from_pretrained(result.folder, "memorability", min_mass=0.0)
    values = scorer([rating.image for rating in held]).values
    truth = torch.tensor([rating.score for rating in held])
    assert result.metrics["mae_memorability"] == pytest.approx((values - truth).abs().mean().item(), abs=2e-3)
    assert result.metrics["unread_memorability"] == 0


def test_gradient_checkpointing_and_autocast_change_little(model_folder, ratings, tmp_path):
    plain, *_ = trained(model_folder("qwen2_5_vl"), CONFIG, ratings, tmp_path)
    saving, *_ = trained(
        model_folder("qwen2_5_vl"), replace(CONFIG, gradient_checkpointing=True), ratings, tmp_path
    )
    for one, other in zip(plain.model.parameters(), saving.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    half = replace(CONFIG, precision="bfloat16")
    mixed, _, before = trained(model_folder("qwen2_5_vl"), half, ratings, tmp_path)
    assert mixed.plain.dtype == torch.bfloat16
    check_moved(mixed, before, language="lora", vision="full", projector="full")


def test_a_loss_that_is_not_finite_ends_the_run(model_folder, ratings, tmp_path):
    config = replace(CONFIG, learning_rate=1e30, max_steps=8)
    with pytest.raises(
        TrainingError, match=r"step \d: (loss|grad_norm) is (nan|inf). Try: learning_rate=1e\+29"
    ):
        align(model_folder("qwen2_5_vl"), ratings, tmp_path / "wild", config)


def test_the_clock_ends_a_run_and_lowers_the_rate(model_folder, ratings, tmp_path):
    config = replace(CONFIG, max_steps=None, minutes=0.02, report_to="tensorboard")
    result = align(model_folder("qwen2_5_vl"), ratings, tmp_path / "timed", config)
    assert 1.2 <= result.seconds < 20
    assert list((tmp_path / "timed").rglob("events.out.tfevents*"))
    rates = [entry["learning_rate"] for entry in result.history if "learning_rate" in entry]
    assert rates[-1] < 0.5 * max(rates)
