"""Whole fine-tuning runs: they learn, resume, share work, leave out what has no score, and stop when exploited."""

import itertools
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import CogGuidedError, FakeScorer, FinetuneConfig, finetune
from cogguided.guidance.finetuning import loop
from cogguided.guidance.finetuning.checkpoints import load_checkpoint
from cogguided.scorers import Target
from cogguided.scorers.target import Term

HERE = Path(__file__).resolve().parent
PROMPTS = ["a cat", "a dog", "a red car", "a tree", "a house", "a bird"]
HELD_OUT = ["a fish", "a lamp", "a boat", "a cloud"]
CONFIG = FinetuneConfig(
    rounds=4, prompts_per_round=2, images_per_prompt=4, timesteps=2, updates=2, rank=2, learning_rate=0.02, warmup=0,
    images_per_evaluation=2, evaluate_every=2, patience=0, save="last",
)  # fmt: skip

SAME = 1e-4
"""How far weights of two processes may be apart, that round differently; a step is 0.02."""


def tiny_run(folder, config=CONFIG, scorer=None, family="flux", **changes):
    options = {"evaluation": HELD_OUT, "faithfulness": None, "progress": False, **CALL[family], **changes}
    return finetune(tiny_pipeline(family), scorer or FakeScorer(), PROMPTS, folder, config, **options)


def weights(folder):
    return load_checkpoint(folder)[1]


def assert_same(first, second, tolerance):
    assert first.keys() == second.keys()
    for kind, of in first.items():
        for name, tensor in of.items():
            assert torch.allclose(tensor, second[kind][name], atol=tolerance), f"{kind} {name}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return tiny_run(folder)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The first half of it."""
    return tiny_run(tmp_path_factory.mktemp("short"), replace(CONFIG, rounds=2, report_to="tensorboard"))


@pytest.mark.parametrize("method", ["rwr", "nft", "dpo", "drtune"])
def test_what_is_rewarded_becomes_more(method, tmp_path):
    """Brightness of held-out prompts rises beyond noise within a few rounds, by each method."""
    config = replace(CONFIG, method=method, rounds=5, evaluate_every=5, images_per_prompt=8, beta=None, ema=0.0)
    result = tiny_run(tmp_path, config)
    gain = result.saved.values["target"] - result.before.values["target"]
    assert gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain)) > 0, gain
    state, _ = load_checkpoint(tmp_path)
    assert [row["round"] for row in state.history] == list(range(1, 6))


def test_the_folder_holds_what_people_look_for(whole):
    names = {path.name for path in whole.folder.iterdir()}
    assert {"pytorch_lora_weights.safetensors", "report.html", "finetuning.json", "evaluations"} <= names
    page = (whole.folder / "report.html").read_text()
    assert page.count("<svg") >= 4
    assert page.count("data:image/png") == 2, "before and saved"
    assert "No held-out judge" in page
    assert json.loads((whole.folder / "finetuning.json").read_text())["result"]["rounds"] == 4
    kept = sorted(path.name for path in (whole.folder / "checkpoints").glob("round-*"))
    assert kept == ["round-00003", "round-00004"]


def here(code):
    """Python code that has what this module has."""
    names = "ANCHORED, DRTUNE, tiny_run"
    return f"import sys; sys.path[:0] = [{str(HERE)!r}]\nfrom test_finetuning import {names}\n{code}\n"


def test_a_killed_run_goes_on_and_equals_the_uninterrupted_one(whole, forks, tmp_path):
    """Killed once in its second round or later: the weights after all rounds are the same."""
    first = tmp_path / "run/checkpoints/round-00001"
    killed = forks(here(f"tiny_run({str(tmp_path / 'run')!r})"), tmp_path / "log", until=first)
    assert killed.code == -signal.SIGKILL, killed.said
    assert first.exists() or load_checkpoint(tmp_path / "run")[0].round > 1
    (tmp_path / "run/checkpoints/.round-00009.tmp").mkdir()  # as a kill in the middle of writing leaves it
    with pytest.raises(CogGuidedError, match="is not empty"):
        tiny_run(tmp_path / "run")
    with pytest.raises(CogGuidedError, match=r"rank \(2 -> 3\)"):
        tiny_run(tmp_path / "run", replace(CONFIG, rank=3), resume=True)
    resumed = tiny_run(tmp_path / "run", resume=True)
    assert resumed.rounds == 4
    assert_same(weights(tmp_path / "run"), weights(whole.folder), SAME)
    for mine, theirs in zip(resumed.evaluations, whole.evaluations, strict=True):
        assert np.allclose(mine.values["target"], theirs.values["target"], atol=1e-4)
    again = tiny_run(tmp_path / "run", resume=True)
    assert again.seconds == pytest.approx(resumed.seconds, abs=2), "a finished run has nothing to do"


def test_more_rounds_can_be_asked_for(whole, short, tmp_path):
    assert short.rounds == 2
    shutil.copytree(short.folder, tmp_path, dirs_exist_ok=True)
    state = tmp_path / "checkpoints/round-00002/state.json"
    facts = json.loads(state.read_text())
    assert 0 < facts["seconds"] < 600
    state.write_text(json.dumps({**facts, "seconds": 1000.0}))
    more = tiny_run(tmp_path, replace(CONFIG, rounds=4), resume=True)
    assert more.rounds == 4
    assert 1000 < more.seconds < 1600, "the time before counts"
    assert_same(weights(tmp_path), weights(whole.folder), SAME)


@pytest.mark.parametrize("method", ["nft", "dpo", "drtune"])
def test_accumulation_changes_nothing(method, tmp_path):
    config = replace(CONFIG, rounds=1, method=method, pairs=2, reference_weight=0.1)
    tiny_run(tmp_path / "at once", replace(config, updates=1))
    tiny_run(tmp_path / "one by one", replace(config, updates=1, micro_batch=1))
    assert_same(weights(tmp_path / "at once"), weights(tmp_path / "one by one"), 2e-5)


def test_low_memory_changes_nothing_but_memory(short, tmp_path):
    tiny_run(tmp_path, replace(CONFIG, rounds=2, low_memory=True))
    assert_same({"adapter": weights(tmp_path)["adapter"]}, {"adapter": weights(short.folder)["adapter"]}, 2e-4)


DRTUNE = replace(CONFIG, rounds=2, method="drtune")
ANCHORED = {"anchors": ["a lamp", "a cloud"], "evaluation": HELD_OUT[:1]}


@pytest.fixture(scope="module")
def whole_drtune(tmp_path_factory):
    """An uninterrupted run that learns through the image, with anchors."""
    folder = tmp_path_factory.mktemp("drtune")
    return tiny_run(folder, DRTUNE, **ANCHORED)


def test_two_processes_do_what_one_does(whole, whole_drtune, forks, tmp_path):
    """The same weights to 1e-4 after all rounds, the same evaluations to 1e-3."""
    run, drtune = str(tmp_path / "run"), str(tmp_path / "drtune")
    late = "time.sleep(int(os.environ['RANK']))"  # it must not find what the first one has begun
    code = here(f"tiny_run({run!r})\nimport os, time\n{late}\ntiny_run({drtune!r}, DRTUNE, **ANCHORED)")
    shared = forks(code, tmp_path / "log", processes=2)
    assert shared.code == 0, shared.said
    for folder, one in ((run, whole), (drtune, whole_drtune)):
        assert_same({"a": weights(Path(folder))["adapter"]}, {"a": weights(one.folder)["adapter"]}, 1e-4)
    state, _ = load_checkpoint(tmp_path / "run")
    for mine, theirs in zip(state.evaluations, whole.evaluations, strict=True):
        assert np.allclose(mine.values["target"], theirs.values["target"], atol=1e-3)


@pytest.mark.parametrize("method", ["nft", "drtune"])
def test_anchors_hold_what_should_stay(method, tmp_path):
    """Predictions for anchor prompts move less than half as far as without."""
    config = replace(CONFIG, method=method, rounds=2, anchor_weight=100.0, micro_batch=3)
    kept = ["a lamp", "a cloud"]

    def moved(folder, **changes):
        pipe = tiny_pipeline("flux")
        options = {"evaluation": HELD_OUT[:1], "faithfulness": None, "progress": False, **CALL["flux"], **changes}
        finetune(pipe, FakeScorer(), PROMPTS, folder, config, **options)
        images = [torch.stack([draw(p, text) for text in kept]) for p in (tiny_pipeline("flux"), pipe)]
        return float((images[0] - images[1]).abs().mean())

    def draw(pipe, text):
        image = pipe(text, generator=torch.Generator().manual_seed(1), output_type="pt", **CALL["flux"]).images[0]
        return image.detach()

    free, held = moved(tmp_path / "free"), moved(tmp_path / "held", anchors=kept)
    assert held < free / 2, (held, free)
    with pytest.raises(CogGuidedError, match="anchors"):
        tiny_run(tmp_path / "held", config, anchors=kept[:1], evaluation=HELD_OUT[:1], resume=True)


def unreadable(images):
    """Brightness, which cannot be told of one image in three."""
    value = images.mean(dim=(1, 2, 3))
    return torch.where((value * 1e5).round() % 3 == 0, torch.nan, value)


def test_images_without_a_score_are_left_out_and_counted(tmp_path):
    result = tiny_run(tmp_path, replace(CONFIG, rounds=1), FakeScorer("picky", fn=unreadable))
    state, kept = load_checkpoint(tmp_path)
    assert result.unread == sum(row["unread"] for row in state.history) > 0
    assert all(row["trained_on"] + row["unread"] <= row["images"] for row in state.history)
    assert all(tensor.isfinite().all() for of in kept.values() for tensor in of.values())
    assert f"{result.unread} images had no valid score" in (tmp_path / "report.html").read_text()


def test_a_scorer_that_reads_nothing_moves_nothing(tmp_path):
    blind = FakeScorer("blind", fn=lambda images: torch.full((len(images),), torch.nan))
    result = tiny_run(tmp_path, replace(CONFIG, rounds=1), blind)
    assert result.unread == 8
    assert not any(t.any() for n, t in weights(tmp_path)["adapter"].items() if "lora_B" in n)


def test_drtune_counts_what_has_no_score_and_refuses_what_has_no_gradient(tmp_path):
    config = replace(CONFIG, rounds=1, method="drtune")
    result = tiny_run(tmp_path / "picky", config, FakeScorer("picky", fn=unreadable))
    assert result.unread > 0
    state, kept = load_checkpoint(tmp_path / "picky")
    assert state.history[0]["trained_on"] == 8 - state.history[0]["unread"]
    assert all(tensor.isfinite().all() for of in kept.values() for tensor in of.values())
    with pytest.raises(CogGuidedError, match="'drtune': eyes has no gradient"):
        tiny_run(tmp_path / "blind", config, FakeScorer("eyes", differentiable=False))
    assert not (tmp_path / "blind").exists()


@pytest.mark.parametrize("method", ["nft", "drtune"])
def test_resuming_changes_nothing_with_anchors(method, whole_drtune, tmp_path):
    """The same weights."""
    config = replace(DRTUNE, method=method)
    whole = whole_drtune.folder
    if method != "drtune":
        whole = tiny_run(tmp_path / "whole", config, **ANCHORED).folder
    tiny_run(tmp_path / "cut", replace(config, rounds=1), **ANCHORED)
    tiny_run(tmp_path / "cut", config, resume=True, **ANCHORED)
    assert_same(weights(tmp_path / "cut"), weights(whole), SAME)


def darkness(images):
    return 1 - images.mean(dim=(1, 2, 3))


def contrast(images):
    return images.mean(dim=(1, 2, 3)).clamp(0, 1).sqrt()


@pytest.mark.parametrize(("fn", "rings"), [(darkness, True), (contrast, False)])
def test_the_alarm_rings_for_an_exploited_scorer_only(fn, rings, tmp_path):
    judge = Target([Term("other", 1.0, FakeScorer("other", fn=fn))])
    config = replace(
        CONFIG, rounds=6, evaluate_every=2, images_per_prompt=8 if rings else 4, patience=2, judge_tolerance=0.0,
        save="best", ema=0.0, learning_rate=0.05,
    )  # fmt: skip
    result = tiny_run(tmp_path, config, judges={"other": judge})
    assert (result.stopped, result.alarm) == (("alarm", "other") if rings else ("rounds", None))
    if rings:
        assert result.rounds < 6
        assert result.saved_round == 0, "the only evaluation at which the judge had not fallen"
        saved = load_file(tmp_path / "checkpoints/saved.safetensors")
        assert not any(t.any() for n, t in saved.items() if "lora_B" in n)
        assert "ALARM" in (tmp_path / "report.html").read_text()
        assert tiny_run(tmp_path, config, judges={"other": judge}, resume=True).rounds == result.rounds


def test_an_exploding_run_says_what_to_try(tmp_path):
    with pytest.raises(CogGuidedError, match=r"Try: learning_rate="):
        tiny_run(tmp_path, replace(CONFIG, rounds=30, learning_rate=1e6, max_grad_norm=1e9))
    assert load_checkpoint(tmp_path) is None or load_checkpoint(tmp_path)[0].round >= 1


def test_minutes_cap_a_run(tmp_path, monkeypatch):
    """By a clock that goes on by a tenth of a second whenever it is looked at."""
    ticks = itertools.count(0, 0.1)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    result = tiny_run(tmp_path, replace(CONFIG, rounds=None, minutes=0.03))
    assert result.stopped == "minutes"
    assert 1 <= result.rounds < 18


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prompts": []}, "there are none to train on"),
        ({"prompts": ["a cat", "a dog"], "evaluation": ["a dog"]}, "both trained on and held out"),
        ({"prompts": "no/such/file.txt"}, "cannot be read as text"),
        ({"prompts": ["a cat", 3]}, "expected text, got int"),
        ({"prompts": ["a cat"]}, "too few to hold some out"),
        ({"height": 16, "widht": 16}, "did you mean 'width'"),
        ({"judges": {"target": "fake"}}, "another member of the panel"),
        ({"target": None}, "no target"),
        ({"resume": True}, "nothing to resume"),
    ],
)
def test_bad_input_is_told_before_anything_is_made(changes, match, tmp_path):
    options = {"target": FakeScorer(), "prompts": PROMPTS, "config": CONFIG, **changes}
    with pytest.raises(CogGuidedError, match=match):
        finetune(tiny_pipeline("flux"), output=tmp_path / "run", progress=False, faithfulness=None, **options)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_keeps_what_was_saved(short, tmp_path, monkeypatch):
    tiny_run(tmp_path, replace(CONFIG, rounds=1))
    from cogguided.guidance.finetuning import checkpoints

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        with pytest.raises(OSError, match="No space left on device"):
            tiny_run(tmp_path, replace(CONFIG, rounds=2), resume=True)
    assert load_checkpoint(tmp_path)[0].round == 1
    assert tiny_run(tmp_path, replace(CONFIG, rounds=2), resume=True).rounds == 2
    assert_same(weights(tmp_path), weights(short.folder), SAME)


def test_tensorboard_gets_the_curves(short):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (where,) = {file.parent for file in short.folder.rglob("events.out.tfevents*")}
    events = EventAccumulator(str(where)).Reload()
    assert {"train/score", "train/loss", "held-out/target"} <= set(events.Tags()["scalars"])


def test_half_precision_trains_a_float32_adapter(tmp_path):
    pipe = tiny_pipeline("flux").to(torch.bfloat16)
    config = replace(CONFIG, rounds=1, precision="bfloat16")
    options = {"evaluation": HELD_OUT, "faithfulness": None, "progress": False, **CALL["flux"]}
    finetune(pipe, FakeScorer(), PROMPTS, tmp_path, config, **options)
    trained = {n: p for n, p in pipe.transformer.named_parameters() if "lora_B" in n}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert any(bool(p.any()) for p in trained.values())
    assert all(bool(t.isfinite().all()) for of in weights(tmp_path).values() for t in of.values())
    base = {p.dtype for n, p in pipe.transformer.named_parameters() if "lora" not in n}
    assert base == {torch.bfloat16}
