"""The examples run as they stand, offline, with the embedded model, most in a quarter of the denoising steps."""

import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_diffusion import CALL, tiny_pipeline

import cogguided
from cogguided import CogGuidedPipeline, FakeScorer
from cogguided.guidance import finetuning
from cogguided.guidance.finetuning import recipe as finetuning_recipe

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

SEARCHES = {
    "drafts.py": {"n": 8},
    "fk_steering.py": {},
    "halving.py": {"n": 6},
    "joint_search.py": {"n": 6},
    "noise_search.py": {"rounds": 1},
    "reward_gradient.py": {"iterations": 2},
    "rewrite_prompt.py": {},
}
"""With what each search is made smaller."""


@pytest.fixture(autouse=True)
def _quiet():
    from diffusers.utils import logging

    logging.disable_progress_bar()


@pytest.fixture(scope="module")
def embedded():
    """The embedded model in five denoising steps, not twenty: what is sought is found by comparing."""
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    return in_few_steps(pipe)


def in_few_steps(pipe):
    defaults = pipe._settings.call_defaults
    assert defaults["num_inference_steps"] == 20
    pipe._settings = replace(pipe._settings, call_defaults={**defaults, "num_inference_steps": 5})
    return pipe


@pytest.fixture
def _few_steps(embedded, monkeypatch):
    """Whoever loads the embedded model gets a view of the same, in few steps."""

    def view(cls, name, **settings):
        assert name == "embedded"
        return cls.from_pipe(embedded, **settings)

    monkeypatch.setattr(CogGuidedPipeline, "from_pretrained", classmethod(view))


@pytest.fixture
def _few_steps_of_its_own(monkeypatch):
    """The same for what changes the model."""
    load = CogGuidedPipeline.from_pretrained.__func__
    few = classmethod(lambda cls, *args, **settings: in_few_steps(load(cls, *args, **settings)))
    monkeypatch.setattr(CogGuidedPipeline, "from_pretrained", few)


def run(name, *arguments, monkeypatch):
    path = ROOT / "examples" / name
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


def test_all_are_here():
    tested = {
        "align_embedded.py",
        "custom_scorer.py",
        "finetune_embedded.py",
        "paper_in_miniature.py",
        "guided_generation.py",
        "own_search.py",
        "plain_diffusers_loop.py",
        "score_folder.py",
        "sdxl_pickscore.py",
        *SEARCHES,
    }
    assert {path.name for path in EXAMPLES} == tested


@pytest.mark.usefixtures("_few_steps")
def test_guided_generation(tmp_path, monkeypatch, capsys):
    run("guided_generation.py", tmp_path, monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert "happy 'a face'" in text
    values = {}
    for line in text.splitlines():
        if "valence" in line:
            name, prompt = line.split(":")[0].split(" ", 1)
            values[prompt, name] = float(line.split("valence ")[1].split()[0])
    for prompt in ("'a face'", "'a cat'"):
        assert values[prompt, "happy"] > values[prompt, "sad"]
    assert (tmp_path / "sad" / "contact_sheet.png").exists()


LONG = pytest.param("fk_steering.py", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [LONG, *(name for name in SEARCHES if name != "fk_steering.py")])
def test_searches_find_more_than_a_single_sample(name, request, tmp_path, monkeypatch, capsys):
    if name != "fk_steering.py":  # which may do worse in fewer
        request.getfixturevalue("_few_steps")
    if SEARCHES[name]:
        (search,) = re.findall(r"guidance=(\w+)\(", (ROOT / "examples" / name).read_text())
        made = getattr(cogguided, search)
        monkeypatch.setattr(cogguided, search, lambda *args, **how: replace(made(*args, **how), **SEARCHES[name]))
    run(name, tmp_path, monkeypatch=monkeypatch)
    plain, found = (float(v) for v in re.findall(r": ([+-]\d+\.\d+), [\d.]+ s", capsys.readouterr().out))
    assert found >= plain
    assert (tmp_path / "contact_sheet.png").exists()


def test_own_search_stops_when_all_are_good():
    found = runpy.run_path(str(ROOT / "examples" / "own_search.py"), run_name="imported")["UntilGood"]
    light = FakeScorer()
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target=light)
    pipe.set_progress_bar_config(disable=True)
    every = pipe(["a cat", "a dog"], guidance=found(8, threshold=2.0, batch_size=2), seed=3, **CALL["sd15"])
    assert [c.seed for c in every.candidates if c.request == 0] == list(range(3, 11))
    assert "no image of 2 prompts reached 2.0" in every.notes
    best = [max(c.score for c in every.candidates if c.request == k) for k in (0, 1)]
    first = [next(c.seed for c in every.candidates if c.request == k and c.score == best[k]) for k in (0, 1)]
    out = pipe(["a cat", "a dog"], guidance=found(8, threshold=min(best), batch_size=2), seed=3, **CALL["sd15"])
    drawn = max(c.seed for c in out.candidates) - 3
    assert min(c.score for c in out.chosen) >= min(best)
    assert drawn <= max(first) - 3 + 1
    assert not any("reached" in note for note in out.notes)


@pytest.mark.slow
def test_own_search(tmp_path, monkeypatch, capsys):
    run("own_search.py", tmp_path, monkeypatch=monkeypatch)
    assert re.search(r"a face: 0\.[789]", capsys.readouterr().out)
    assert (tmp_path / "contact_sheet.png").exists()


def test_plain_diffusers_loop(tmp_path, monkeypatch, capsys):
    run("plain_diffusers_loop.py", tmp_path, monkeypatch=monkeypatch)
    assert capsys.readouterr().out.count("seed ") == 8
    assert (tmp_path / "best.png").exists()


@pytest.mark.usefixtures("_few_steps")
def test_custom_scorer(tmp_path, monkeypatch, capsys):
    from cogguided.scorers import unregister_scorer

    try:
        run("custom_scorer.py", tmp_path, monkeypatch=monkeypatch)
    finally:
        unregister_scorer("warmth")
    assert "warmth" in capsys.readouterr().out


@pytest.mark.usefixtures("_few_steps")
def test_score_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("score_folder.py", monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert text.count(".png") == 6
    for dimension in ("aesthetics", "funniness", "emotional_valence", "memorability"):
        assert dimension in text


def test_sdxl_pickscore(tmp_path, monkeypatch, capsys):
    import json
    import shutil

    import open_clip
    import tiny_judges
    from tiny_diffusion import tiny_pipeline

    for part in ("pick", "hps"):
        (tmp_path / part).mkdir()
    tiny_pipeline("sdxl").save_pretrained(tmp_path / "sdxl")
    model, processor = tiny_judges.pickscore(tmp_path / "pick")
    shutil.copytree(processor, model, dirs_exist_ok=True)
    hps = tiny_judges.hpsv2(tmp_path / "hps")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-H-14", json.loads(json.dumps(tiny_judges.HPS_CONFIG)))
    monkeypatch.chdir(tmp_path)
    run("sdxl_pickscore.py", tmp_path / "sdxl", model, hps, 2, monkeypatch=monkeypatch)
    found = re.search(r"PickScore chose (\d) of 8; HPS v2: (-?0\.\d+), mean -?0\.\d+", capsys.readouterr().out)
    assert found
    assert 1 <= int(found[1]) <= 8
    assert (tmp_path / "out.png").exists()


def write_ratings(folder):
    """Two halves of ratings of plain colours."""
    from PIL import Image

    for half, shade in (("first", 0), ("second", 90)):
        lines = ["image,dimension,score"]
        for i in range(8):
            Image.new("RGB", (64, 64), (30 * i, shade, 120)).save(folder / f"{half}{i}_noto.png")
            lines.append(f"{half}{i}_noto.png,emotional_valence,{i / 4 - 1}")
        (folder / f"{half}.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["small", "as it stands"])
def test_finetune_embedded(small, request, tmp_path, monkeypatch, capsys):
    if small:
        request.getfixturevalue("_few_steps_of_its_own")
        few = {"prompts_per_round": 2, "images_per_prompt": 2, "images_per_evaluation": 1, "num_inference_steps": 5}
        few |= {"updates": 1, "timesteps": 1}
        whole = cogguided.finetune
        two = lambda pipe, *, evaluation, **how: whole(pipe, evaluation=evaluation[:2], **how)  # noqa: E731
        monkeypatch.setattr(cogguided, "finetune", two)
        monkeypatch.setattr(finetuning, "recipe", lambda **kwargs: replace(finetuning_recipe(**kwargs), **few))
    run("finetune_embedded.py", "--rounds", 1, "--out", tmp_path, monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert re.search(r"held-out judge +0\.\d+ -> 0\.\d+", text)
    for name in ("pytorch_lora_weights.safetensors", "report.html", "before_after.png"):
        assert (tmp_path / name).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("_few_steps_of_its_own")
def test_paper_in_miniature(tmp_path, monkeypatch, capsys):
    write_ratings(tmp_path)
    small = ("--steps", 2, "--n", 2, "--items", 2, "--prompts", 1, "--strengths", 0, 1)
    run("paper_in_miniature.py", "--ratings", tmp_path, "--out", tmp_path / "out", *small, monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert re.search(r"base +spearman", text)
    assert "gentle   strength 0     moved 0.00" in text
    assert "shipped  aligned, best of 2" in text
    assert (tmp_path / "out/strengths.png").exists()
    assert (tmp_path / "out/study_gentle/vote.html").exists()


def test_align_embedded(tmp_path, monkeypatch, capsys):
    write_ratings(tmp_path)
    arguments = ("--ratings", tmp_path, "--steps", 3, "--readouts", "greedy")
    run("align_embedded.py", tmp_path / "aligned", *arguments, monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert "greedy: mae" in text
    assert "on 8 images" in text
    assert (tmp_path / "aligned" / "adapter_model.safetensors").exists()
