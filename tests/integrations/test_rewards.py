"""A target as a reward: layouts, what has no score, gradients, and two steps of TRL's own trainer."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_parts import VOCAB, byte_tokenizer

from cogguided import FakeScorer
from cogguided._errors import InputError, ModelError
from cogguided.integrations import as_reward, as_trl_reward

LIGHT = {FakeScorer("light", high=2.0): -1.0}


class Loud(FakeScorer):
    """How far the length of a text is from that of the image's brightness in tens."""

    def __call__(self, images, prompts=None):
        from cogguided import Scores

        super().__call__(images, prompts)
        return Scores(torch.tensor([min(len(prompt) / 100, 1.0) for prompt in prompts]))


def test_every_layout_is_the_same_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    last = torch.tensor(pixels)
    first = last.permute(0, 3, 1, 2)
    reward = as_reward(LIGHT)
    expected = reward([Image.fromarray(image) for image in pixels])
    assert expected.dtype == torch.float32
    assert expected.unique().numel() == 2
    for images in (pixels, last, first, last / 255, first / 255, list(last), list(pixels), list(first / 255)):
        torch.testing.assert_close(reward(images), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 4, 4), r"got \(3, 4, 4\)"),
        (torch.zeros(1, 4, 4, 4), r"got \(1, 4, 4, 4\)"),
        (torch.zeros(1, 3, 4, 3), "two axes of 3"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "torch.int64"),
        (torch.full((1, 3, 4, 4), 255.0), "0, 1"),
        ([torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)], "several sizes"),
    ],
)
def test_what_is_no_batch_is_refused(images, message):
    with pytest.raises(InputError, match=message):
        as_reward(LIGHT)(images)


def test_what_has_no_score_follows_the_policy():
    images = [Image.new("RGB", (2, 2), "white"), "no-such.png"]
    assert as_reward(LIGHT)(images).isnan().tolist() == [False, True]
    assert as_reward(LIGHT, invalid="worst")(images).tolist() == [-0.5, -1.0]
    with pytest.raises(ModelError, match=r"no score of image 1: light: no-such\.png: no such file"):
        as_reward(LIGHT, invalid="raise")(images)
    with pytest.raises(InputError, match="'worst'"):
        as_reward(LIGHT, invalid="zero")


def test_a_gradient_reaches_the_pixels_in_either_layout():
    images = torch.rand(2, 4, 5, 3, requires_grad=True)
    as_reward(LIGHT)(images).sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, -0.5 / 60))


def test_a_reward_for_texts_alone_is_refused_where_it_cannot_tell_them_apart():
    with pytest.raises(InputError, match="pass draw="):
        as_trl_reward(FakeScorer("light"))
    with pytest.raises(InputError, match=r"no column 'image' in the data set \(it has: picture\)"):
        as_trl_reward(Loud("loud", needs_prompt=True))(["a"], ["b"], picture=[None])
    with pytest.raises(InputError, match="expected one image a text"):
        as_trl_reward(FakeScorer("light"), draw=lambda texts: torch.ones(3, 3, 4, 4))(["a"], ["b"])


def test_what_has_no_score_is_left_out_of_trl_and_counted():
    told = {}
    reward = as_trl_reward(FakeScorer("light"), draw=lambda texts: [Image.new("RGB", (2, 2)), "no-such.png"])
    assert reward(["a", "a"], ["b", "c"], log_metric=told.__setitem__) == [0.0, None]
    assert told == {"light/invalid": 0.5}


def draw(texts):
    """A generator that draws the lighter the more different letters a text has."""
    return torch.stack([torch.full((3, 4, 5), min(1.0, len(set(text)) / 10)) for text in texts])


@pytest.mark.parametrize("way", ["draw", "column"])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # TRL 1.16 asks for it
def test_two_steps_of_trl_s_grpo_trainer(way, tmp_path):
    from datasets import Dataset
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = Qwen3Config(vocab_size=VOCAB, num_attention_heads=2, num_key_value_heads=2, **size, **tokens)
    model = Qwen3ForCausalLM(config)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = {"prompt": ["a face", "a cat"], "picture": [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]}
    if way == "draw":
        reward = as_trl_reward(FakeScorer("light"), draw=draw)
    else:
        reward = as_trl_reward(Loud("loud", needs_prompt=True), column="picture")
    arguments = GRPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, num_generations=2, logging_steps=1,
        max_completion_length=8, learning_rate=1e-2, use_cpu=True, report_to=[], save_strategy="no",
        bf16=False, activation_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model, reward, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=byte_tokenizer()
    )
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(history) == 2
    for entry in history:
        assert 0 < entry[f"rewards/{reward.__name__}/mean"] == pytest.approx(entry["reward"])
        assert entry[f"{reward.__name__}/invalid"] == 0
    assert any(entry["reward_std"] > 0 for entry in history)
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert sorted(moved) == sorted(before)
