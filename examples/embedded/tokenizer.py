"""A byte-level BPE of 4,096 tokens in Qwen's own form: same pre-tokeniser, same special tokens, one token a
digit.
"""

from __future__ import annotations

import random

from captions import caption, described
from data import STYLES, Concept
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The sentence that QwenImagePipeline wraps every prompt in; it cuts the first 34 tokens off again.
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
PREFIX_TOKENS = 34
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(chosen: list[Concept], size: int = 4096) -> Qwen2Tokenizer:
    """Train on every name, keyword and caption, and on the template, whose words must each be one token."""
    rng = random.Random(0)
    corpus = [TEMPLATE.replace("{}", " ")] * 400
    for concept in chosen:
        corpus += [f" {concept.name}"] * 3 + [f" {word}" for word in concept.keywords]
        for style in range(len(STYLES)):
            corpus += [caption(rng, concept, style), described(concept, style)]
        corpus += [caption(rng, concept, 0).capitalize() for _ in range(3)]
    corpus += [f"{label} {value}" for label in LABEL_WORDS for value in ("", " ")] * 40
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL), special_tokens=[], initial_alphabet=alphabet, show_progress=False
    )
    for text in SPECIAL:
        corpus = [line.replace(text, "\n") for line in corpus]
    core.train_from_iterator(corpus, trainer)
    core.add_special_tokens(SPECIAL)
    tokenizer = Qwen2Tokenizer(
        tokenizer_object=core,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[t for t in SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT
    prefix = len(tokenizer(TEMPLATE.split("{}")[0]).input_ids)
    if prefix != PREFIX_TOKENS:
        raise RuntimeError(f"the template's prefix has {prefix} tokens; QwenImagePipeline cuts {PREFIX_TOKENS}")
    return tokenizer


LABEL_WORDS = (
    "very low",
    "low",
    "medium",
    "high",
    "very high",
    "negative",
    "neutral",
    "positive",
    "what",
    "feel",
)
