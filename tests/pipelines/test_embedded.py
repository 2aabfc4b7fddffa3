"""The embedded model: what ships, what it draws, and that its scorers feel what people rated."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import QwenImagePipeline
from PIL import Image
from safetensors.torch import load
from transformers import Qwen2_5_VLForConditionalGeneration

from cogguided import BestOfN, CogGuidedPipeline, list_scorers, load_scorer
from cogguided._errors import ModelError
from cogguided.pipelines.embedded import embedded_path
from cogguided.pipelines.embedded.packed import PACKED, PackedVAE, unpack

PROMPTS = Path(__file__).parents[2] / "examples" / "embedded" / "prompts.txt"
PROXIES = ("aesthetics", "funniness", "memorability")
STEPS = 8
"""Enough to tell what is drawn; as it comes there are 20."""


@pytest.fixture(scope="module")
def pipe():
    made = CogGuidedPipeline.from_pretrained("embedded")
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def valence():
    return load_scorer("emotional_valence")

@pytest.fixture(scope="module")
def faces(pipe):
    """32 candidates of one prompt, with the scores of their valence."""
    guidance = BestOfN(32, batch_size=16)
    out = pipe("a face", target="emotional_valence", guidance=guidance, seed=0, num_inference_steps=STEPS)
    return sorted(out.candidates, key=lambda c: c.seed)


def draw(pipe, prompts, seed, **arguments):
    arguments = {"num_inference_steps": STEPS, **arguments}
    out = pipe(list(prompts), guidance=BestOfN(1, batch_size=10), seed=seed, **arguments)
    return [c.image for c in out.candidates]


def test_weights_are_safetensors_of_at_most_53_mb_in_half_precision_or_less():
    files = [path for path in embedded_path().rglob("*") if path.is_file()]
    weights = [path for path in files if ".safetensors" in path.name]
    assert len(weights) == 7
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".ckpt", ".pth"}]
    assert sum(path.stat().st_size for path in files) <= 53e6
    for path in weights:
        data = unpack(path.parent) if path.name == PACKED else path.read_bytes()
        kinds = {tensor.dtype for tensor in load(bytes(data)).values() if tensor.numel() > 1000}
        assert kinds <= {torch.float16, torch.int16, torch.int8, torch.uint8}, path


def test_it_draws_what_it_drew_before_its_weights_were_packed(pipe):
    """To the bit on one machine; on others sums are rounded in other orders."""
    with Image.open(Path(__file__).with_name("drawn.png")) as picture:
        stored = np.asarray(picture.convert("RGB"), dtype=int)
    drawn = np.hstack([np.asarray(image) for image in draw(pipe, ["a face", "red heart"], 0, num_inference_steps=20)])
    apart = np.abs(drawn - stored)
    assert apart.mean() <= 0.5
    assert apart.max() <= 16


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_file_is_named(tmp_path, damage):
    for name in ("config.json", PACKED):
        (tmp_path / name).write_bytes((embedded_path() / "vae" / name).read_bytes())
    data = bytearray((tmp_path / PACKED).read_bytes())
    if damage == "missing":
        (tmp_path / PACKED).unlink()
    elif damage == "cut":
        (tmp_path / PACKED).write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        (tmp_path / PACKED).write_bytes(data)
    with pytest.raises(ModelError, match=r"safetensors\.shuffle\.gz: missing or damaged"):
        PackedVAE.from_pretrained(tmp_path)


@pytest.mark.slow
def test_what_it_saves_opens_without_this_package(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert {value[0] for value in index.values() if isinstance(value, list)} == {"diffusers", "transformers"}
    code = f"""
import gc, sys
gc.disable()  # imports take less time so
import torch
from diffusers import DiffusionPipeline
plain = DiffusionPipeline.from_pretrained({str(tmp_path)!r}, dtype=torch.float32)
image = plain("a face", negative_prompt=" ", true_cfg_scale=3.0, height=64, width=64, num_inference_steps=2,
    generator=torch.Generator("cpu").manual_seed(0), output_type="pil").images[0]
image.save({str(tmp_path / "plain.png")!r})
assert not [name for name in sys.modules if name.startswith("cogguided.")]
try:
    DiffusionPipeline.from_pretrained({str(embedded_path())!r})
except ValueError as error:
    assert "import cogguided.pipelines.embedded.packed before" in str(error), error
else:
    raise AssertionError("the packed folder opened by itself: say so in its README")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    ours = pipe("a face", seed=0, num_inference_steps=2).images[0]
    with Image.open(tmp_path / "plain.png") as plain:
        assert np.abs(np.asarray(ours, dtype=int) - np.asarray(plain, dtype=int)).max() <= 1


def test_plain_diffusers_opens_it():
    plain = QwenImagePipeline.from_pretrained(embedded_path(), dtype=torch.float32)
    plain.set_progress_bar_config(disable=True)
    assert isinstance(plain.text_encoder, Qwen2_5_VLForConditionalGeneration)
    defaults = json.loads((embedded_path() / "cogguided.json").read_text())["call_defaults"]
    generator = torch.Generator("cpu").manual_seed(3)
    image = plain("red heart", generator=generator, **defaults).images[0]
    red, green, blue = np.asarray(image, dtype=float)[24:40, 24:40].mean((0, 1))
    assert red > 170
    assert max(green, blue) < 0.6 * red


def test_the_template_prefix_is_what_the_pipeline_cuts_off(pipe):
    prefix = pipe.prompt_template_encode.split("{}")[0]
    assert len(pipe.tokenizer(prefix).input_ids) == pipe.prompt_template_encode_start_idx
    assert [len(pipe.tokenizer(d).input_ids) for d in "0123456789"] == [1] * 10


def test_clip_finds_the_right_prompt_among_thirty(pipe):
    prompts = PROMPTS.read_text().strip().split("\n")
    clip = load_scorer("clip")
    likeness = clip.encode_images(draw(pipe, prompts, 7)) @ clip.encode_texts(prompts).T
    found = (likeness.argmax(1) == torch.arange(len(prompts))).float().mean()
    assert found >= 0.7  # by chance 0.03


def test_an_open_prompt_stays_open(faces):
    assert all(c.valid for c in faces)
    assert np.std([c.scores["emotional_valence"] for c in faces], ddof=1) >= 0.5
    clip = load_scorer("clip")
    names = ["crying face", "angry face", "smiling face with heart-eyes", "sleeping face", "kissing face",
             "face with tongue", "smiling face with sunglasses", "hot face", "cold face", "thinking face",
             "astonished face", "grinning face", "nauseated face", "worried face"]  # fmt: skip
    named = (clip.encode_images([c.image for c in faces]) @ clip.encode_texts(names).T).argmax(1)
    assert len(set(named.tolist())) >= 6


def test_valence_agrees_with_what_anyone_would_say(pipe, valence):
    glad = draw(pipe, ["smiling face with heart-eyes", "red heart", "birthday cake", "face blowing a kiss"], 11)
    sad = draw(pipe, ["enraged face", "angry face", "loudly crying face", "broken heart"], 11)
    both = valence([*glad, *sad]).values
    assert both[:4].mean() - both[4:].mean() > 0.5


def test_all_dimensions_at_once_equal_four_single_calls(pipe, valence):
    images = draw(pipe, ["a face", "a heart", "pizza"], 5)
    for name, scores in valence.score_all(images).items():
        single = valence.with_dimension(name)
        gap = (scores.values - single(images).values).abs().max()
        assert gap <= 1e-4 * (single.high - single.low)


def test_facts_tell_human_ratings_from_proxies():
    infos = {info.name: info for info in list_scorers()}
    assert infos["emotional_valence"].grounding == "human"
    assert {infos[name].grounding for name in PROXIES} == {"proxy"}


def test_scorer_and_text_encoder_are_of_one_base():
    config = json.loads((embedded_path() / "aligned" / "adapter_config.json").read_text())
    assert (embedded_path() / "aligned" / config["base_model_name_or_path"]).resolve() == (
        embedded_path() / "text_encoder"
    ).resolve()


def test_best_of_n_moves_the_judge_of_the_other_half(faces):
    """In four times eight candidates, the one that would be chosen against the one that would come last."""
    judge = load_scorer(embedded_path() / "judge", dimension="emotional_valence")
    pairs = []
    for first in range(0, 32, 8):
        eight = sorted(faces[first : first + 8], key=lambda c: c.scores["emotional_valence"])
        pairs += [eight[-1].image, eight[0].image]
    judged = judge(pairs).values
    assert (judged[::2] - judged[1::2]).mean() > 0.2


def test_a_judge_of_emoji_says_so_when_it_judges_something_else(pipe):
    other = CogGuidedPipeline.from_pipe(QwenImagePipeline(**pipe.components))
    arguments = {"height": 64, "width": 64, "num_inference_steps": 1}
    notes = other("a cat", target="clip", seed=0, **arguments).notes
    assert any("emoji artwork only" in note for note in notes)
    assert not pipe("a cat", target="clip", seed=0, **arguments).notes
