"""Tiny random image-text-to-text models, each with the processor class of its family, made offline.

Hidden size 32, one or two layers, a tokenizer of some hundred entries: `build(family, folder)` saves model
and processor as a hub checkout would lie on disk. Random weights are scaled up, so that distributions are
far from uniform and a mistake in masks, positions or caches shows in the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as tf
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

FAMILIES = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "gemma3",
    "mllama",
    "internvl",
    "llava_onevision",
    "smolvlm",
)

WORDS = ["very low", "low", "medium", "high", "negative", "neutral", "positive", "picture", "How beautiful"]
VOCAB = 512
GROUPED_VOCAB = 1664  # 1,110 tokens of digits alone
HIDDEN = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
TEXT = {**HIDDEN, "num_hidden_layers": 2, "num_key_value_heads": 2, "vocab_size": VOCAB, "head_dim": 8}
CHAT = (
    "{{% for message in messages %}}{start}{{{{ message['role'] }}}}{end_role}"
    "{{% for part in message['content'] %}}{{% if part['type'] == 'image' %}}{image}"
    "{{% else %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{end}\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}{start}assistant{end_role}{{% endif %}}"
)


def chat_template(image: str, start: str = "<|im_start|>", end_role: str = "\n", end: str = "<|im_end|>") -> str:
    """Jinja chat template with the given markers."""
    return CHAT.format(image=image, start=start, end_role=end_role, end=end)


def tokenizer(
    digits: str, special: list[str], eos: str, bos: str | None = None, named: dict[str, str] | None = None
) -> tf.PreTrainedTokenizerFast:
    """BPE on bytes, digits "single" (Qwen) or "grouped" by up to three (Llama), or "metaspace" (Gemma)."""
    corpus = [*WORDS, *(" " + word for word in WORDS)] * 50
    if digits == "metaspace":
        made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        made.normalizer = normalizers.Replace(" ", "\u2581")
        made.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d"), "isolated")
        made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = [chr(code) for code in range(33, 127)] + ["\u2581"]
        trainer = trainers.BpeTrainer(
            vocab_size=VOCAB - 8, special_tokens=["<unk>", *special, *bytes_], initial_alphabet=alphabet
        )
    else:
        pattern = r"\p{N}" if digits == "single" else r"\p{N}{1,3}"
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(rf" ?\p{{L}}+|{pattern}| ?[^\s\p{{L}}\p{{N}}]+|\s+"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        made.decoder = decoders.ByteLevel()
        size = VOCAB - 8
        if digits == "grouped":  # every group of two and three digits is a token, as in Llama 3
            groups = [f"{number:0{width}}" for width in (2, 3) for number in range(10**width)]
            corpus, size = [*corpus, *groups * 3], GROUPED_VOCAB - 8
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    made.train_from_iterator(corpus, trainer)
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=eos,
        pad_token=eos,
        bos_token=bos,
        padding_side="left",
        **(named or {}),
    )


def _ids(tok: tf.PreTrainedTokenizerFast, **tokens: str) -> dict[str, int]:
    return {name: tok.convert_tokens_to_ids(token) for name, token in tokens.items()}


QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
QWEN += ["<|image_pad|>", "<|video_pad|>"]


def _qwen(family: str) -> tuple[tf.PreTrainedModel, tf.ProcessorMixin]:
    tok = tokenizer("single", QWEN, "<|im_end|>")
    ids = _ids(
        tok,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    template = chat_template("<|vision_start|><|image_pad|><|vision_end|>")
    patch = 16 if family == "qwen3_vl" else 14
    side = 2 * patch
    images = tf.Qwen2VLImageProcessor(
        size={"shortest_edge": side**2, "longest_edge": (4 * side) ** 2}, patch_size=patch, merge_size=2
    )
    if family == "qwen2_vl":
        vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2}
        text = {**TEXT, "rope_parameters": rope}
        config = tf.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
        processor = tf.Qwen2VLProcessor(images, tok, tf.Qwen2VLVideoProcessor(), template)
        return tf.Qwen2VLForConditionalGeneration(config), processor
    if family == "qwen2_5_vl":
        vision = {**HIDDEN, "depth": 2, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 32}
        vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        config = tf.Qwen2_5_VLConfig(text_config={**TEXT, "rope_parameters": rope}, vision_config=vision, **ids)
        processor = tf.Qwen2_5_VLProcessor(images, tok, tf.Qwen2VLVideoProcessor(), template)
        return tf.Qwen2_5_VLForConditionalGeneration(config), processor
    vision = {**HIDDEN, "depth": 2, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64, "patch_size": 16}
    config = tf.Qwen3VLConfig(text_config={**TEXT, "rope_parameters": rope}, vision_config=vision, **ids)
    processor = tf.Qwen3VLProcessor(images, tok, tf.Qwen3VLVideoProcessor(), template)
    return tf.Qwen3VLForConditionalGeneration(config), processor


def _gemma3(sliding_window: int = 16) -> tuple[tf.PreTrainedModel, tf.ProcessorMixin]:
    special = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<start_of_image>",
        "<end_of_image>",
    ]
    special += ["<image_soft_token>"]
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    tok = tokenizer("metaspace", special, "<end_of_turn>", "<bos>", named)
    vision = {**HIDDEN, "num_hidden_layers": 1, "image_size": 28, "patch_size": 7}
    text = {**TEXT, "sliding_window": sliding_window, "layer_types": ["sliding_attention", "full_attention"]}
    config = tf.Gemma3Config(
        text_config={**text, "query_pre_attn_scalar": 8},
        vision_config=vision,
        mm_tokens_per_image=4,
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tok.convert_tokens_to_ids("<image_soft_token>"),
    )
    images = tf.Gemma3ImageProcessor(size={"height": 28, "width": 28})
    template = "{{ bos_token }}" + chat_template("<start_of_image>", "<start_of_turn>", "\n", "<end_of_turn>")
    return tf.Gemma3ForConditionalGeneration(config), tf.Gemma3Processor(images, tok, template, 4)


def _mllama() -> tuple[tf.PreTrainedModel, tf.ProcessorMixin]:
    special = ["<|end_of_text|>", "<|begin_of_text|>", "<|start|>", "<|end|>", "<|eot_id|>", "<|python_tag|>"]
    tok = tokenizer("grouped", [*special, "<|image|>"], "<|eot_id|>", "<|begin_of_text|>")
    image_id = tok.convert_tokens_to_ids("<|image|>")
    vision = {"hidden_size": 16, "intermediate_size": 32, "attention_heads": 2, "num_hidden_layers": 1}
    vision |= {"num_global_layers": 1, "image_size": 28, "patch_size": 14, "intermediate_layers_indices": [0]}
    vision |= {"vision_output_dim": 32, "max_num_tiles": 4}
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    text = {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1], "rope_parameters": rope}
    text["vocab_size"] = GROUPED_VOCAB
    text.pop("head_dim")
    config = tf.MllamaConfig(
        vision_config=vision,
        text_config={**text, "pad_token_id": tok.pad_token_id},
        image_token_index=image_id,
    )
    images = tf.MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4)
    template = "{{ bos_token }}" + chat_template("<|image|>", "<|start|>", "<|end|>\n\n", "<|eot_id|>")
    return tf.MllamaForConditionalGeneration(config), tf.MllamaProcessor(images, tok, template)


def _internvl() -> tuple[tf.PreTrainedModel, tf.ProcessorMixin]:
    special = [*QWEN[:3], "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
    named = {"start_image_token": "<img>", "end_image_token": "</img>"}
    named |= {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    tok = tokenizer("single", special, "<|im_end|>", named=named)
    vision = {**HIDDEN, "num_hidden_layers": 1, "image_size": [28, 28], "patch_size": [7, 7]}
    config = tf.InternVLConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **TEXT},
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    images = tf.GotOcr2ImageProcessor(size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4)
    template = chat_template("<IMG_CONTEXT>\n")
    video = tf.InternVLVideoProcessor()
    return tf.InternVLForConditionalGeneration(config), tf.InternVLProcessor(images, tok, video, 4, template)


def _llava_onevision() -> tuple[tf.PreTrainedModel, tf.ProcessorMixin]:
    tok = tokenizer("single", [*QWEN[:3], "<image>", "<video>"], "<|im_end|>")
    vision = {**HIDDEN, "model_type": "siglip_vision_model", "num_hidden_layers": 1}
    pinpoints = [[28, 28], [28, 56], [56, 28], [56, 56]]
    config = tf.LlavaOnevisionConfig(
        vision_config={**vision, "image_size": 28, "patch_size": 7},
        text_config={"model_type": "qwen2", **TEXT},
        vision_feature_layer=-1,
        image_grid_pinpoints=pinpoints,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
    )
    images = tf.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints)
    processor = tf.LlavaOnevisionProcessor(
        images, tok, tf.LlavaOnevisionVideoProcessor(), 16, "full", chat_template("<image>\n")
    )
    return tf.LlavaOnevisionForConditionalGeneration(config), processor


def _smolvlm() -> tuple[tf.PreTrainedModel, tf.ProcessorMixin]:
    special = [
        *QWEN[:3],
        "<fake_token_around_image>",
        "<image>",
        "<global-img>",
        "<end_of_utterance>",
        "<video>",
    ]
    special += [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    tok = tokenizer("single", special, "<end_of_utterance>")
    config = tf.SmolVLMConfig(
        vision_config={**HIDDEN, "num_hidden_layers": 1, "image_size": 28, "patch_size": 7},
        text_config={"model_type": "llama", **TEXT, "pad_token_id": tok.pad_token_id},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    images = tf.SmolVLMImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    template = chat_template("<image>", "<|im_start|>", ":", "<end_of_utterance>")
    processor = tf.SmolVLMProcessor(images, tok, tf.SmolVLMVideoProcessor(), 4, chat_template=template)
    return tf.SmolVLMForConditionalGeneration(config), processor


_BUILDERS: dict[str, Callable[[], tuple[tf.PreTrainedModel, tf.ProcessorMixin]]] = {
    "qwen2_vl": lambda: _qwen("qwen2_vl"),
    "qwen2_5_vl": lambda: _qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: _qwen("qwen3_vl"),
    "gemma3": _gemma3,
    "mllama": _mllama,
    "internvl": _internvl,
    "llava_onevision": _llava_onevision,
    "smolvlm": _smolvlm,
}


def build(family: str, folder: Path, seed: int = 0, scale: float = 4.0) -> Path:
    """Save a seeded random model of `family` with its processor; `scale` multiplies the initial matrices."""
    torch.manual_seed(seed)
    model, processor = _BUILDERS[family]()
    wake(model, scale)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def wake(model: torch.nn.Module, scale: float = 4.0) -> None:
    """Scale up the initial matrices, and open what is closed at first."""
    for name, parameter in model.named_parameters():
        if name.endswith("gate") or any(part in name for part in ("gate_attn", "gate_mlp", "gate_ffn", "alpha_")):
            parameter.fill_(0.7)  # Mllama and Idefics start with their cross-attention closed
        elif parameter.ndim > 1 and parameter.abs().max() < 1e-3:
            parameter.normal_(std=0.02 * scale)  # Gemma 3 starts with a projection of zeros, BLIP with 1e-10
        elif parameter.ndim > 1:
            parameter.mul_(scale)
