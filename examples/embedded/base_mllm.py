"""Train the base Qwen2.5-VL: it says *what* is in a picture, and expands a short prompt into a fuller one.

First the language model alone, on text: it expands prompts, and it names things from words put where a
picture's tokens will be. It is then frozen, so that the generator can be trained on its features at once,
and the vision tower learns to give it pictures in the place of those words (as in "Multimodal Few-Shot
Learning with Frozen Language Models", Tsimpoukelli et al., 2021).
"""

from __future__ import annotations

import argparse
import random

import torch
from captions import caption, described
from common import CACHE, WEIGHTS, train
from data import STYLES, Concept, concepts, fetch, pictures, rated, world
from tokenizer import TEMPLATE, train_tokenizer
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

SIZE, PATCH, MERGE = 64, 8, 2
IMAGE_TOKENS = (SIZE // PATCH // MERGE) ** 2
QUESTIONS = {"name": "what?", "words": "words?"}
IGNORE = -100


def known(everything: list[Concept]) -> list[Concept]:
    """What the MLLM sees: the generator's world and everything that people rated."""
    drawn = {c.char for c in world(everything)} | {c.char for c in rated(everything)}
    return [c for c in everything if c.char in drawn]


def build(tokenizer: object) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL of 6.6 million parameters: 4 layers of 256, a tower of 4 layers of 192."""
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>")}
    vision = {
        "depth": 4, "hidden_size": 192, "intermediate_size": 512, "num_heads": 6, "patch_size": PATCH,
        "spatial_merge_size": MERGE, "temporal_patch_size": 2, "window_size": SIZE, "out_hidden_size": 256,
        "fullatt_block_indexes": [0, 1, 2, 3], "in_channels": 3,
    }  # fmt: skip
    text = {
        "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
        "tie_word_embeddings": True, "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        tie_word_embeddings=True,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    for name, weight in model.named_parameters():
        # The default of 0.02 is made for wide models: at 256 it keeps the attention from starting.
        if weight.ndim >= 2 and "embed_tokens" not in name:
            torch.nn.init.normal_(weight, std=0.7 * weight[0].numel() ** -0.5)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    model.generation_config.bos_token_id = ids["<|endoftext|>"]
    return model


def build_processor(tokenizer: object) -> Qwen2_5_VLProcessor:
    """Every picture becomes 64 by 64, 16 tokens."""
    sizes = {"min_pixels": SIZE * SIZE, "max_pixels": SIZE * SIZE}
    image = Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2, **sizes)
    video = Qwen2VLVideoProcessor(patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2)
    return Qwen2_5_VLProcessor(image, tokenizer, video, chat_template=tokenizer.chat_template)


def patches(images: Tensor) -> Tensor:
    """What the image processor makes of pictures (N, 3, 64, 64) in [0, 1]: (N, 64, 384), merged 2 x 2 side
    by side.
    """
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    side = SIZE // PATCH // MERGE
    cut = ((images - mean) / std).view(len(images), 3, side, MERGE, PATCH, side, MERGE, PATCH)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    return cut.expand(-1, -1, -1, -1, -1, -1, 2, -1, -1).reshape(len(images), -1, 3 * 2 * PATCH * PATCH)


class Chats:
    """Turns questions and answers about pictures into batches; the loss is on the answers."""

    def __init__(self, tokenizer: object) -> None:
        self.tokenizer = tokenizer
        self.image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def visual(self, question: str, answer: str) -> tuple[str, str]:
        pads = "<|image_pad|>" * IMAGE_TOKENS
        turn = f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
        return turn, f"{answer}<|im_end|>"

    def batch(self, turns: list[tuple[str, str]], images: Tensor | None = None) -> dict[str, Tensor]:
        """`turns` are (question, answer) texts; `images` (N, 3, 64, 64) in [0, 1], one for each turn, or
        none.
        """
        asked = self.tokenizer([turn[0] for turn in turns]).input_ids
        answered = self.tokenizer([turn[1] for turn in turns]).input_ids
        length = max(len(a) + len(b) for a, b in zip(asked, answered, strict=True))
        ids = torch.full((len(turns), length), self.tokenizer.pad_token_id)
        labels, mask = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
        for i, (a, b) in enumerate(zip(asked, answered, strict=True)):
            ids[i, : len(a) + len(b)] = torch.tensor(a + b)
            labels[i, len(a) : len(a) + len(b)] = torch.tensor(b)
            mask[i, : len(a) + len(b)] = 1
        found = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        if images is not None:
            found["pixel_values"] = patches(images).flatten(0, 1)
            found["image_grid_thw"] = torch.tensor([[1, SIZE // PATCH, SIZE // PATCH]]).repeat(len(images), 1)
            found["mm_token_type_ids"] = (ids == self.image).long()
        return found


def answer_loss(model: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of the answers; only supervised positions go through the vocabulary head."""
    labels = batch["labels"][:, 1:]
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    chosen = labels != IGNORE
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]).float(), labels[chosen])


def placed(model: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Tensor], shown: Tensor) -> dict[str, Tensor]:
    """The batch with `shown` (N, 16, 256) where the picture's tokens go, at a picture's positions."""
    ids = batch["input_ids"]
    types = (ids == model.config.image_token_id).long()
    grid = torch.tensor([[1, SIZE // PATCH, SIZE // PATCH]]).repeat(len(ids), 1)
    positions, _ = model.model.get_rope_index(
        ids, mm_token_type_ids=types, image_grid_thw=grid, attention_mask=batch["attention_mask"]
    )
    embedded = model.get_input_embeddings()(ids).masked_scatter((types == 1)[..., None], shown)
    kept = {name: batch[name] for name in ("attention_mask", "labels")}
    return {"inputs_embeds": embedded, "position_ids": positions, **kept}


class Lessons:
    """Draws what is asked and answered about a concept."""

    def __init__(self, chosen: list[Concept], tokenizer: object) -> None:
        self.chosen, self.chats, self.rng = chosen, Chats(tokenizer), random.Random(0)

    def shown(self, about: Concept) -> tuple[str, str]:
        words = ", ".join(self.rng.sample(about.keywords, min(4, len(about.keywords))))
        kind = "words" if words and self.rng.random() < 0.25 else "name"
        return self.chats.visual(QUESTIONS[kind], words if kind == "words" else about.name)

    def written(self, about: Concept) -> tuple[str, str]:
        style = self.rng.randrange(len(STYLES))
        return TEMPLATE.replace("{}", caption(self.rng, about, style)), described(about, style) + "<|im_end|>"

    def words(self, about: Concept) -> list[int]:
        """Sixteen tokens out of the name and the keywords, in any order: what a picture of it might hold."""
        text = " " + " ".join(self.rng.choices((about.name, *about.keywords), k=10))
        ids = self.chats.tokenizer(text).input_ids
        return self.rng.choices(ids, k=IMAGE_TOKENS)


def train_text(model: Qwen2_5_VLForConditionalGeneration, lessons: Lessons, minutes: float, size: int) -> None:
    def loss(step: int) -> Tensor:
        told = [lessons.rng.choice(lessons.chosen) for _ in range(size)]
        batch = lessons.chats.batch([lessons.shown(about) for about in told])
        words = model.get_input_embeddings()(torch.tensor([lessons.words(about) for about in told]))
        named = answer_loss(model, placed(model, batch, words))
        asked = [lessons.rng.choice(lessons.chosen) for _ in range(size)]
        expanded = answer_loss(model, lessons.chats.batch([lessons.written(about) for about in asked]))
        if step % 50 == 0:
            print(f"step {step}: naming {named.item():.3f}  expanding {expanded.item():.3f}", flush=True)
        return named + expanded

    model.model.visual.requires_grad_(False)
    train("base_text", model, loss, minutes, lr=1e-3, every=50, decay=0.6, average=0.99)


def word_shares(chosen: list[Concept], tokenizer: object) -> Tensor:
    """What each concept is said to be, as shares of the vocabulary (concepts, 4096): name half, keywords
    half.
    """
    shares = torch.zeros(len(chosen), len(tokenizer))
    for row, about in zip(shares, chosen, strict=True):
        for texts in ((about.name,), about.keywords or (about.name,)):
            ids = [token for text in texts for token in tokenizer(" " + text).input_ids]
            row.index_add_(0, torch.tensor(ids), torch.full((len(ids),), 0.5 / len(ids)))
    return shares


def train_vision(model: Qwen2_5_VLForConditionalGeneration, lessons: Lessons, minutes: float, size: int) -> None:
    """Through the frozen language model, and straight: a picture's tokens should lie near the words for it."""
    data = pictures(CACHE, lessons.chosen, SIZE)
    images = (torch.from_numpy(data["pixels"]).float() / 255).permute(0, 3, 1, 2)
    shares = word_shares(lessons.chosen, lessons.chats.tokenizer)
    grid = torch.tensor([[1, SIZE // PATCH, SIZE // PATCH]])

    def loss(step: int) -> Tensor:
        rows = [lessons.rng.randrange(len(images)) for _ in range(size)]
        about = [int(data["concept"][row]) for row in rows]
        seen = model.model.visual(patches(images[rows]).flatten(0, 1), grid_thw=grid.repeat(size, 1)).pooler_output
        seen = seen.view(size, IMAGE_TOKENS, -1)
        near = model.lm_head(model.model.language_model.norm(seen.mean(1)))
        straight = torch.nn.functional.cross_entropy(near, shares[about])
        asked = slice(0, size // 2)
        batch = lessons.chats.batch([lessons.shown(lessons.chosen[a]) for a in about[asked]])
        named = answer_loss(model, placed(model, batch, seen[asked]))
        if step % 50 == 0:
            print(f"step {step}: naming {named.item():.3f}  words {straight.item():.3f}", flush=True)
        return named + straight

    model.requires_grad_(False)
    model.model.visual.requires_grad_(True)
    train("base_vision", model, loss, minutes, lr=1e-3, every=50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=("text", "vision"), required=True)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    fetch(CACHE)
    chosen = known(concepts(CACHE))
    if args.stage == "text":
        tokenizer = train_tokenizer(chosen)
        model = build(tokenizer)
        train_text(model, Lessons(chosen, tokenizer), args.minutes, args.batch)
        build_processor(tokenizer).save_pretrained(WEIGHTS / "tokenizer")
    else:
        tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(WEIGHTS / "text_encoder", dtype=torch.float32)
        train_vision(model, Lessons(chosen, tokenizer), args.minutes, args.batch)
    model.half().save_pretrained(WEIGHTS / "text_encoder")


if __name__ == "__main__":
    main()
