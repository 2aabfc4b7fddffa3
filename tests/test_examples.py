"""The examples run as they stand, offline, with the embedded model."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

SEARCHES = (
    "drafts.py",
    "fk_steering.py",
    "halving.py",
    "joint_search.py",
    "noise_search.py",
    "reward_gradient.py",
    "rewrite_prompt.py",
)


@pytest.fixture(autouse=True)
def _quiet():
    from diffusers.utils import logging

    logging.disable_progress_bar()


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


@pytest.mark.parametrize("name", SEARCHES)
def test_searches_find_more_than_a_single_sample(name, tmp_path, monkeypatch, capsys):
    run(name, tmp_path, monkeypatch=monkeypatch)
    plain, found = (float(v) for v in re.findall(r": ([+-]\d+\.\d+), [\d.]+ s", capsys.readouterr().out))
    assert found >= plain
    assert (tmp_path / "contact_sheet.png").exists()


def test_own_search(tmp_path, monkeypatch, capsys):
    run("own_search.py", tmp_path, monkeypatch=monkeypatch)
    assert re.search(r"a face: 0\.[789]", capsys.readouterr().out)
    assert (tmp_path / "contact_sheet.png").exists()


def test_plain_diffusers_loop(tmp_path, monkeypatch, capsys):
    run("plain_diffusers_loop.py", tmp_path, monkeypatch=monkeypatch)
    assert capsys.readouterr().out.count("seed ") == 8
    assert (tmp_path / "best.png").exists()


def test_custom_scorer(tmp_path, monkeypatch, capsys):
    from cogguided.scorers import unregister_scorer

    try:
        run("custom_scorer.py", tmp_path, monkeypatch=monkeypatch)
    finally:
        unregister_scorer("warmth")
    assert "warmth" in capsys.readouterr().out


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


def test_finetune_embedded(tmp_path, monkeypatch, capsys):
    run("finetune_embedded.py", "--rounds", 1, "--out", tmp_path, monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert re.search(r"held-out judge +0\.\d+ -> 0\.\d+", text)
    for name in ("pytorch_lora_weights.safetensors", "report.html", "before_after.png"):
        assert (tmp_path / name).exists()


def test_paper_in_miniature(tmp_path, monkeypatch, capsys):
    write_ratings(tmp_path)
    small = ("--steps", 2, "--n", 2, "--prompts", 1, "--strengths", 0, 1)
    run("paper_in_miniature.py", "--ratings", tmp_path, "--out", tmp_path / "out", *small, monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert re.search(r"base +spearman", text)
    assert "gentle   strength 0     moved 0.00" in text
    assert "shipped  aligned, best of 2" in text
    assert (tmp_path / "out/strengths.png").exists()
    assert (tmp_path / "out/study_gentle/vote.html").exists()


def test_align_embedded(tmp_path, monkeypatch, capsys):
    write_ratings(tmp_path)
    arguments = ("--ratings", tmp_path, "--steps", 6, "--readouts", "greedy")
    run("align_embedded.py", tmp_path / "aligned", *arguments, monkeypatch=monkeypatch)
    text = capsys.readouterr().out
    assert "greedy: mae" in text
    assert "on 8 images" in text
    assert (tmp_path / "aligned" / "adapter_model.safetensors").exists()
