"""The embedded model: what ships, what it draws, and that its scorers feel what people rated."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import QwenImagePipeline
from safetensors import safe_open
from transformers import Qwen2_5_VLForConditionalGeneration

from cogguided import BestOfN, CogGuidedPipeline, list_scorers, load_scorer
from cogguided.pipelines.embedded import embedded_path

PROMPTS = Path(__file__).parents[2] / "examples" / "embedded" / "prompts.txt"
PROXIES = ("aesthetics", "funniness", "memorability")


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
    out = pipe("a face", target="emotional_valence", guidance=BestOfN(32, batch_size=16), seed=0)
    return sorted(out.candidates, key=lambda c: c.seed)


def draw(pipe, prompts, seed, **arguments):
    return [
        c.image for c in pipe(list(prompts), guidance=BestOfN(1, batch_size=10), seed=seed, **arguments).candidates
    ]


def test_weights_are_half_precision_safetensors_of_at_most_70_mb():
    files = [path for path in embedded_path().rglob("*") if path.is_file()]
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".ckpt", ".pth"}]
    assert sum(path.stat().st_size for path in files) <= 70e6
    for path in weights:
        with safe_open(path, "pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        assert kinds == {"F16"}, path


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
