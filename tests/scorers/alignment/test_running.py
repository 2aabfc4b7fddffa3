"""A whole run: what is refused before it, a kill in its middle, and more than one process."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_mllm import FAMILIES

from cogguided._errors import InputError, RecordError, UnknownNameError
from cogguided.scorers.alignment import AlignmentConfig, align, recipe
from cogguided.scorers.alignment.config import PRESETS
from cogguided.scorers.alignment.folders import last_checkpoint, read_run, write_run
from cogguided.scorers.alignment.preparing import prepare_ratings
from cogguided.scorers.alignment.running import common_arguments, in_force
from cogguided.scorers.benchmark import Rating, read_ratings
from cogguided.scorers.mllm.scorer import MLLMScorer

CONFIG = AlignmentConfig(
    loss="answers", rank=2, learning_rate=1e-2, vision_learning_rate=3e-3, max_steps=10, batch_size=4,
    micro_batch=2, save_every=2, wordings=3, pixels=None, log_every=5, sample_prefix=True,
)  # fmt: skip
SETTINGS = {
    **{"loss": "answers", "rank": 2, "learning_rate": 1e-2, "vision_learning_rate": 3e-3, "max_steps": 10},
    **{"batch_size": 4, "micro_batch": 2, "save_every": 2, "wordings": 3, "pixels": "null", "log_every": 5},
    "sample_prefix": "true",
}


def command(model, table, output, *more, **changes):
    sets = [f"--set={name}={value}" for name, value in {**SETTINGS, **changes}.items()]
    return ["align", "--model", model, "--data", table, "--output", output, *sets, *more]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


TRAINER = ["cogguided.scorers.alignment.running", "trl"]


def test_a_killed_run_goes_on_to_the_same_weights(model_folder, table, forks, tmp_path):
    """SIGKILL in the middle, with dropout, drawn wordings and drawn answers; the same to 1e-5."""
    model = model_folder("qwen2_5_vl")
    whole = align(model, table, tmp_path / "whole", CONFIG)
    output = tmp_path / "killed"
    killed = forks(command(model, table, output), tmp_path / "log", until=output / "checkpoint-4", modules=TRAINER)
    assert killed.code == -signal.SIGKILL, killed.said
    reached = last_checkpoint(output)
    assert not (output / "adapter_model.safetensors").exists()
    assert 2 <= int(reached.name.rpartition("-")[2]) < 10
    written = (reached / "trainer_state.json").stat().st_mtime_ns

    with pytest.raises(InputError, match="not empty"):
        align(model, table, output, CONFIG)
    with pytest.raises(InputError, match=r"another run.*rank: 2 -> 3"):
        align(model, table, output, replace(CONFIG, rank=3), resume=True)
    # A checkpoint that the kill left half written is not taken.
    (output / "checkpoint-29").mkdir()
    resumed = align(model, table, output, replace(CONFIG, keep=20), resume=True)
    assert (reached / "trainer_state.json").stat().st_mtime_ns == written  # the steps before it are not done again
    assert resumed.steps == whole.steps == 10
    assert resumed.history[0]["step"] == 5
    for name, expected in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(output)[name], expected, atol=1e-5, rtol=0)
    assert align(model, table, output, CONFIG, resume=True).steps == 10  # at its end: nothing is done again


def test_two_processes_do_what_one_does(model_folder, table, forks, tmp_path):
    """The same losses to 1e-4 and the same weights to 2e-5 after five steps, and the same evaluation."""
    model = model_folder("gemma3")
    changes = {"max_steps": 5, "log_every": 1, "held_out": 0.3, "save_every": 5, "dropout": 0.0}
    single = align(model, table, tmp_path / "one", replace(CONFIG, **changes))
    two = command(model, table, tmp_path / "two", "--json", **changes)
    shared = forks(two, tmp_path / "log", processes=2, modules=TRAINER)
    assert shared.code == 0, shared.said
    state = json.loads((tmp_path / "two/checkpoint-5/trainer_state.json").read_text())
    told = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert told == pytest.approx([e["loss"] for e in single.history if "loss" in e], abs=1e-4)
    for name, expected in weights(tmp_path / "one").items():
        # SigLIP has no rotary positions: a key's bias has no gradient but rounding errors, which Adam scales
        # up, here by less than a third of the 1.5e-2 that five steps of 3e-3 could come to
        tolerance = 5e-3 if "k_proj.bias" in name else 2e-5
        torch.testing.assert_close(weights(tmp_path / "two")[name], expected, atol=tolerance, rtol=1e-3)
    metrics = json.loads((tmp_path / "two/alignment.json").read_text())["metrics"]
    assert metrics == pytest.approx(single.metrics, abs=2e-3)
    assert metrics["unread_memorability"] == 1


def test_a_run_without_a_checkpoint_starts_anew_and_says_so(model_folder, ratings, tmp_path):
    config = replace(CONFIG, max_steps=1, save_every=None)
    where = (model_folder("smolvlm"), ratings, tmp_path / "run", config)
    whole = align(*where)
    run = tmp_path / "run/alignment.json"
    facts = json.loads(run.read_text())
    run.write_text(json.dumps({name: facts[name] for name in facts if name not in ("steps", "metrics")}))
    with pytest.warns(UserWarning, match="no checkpoint there yet, so the run starts anew"):
        assert align(*where, resume=True).steps == whole.steps == 1


@pytest.mark.parametrize(
    ("text", "match"), [('{"model": "x", "conf', "is not JSON"), ("[]", "not the record"), ("{}", "'config'")]
)
def test_a_torn_record_is_told(text, match, ratings, tmp_path):
    (tmp_path / "alignment.json").write_text(text)
    with pytest.raises(RecordError, match=match):
        align("m", ratings, tmp_path, CONFIG, resume=True)


def test_the_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_run(tmp_path, {"config": {}, "steps": 1})

    def killed(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_run(tmp_path, {"config": {}, "steps": 2})
    assert read_run(tmp_path)["steps"] == 1


def test_what_cannot_be_used_is_told_before_a_model_is_loaded(ratings, table, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("cogguided.scorers.alignment.loading.load_model", refuse)
    new = tmp_path / "new"
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    broken = [*ratings, Rating(tmp_path / "broken.png", "memorability", 0.5, "memorability/broken.png")]
    with pytest.raises(InputError, match=r"1 of 9 images cannot be used:\n.*broken\.png"):
        align("m", broken, new, CONFIG)
    with pytest.raises(InputError, match=r"2 of 2 ratings cannot be used:\n.*beauty.*\n.*score 7"):
        align("m", [replace(ratings[0], dimension="beauty"), replace(ratings[1], score=7.0)], new, CONFIG)
    with pytest.raises(InputError, match="there is none"):
        align("m", [], new, CONFIG)
    other = tmp_path / "other.csv"
    other.write_text("image,dimension,score\nmissing.png,memorability,0.5\n")
    with pytest.raises(InputError, match="no image"):
        align("m", other, new, CONFIG)
    with pytest.raises(InputError, match="8 numbers above 0"):
        align("m", ratings, new, CONFIG, stds=[0.1])
    with pytest.raises(InputError, match="in training and in evaluation"):
        align("m", ratings, new, CONFIG, evaluation=ratings[:1])
    with pytest.raises(InputError, match="not both"):
        align("m", ratings, new, replace(CONFIG, held_out=0.2), evaluation=ratings[:1])
    with pytest.raises(UnknownNameError, match="split"):
        align("m", ratings, new, CONFIG, split="train")
    with pytest.raises(UnknownNameError, match="split"):
        align("m", table, new, CONFIG, split="train")
    with pytest.raises(UnknownNameError, match="dimension"):
        align("m", ratings, new, CONFIG, dimensions=["beauty"])
    with pytest.raises(InputError, match="in a column, std"):
        align("m", table, new, CONFIG, stds=[0.1] * 8)
    with pytest.raises(InputError, match="nothing to resume"):
        align("m", ratings, new, CONFIG, resume=True)
    with pytest.raises(InputError, match="not empty"):
        align("m", ratings, tmp_path, CONFIG)
    assert not new.exists()
    with pytest.raises(AssertionError, match="a model was loaded"):
        align("embedded", ratings, new, CONFIG)


def test_splits_and_widths(ratings):
    named = [replace(r, split="train" if i < 6 else "test") for i, r in enumerate(ratings)]
    kept, held, stds = prepare_ratings(named, CONFIG, stds=[0.01 * (i + 1) for i in range(8)])
    assert kept == named[:6]
    assert not held
    assert stds == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    kept, held, _ = prepare_ratings(named[:6], CONFIG, evaluation=named)
    assert (kept, held) == (named[:6], named[6:])  # of the other, the split "test"
    assert prepare_ratings(named, CONFIG, split="test")[0] == named[6:]
    assert prepare_ratings(ratings, CONFIG)[2] == pytest.approx([0.05] * 8)


def test_splits_may_share_names(ratings, tmp_path):
    lines = ["image,dimension,score,split,std"]
    for split, own in (("train", ratings[:6]), ("test", ratings[6:])):
        (tmp_path / split / "memorability").mkdir(parents=True)
        for i, rating in enumerate(own):
            image = f"{split}/memorability/{i}.png"
            (tmp_path / image).write_bytes(rating.image.read_bytes())
            lines.append(f"{image},memorability,{rating.score},{split},{0.1 * (i + 1):.1f}")
    data = tmp_path / "both.csv"
    data.write_text("\n".join(lines))
    with pytest.raises(InputError, match="rated twice"):
        read_ratings(data)
    kept, held, stds = prepare_ratings(data, CONFIG, evaluation=data)
    assert [r.score for r in kept] == [r.score for r in ratings[:6]]
    assert [r.score for r in held] == [r.score for r in ratings[6:]]
    assert stds == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    for split, count in (("train", 6), ("test", 2)):
        assert len(prepare_ratings(data, CONFIG, split=split)[0]) == count


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_stds_are_read_from_a_file(kind, ratings, tmp_path):
    told = ["0.01", "0.02", "", "0.04"]
    columns = ("image", "score", "std")
    rows = [(r.image.name, r.score, std) for r, std in zip(ratings, told, strict=False)][::-1]
    if kind == "jsonl":
        text = "\n\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    else:
        delimiter = "," if kind == "csv" else "\t"
        text = "\n".join(delimiter.join(map(str, row)) for row in [columns, *rows])
    data = tmp_path / f"ratings.{kind}"
    data.write_text(text)
    images = ratings[0].image.parent
    about = {"images": images, "dimensions": ["memorability"]}
    kept, _, stds = prepare_ratings(data, CONFIG, **about)
    assert [rating.image.name for rating in kept] == ["0.png", "1.png", "2.png", "3.png"]
    assert stds == pytest.approx([0.01, 0.02, CONFIG.width, 0.04])  # a range of 1
    for wrong in ("wide", "0", "nan"):
        data.write_text(text.replace("0.04", wrong))
        with pytest.raises(InputError, match=rf"1 of 4 ratings cannot be used:\n.*std '?{wrong}"):
            prepare_ratings(data, CONFIG, **about)


def test_batches_that_cannot_be_shared_out():
    with pytest.raises(InputError, match="multiple of micro_batch"):
        AlignmentConfig(batch_size=10, micro_batch=4)
    arguments = common_arguments(Path("out"), AlignmentConfig(batch_size=128, micro_batch=4), 3200, True)
    assert (arguments["gradient_accumulation_steps"], arguments["max_steps"]) == (32, 25)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"loss": "binomial"}, "unknown loss 'binomial'"),
        ({"method": "ppo"}, "unknown method"),
        ({"vision": "qlora"}, "unknown vision"),
        ({"language": "dora", "vision": "lora"}, "LoRA or DoRA in all of its parts"),
        ({"language": "lora", "projector": "dora"}, "LoRA or DoRA in all of its parts"),
        ({"width": 0.0}, "width"),
        ({"rank": 0}, "rank"),
        ({"language": "frozen", "vision": "frozen", "projector": "frozen"}, "everything is frozen"),
        ({"language": "full", "vision": "lora"}, "whole model"),
        ({"language": "full", "bits": 4}, "language='lora'"),
        ({"method": "grpo", "generations": 1}, "generations"),
    ],
)
def test_settings_that_cannot_be(changes, match):
    with pytest.raises(InputError, match=match):
        AlignmentConfig(**changes)


def test_the_recipe_is_the_paper_s():
    config = recipe("Qwen/Qwen2.5-VL-7B-Instruct")
    assert (config.rank, config.alpha, config.dropout) == (64, 64, 0.05)
    assert (config.language, config.vision, config.projector) == ("lora", "full", "full")
    assert config.rates("qwen2_5_vl") == {"language": 3e-5, "vision": 2e-6, "projector": 1e-5}
    assert config.rates("mllama")["language"] == 9e-5
    assert (config.batch_size, config.weight_decay, config.warmup) == (128, 0.1, 0.03)
    assert (config.soft_label("qwen2_5_vl"), config.soft_label("mllama"), config.digit_weight) == (
        0.15,
        0.08,
        2,
    )
    assert (config.generations, config.kl, config.temperature) == (2, 0.04, 0.9)
    assert config.pixels == (200704, 1003520)


def test_every_family_has_its_preset(model_folder):
    named = {
        "Qwen2.5-VL",
        "Qwen3-VL",
        "Gemma 3",
        "Llama 3.2 Vision",
        "InternVL3",
        "LLaVA-OneVision",
        "SmolVLM",
    }
    assert named <= {own.name for own in PRESETS.values()}
    kinds = {json.loads((model_folder(family) / "config.json").read_text())["model_type"] for family in FAMILIES}
    assert kinds == set(PRESETS)  # as saved by each family's own class
    own = PRESETS["qwen2_5_vl"]
    for found in PRESETS.values():
        assert found.from_paper or (found.learning_rate, found.eta) == (own.learning_rate, own.eta)
    assert {found.name for found in PRESETS.values() if found.from_paper} == {
        "Qwen2.5-VL", "Gemma 3", "Llama 3.2 Vision",
    }  # fmt: skip
    assert in_force(AlignmentConfig(), "mllama") == {
        "name": "Llama 3.2 Vision",
        "from_paper": True,
        "learning_rates": {"language": 9e-5, "vision": 2e-6, "projector": 1e-5},
        "eta": 0.08,
    }


def test_the_embedded_model_is_aligned_from_its_base(ratings, tmp_path):
    config = replace(recipe("embedded"), max_steps=1, batch_size=4, micro_batch=4)
    align("embedded", ratings, tmp_path / "small", config)
    scorer = MLLMScorer.from_pretrained(tmp_path / "small", "memorability", min_mass=0.0)
    assert scorer.dimensions == ("memorability",)
    assert scorer.facts.dimensions["memorability"].question == "memorability?"
    assert scorer([ratings[0].image]).valid.all()


def test_an_image_that_the_processor_refuses_is_named_before_the_model_is_loaded(model_folder, tmp_path, monkeypatch):
    import cogguided.scorers.alignment.loading as loading

    Image.new("RGB", (64, 64)).save(tmp_path / "fine.png")
    Image.new("RGB", (2000, 8)).save(tmp_path / "strip.png")
    ratings = [Rating(tmp_path / name, "memorability", 0.5, name) for name in ("fine.png", "strip.png")]
    monkeypatch.setattr(loading, "load_model", lambda *args: pytest.fail("the model was loaded"))
    with pytest.raises(InputError, match=r"1 images .*strip\.png \(2000x8: .*[Ll]eave their rows out"):
        align(model_folder("qwen2_5_vl"), ratings, tmp_path / "out", replace(CONFIG, held_out=0.0))
