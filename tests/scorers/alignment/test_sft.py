"""Every family trains: what should move moves, what should not does not, and what was trained is saved."""

import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from marked import EACH
from tiny_mllm import FAMILIES

from cogguided._errors import TrainingError
from cogguided.scorers import load_scorer
from cogguided.scorers.alignment import AlignmentConfig, align
from cogguided.scorers.alignment.loading import load_for_training
from cogguided.scorers.alignment.running import common_arguments
from cogguided.scorers.alignment.training import callbacks
from cogguided.scorers.alignment.training.callbacks import Clock
from cogguided.scorers.alignment.training.evaluation import evaluate_ratings
from cogguided.scorers.alignment.training.sft import AlignmentTrainer, sft_trainer
from cogguided.scorers.alignment.training.trainer import parameter_groups
from cogguided.scorers.benchmark.metrics import METRICS
from cogguided.scorers.benchmark.results import build_results
from cogguided.scorers.benchmark.run import score_items
from cogguided.scorers.mllm.scorer import MIN_MASS, MLLMScorer

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


@pytest.mark.parametrize("family", EACH)
def test_every_family_trains_what_it_should_and_is_saved_whole(family, model_folder, ratings, pictures, tmp_path):
    loaded, trainer, before = trained(model_folder(family), CONFIG, ratings, tmp_path)
    check_moved(loaded, before, language="lora", vision="full", projector="full")
    assert not any(p.requires_grad for n, p in loaded.model.named_parameters() if "lm_head" in n)

    trainer.save_model(str(tmp_path / "aligned"))
    scorer = MLLMScorer.from_pretrained(tmp_path / "aligned", "memorability", min_mass=0.0)
    assert scorer.facts.grounding == {"memorability": "human"}
    expected = logits_of(loaded.plain, scorer, pictures)
    torch.testing.assert_close(logits_of(scorer.model, scorer, pictures), expected, atol=1e-4, rtol=1e-4)
    base = load_scorer("memorability", model=model_folder(family), min_mass=0.0)
    assert (logits_of(base.model, base, pictures) - expected).abs().max() > 1e-3


FEW = ("qwen2_5_vl", "gemma3", "mllama")
"""Pictures as a list of patches, as tokens among the text's, and by cross-attention; the others under `slow`."""
SOME = [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


@pytest.mark.parametrize("family", SOME)
def test_micro_batches_change_nothing(family, model_folder, ratings, tmp_path):
    whole, halves = (
        trained(model_folder(family), replace(CONFIG, micro_batch=size), ratings, tmp_path)[0] for size in (4, 2)
    )
    for (name, one), other in zip(whole.model.named_parameters(), halves.model.parameters(), strict=True):
        # Without rotary positions softmax does not see a key's bias: its gradient is rounding errors, which
        # Adam scales up, by no more than half of the 6e-3 that two steps of 3e-3 could come to.
        tolerance = 3e-3 if "k_proj.bias" in name else 2e-5
        torch.testing.assert_close(one, other, atol=tolerance, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


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
    in_memory.min_mass = 0.0
    expected = logits_of(loaded.plain, scorer, pictures)
    torch.testing.assert_close(logits_of(scorer.model, scorer, pictures), expected, atol=1e-4, rtol=1e-4)
    if family == "gemma3":
        values = in_memory.with_dimension("memorability")(pictures[:1]).values
        torch.testing.assert_close(scorer(pictures[:1]).values, values, atol=1e-3, rtol=0)


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


def test_the_rate_rises_over_the_warm_up_and_falls_by_a_cosine(model_folder, ratings, tmp_path):
    """Each of ten steps has the rate of its own middle."""
    loaded = load_for_training(model_folder("smolvlm"), CONFIG, ["memorability"], "tiny")
    config = replace(CONFIG, warmup=0.1, max_steps=10)
    arguments = common_arguments(tmp_path / "run", config, len(ratings), False)
    trainer = sft_trainer(loaded, config, arguments, ratings, [0.05] * len(ratings), [], Clock())
    trainer.create_optimizer()
    factor = trainer.create_scheduler(10).lr_lambdas[0]
    assert factor(0) == pytest.approx(0.5)
    expected = [0.5 + 0.5 * math.cos(math.pi * (step - 0.5) / 9) for step in range(1, 10)]
    assert [factor(step) for step in range(1, 10)] == pytest.approx(expected)


@pytest.mark.parametrize(("loss", "weight"), [("cross_entropy", 0.0), ("triangular", 1.0), ("answers", 0.0)])
def test_every_loss_learns(loss, weight, model_folder, ratings, tmp_path):
    config = replace(CONFIG, loss=loss, value_weight=weight, max_steps=12)
    result = align(model_folder("qwen2_5_vl"), ratings, tmp_path / loss, config)
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    assert len(losses) == result.steps == 12
    assert losses[-1] < 0.92 * losses[0]
    assert result.metrics == {}


def test_evaluation_in_training_is_the_benchmark_s(model_folder, ratings, tmp_path):
    """At first nothing can be read, in the end all; all eight metrics are those of a benchmark's run."""
    config = replace(CONFIG, eval_every=10, max_steps=40, learning_rate=3e-2, rank=8, answer_tokens=True)
    held = ratings[4:]
    result = align(model_folder("qwen2_5_vl"), ratings[:4], tmp_path / "aligned", config, evaluation=held)
    evaluated = [entry for entry in result.history if "eval_unread_memorability" in entry]
    assert [entry["step"] for entry in evaluated] == [10, 20, 30, 40, 40]
    first, last = evaluated[0], evaluated[-1]
    assert (first["eval_unread_memorability"], last["eval_unread_memorability"]) == (1, 0)
    assert first["eval_mass_memorability"] < MIN_MASS < last["eval_mass_memorability"]
    assert "eval_mae_memorability" not in first

    scorer = MLLMScorer.from_pretrained(result.folder, "memorability")
    score_items(scorer, held, tmp_path / "run", progress=False)
    row = next(r for r in build_results(tmp_path / "run", num_resamples=0)["rows"] if r["who"] == "expected")
    expected = {f"{name}_memorability": figure["value"] for name, figure in row["metrics"].items()}
    assert set(result.metrics) == {f"{name}_memorability" for name in METRICS}  # no epoch, nothing missing
    assert result.metrics == pytest.approx(expected, abs=2e-3)


def test_unread_means_what_it_means_in_scoring(model_folder, ratings):
    scorer = MLLMScorer.from_pretrained(model_folder("smolvlm"), "memorability", min_mass=0.0)
    images = [rating.image for rating in ratings]
    found = scorer(images)
    scorer.min_mass = found.mass.sort().values[4:6].mean().item()  # five of eight are below
    metrics = evaluate_ratings(scorer, ratings)
    assert metrics["unread_memorability"] == 5 / 8
    truth = torch.tensor([rating.score for rating in ratings])
    read = found.mass >= scorer.min_mass
    expected = (found.values - truth)[read].abs().mean().item()
    assert metrics["mae_memorability"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", EACH)
def test_scores_of_a_model_to_be_trained_in_bfloat16(family, model_folder, pictures):
    """Frozen weights in bfloat16, tower and projector training in float32, as on a GPU."""
    scores = {}
    for precision in ("float32", "bfloat16"):
        loaded = load_for_training(
            model_folder(family), replace(CONFIG, precision=precision), ["memorability"], "tiny"
        )
        loaded.model.eval()
        scorer = loaded.scorer().with_dimension("memorability")
        scorer.min_mass = 0.0
        scores[precision] = scorer(pictures[:2]).values
        with loaded.computing():
            torch.testing.assert_close(scorer(pictures[:2]).values, scores[precision], atol=0, rtol=0)
    torch.testing.assert_close(scores["bfloat16"], scores["float32"], atol=2e-2, rtol=0)


@pytest.mark.parametrize("family", SOME)
def test_evaluation_in_bfloat16(family, model_folder, ratings, tmp_path):
    config = replace(CONFIG, precision="bfloat16", eval_every=1, micro_batch=2, max_steps=1)
    result = align(model_folder(family), ratings[:4], tmp_path / "half", config, evaluation=ratings[6:])
    steps = [entry["step"] for entry in result.history if "eval_unread_memorability" in entry]
    assert steps == [1, 1]
    assert result.metrics["unread_memorability"] == 1  # one step teaches nothing
    assert 0 <= result.metrics["mass_memorability"] < MIN_MASS
    assert (result.folder / "adapter_model.safetensors").is_file()


def test_a_whole_model_is_evaluated_in_bfloat16(model_folder, ratings, tmp_path):
    config = replace(CONFIG, precision="bfloat16", language="full", eval_every=1, max_steps=1)
    result = align(model_folder("gemma3"), ratings[:4], tmp_path / "whole", config, evaluation=ratings[4:])
    assert result.metrics["unread_memorability"] == 1


def test_evaluation_takes_no_larger_batch_than_training(model_folder, ratings, tmp_path):
    config = replace(CONFIG, micro_batch=2)
    loaded = load_for_training(model_folder("smolvlm"), config, ["memorability"], "tiny")
    arguments = common_arguments(tmp_path / "run", config, 4, True)
    trainer = sft_trainer(loaded, config, arguments, ratings[:4], [0.05] * 4, ratings[4:], Clock())
    assert trainer.scorer.batch_size == 2
    assert trainer.scorer.min_mass == MIN_MASS


def test_what_was_trained_is_saved_before_it_is_evaluated(model_folder, ratings, tmp_path, monkeypatch):
    def fail(*_args):
        raise RuntimeError("evaluation fails")

    monkeypatch.setattr("cogguided.scorers.alignment.training.trainer.evaluate_ratings", fail)
    where = (model_folder("smolvlm"), ratings[:4], tmp_path / "aligned", CONFIG)
    with pytest.raises(RuntimeError, match="evaluation fails"):
        align(*where, evaluation=ratings[4:])
    assert not list((tmp_path / "aligned").glob("checkpoint-*"))
    MLLMScorer.from_pretrained(tmp_path / "aligned", "memorability")
    with pytest.warns(UserWarning, match="its evaluation was cut short"):
        result = align(*where, evaluation=ratings[4:], resume=True)
    assert (result.steps, result.metrics) == (2, {})


def test_out_of_memory_says_what_to_try_and_keeps_what_is_saved(model_folder, ratings, tmp_path, monkeypatch):
    config = replace(CONFIG, max_steps=4, save_every=2)
    compute = AlignmentTrainer.compute_loss

    def full(self, model, inputs, *args, **kwargs):
        if self.state.global_step == 3 and len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(AlignmentTrainer, "compute_loss", full)
    where = (model_folder("smolvlm"), ratings, tmp_path / "aligned")
    with pytest.raises(
        TrainingError, match=r'training; .*checkpoint-2 is kept, .*micro_batch=2; .*bits=4; vision="lora"'
    ):
        align(*where, config)
    state = tmp_path / "aligned/checkpoint-2/trainer_state.json"
    facts = json.loads(state.read_text())
    clock = facts["stateful_callbacks"]["Clock"]["attributes"]
    assert 0 < clock["spent"] < 600
    clock["spent"] = 1000.0
    state.write_text(json.dumps(facts))
    resumed = align(*where, replace(config, micro_batch=2), resume=True)
    assert resumed.steps == 4
    assert 1000 < resumed.seconds < 1600, "the time before counts"


def test_gradient_checkpointing_and_autocast_change_little(model_folder, ratings, tmp_path):
    plain, *_ = trained(model_folder("qwen2_5_vl"), CONFIG, ratings, tmp_path)
    saving, *_ = trained(model_folder("qwen2_5_vl"), replace(CONFIG, gradient_checkpointing=True), ratings, tmp_path)
    for one, other in zip(plain.model.parameters(), saving.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    half = replace(CONFIG, precision="bfloat16")
    mixed, _, before = trained(model_folder("qwen2_5_vl"), half, ratings, tmp_path)
    assert mixed.plain.dtype == torch.bfloat16
    check_moved(mixed, before, language="lora", vision="full", projector="full")


def test_a_loss_that_is_not_finite_ends_the_run(model_folder, ratings, tmp_path):
    config = replace(CONFIG, learning_rate=1e30, max_steps=8)
    with pytest.raises(TrainingError, match=r"step \d: (loss|grad_norm) is (nan|inf). Try: learning_rate=1e\+29"):
        align(model_folder("qwen2_5_vl"), ratings, tmp_path / "wild", config)


def test_the_clock_ends_a_run_and_lowers_the_rate(model_folder, ratings, tmp_path, monkeypatch):
    """By a clock that goes on by a twentieth of a second whenever it is looked at."""
    ticks = itertools.count(0, 0.05)
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    config = replace(CONFIG, max_steps=None, minutes=0.02, report_to="tensorboard")
    result = align(model_folder("qwen2_5_vl"), ratings, tmp_path / "timed", config)
    assert 1.2 <= result.seconds < 2
    assert list((tmp_path / "timed").rglob("events.out.tfevents*"))
    rates = [entry["learning_rate"] for entry in result.history if "learning_rate" in entry]
    assert rates[-1] < 0.5 * max(rates)
