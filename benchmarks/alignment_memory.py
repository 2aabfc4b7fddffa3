"""How much GPU memory a step of alignment takes, computed from shapes; nothing is run, and no weights are needed.

    python benchmarks/alignment_memory.py                 # Qwen2.5-VL-7B, one GPU
    python benchmarks/alignment_memory.py --micro-batch 1 --image-tokens 1280

The model is built on torch's meta device and opened as `align` opens it, so the counts are exact. Per trained weight:
4 bytes itself, 4 its gradient, 8 AdamW's moments. Frozen weights: 2 bytes, or 0.5 in 4 bits for linear layers of the
language model. Activations, with gradient checkpointing: what enters each layer is kept, and one layer at a time is
computed again; that part is an estimate of the order of its size, not a count.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from cogguided.scorers.alignment import AlignmentConfig
from cogguided.scorers.alignment.parts import Parts, find_parts, make_trainable

GIB = 2**30
TEXT = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "bos_token_id": 151643, "eos_token_id": 151645,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112, "patch_size": 14, "spatial_merge_size": 2,
}  # fmt: skip
RECIPES = {
    "the paper's: LoRA, tower and projector in full": AlignmentConfig(precision="bfloat16"),
    "LoRA everywhere": AlignmentConfig(precision="bfloat16", vision="lora", projector="lora"),
    "LoRA on the language model alone": AlignmentConfig(precision="bfloat16", vision="frozen", projector="frozen"),
}


def opened(config: AlignmentConfig) -> tuple[Any, Parts]:
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION, tie_word_embeddings=False)
        ).to(torch.bfloat16)
        parts = find_parts(model)
        return make_trainable(model, config, parts), parts


def activations(micro_batch: int, image_tokens: int, text_tokens: int, tower_trains: bool) -> float:
    """Bytes, about: layer inputs that are kept, and what one layer of each kind needs when it is computed again."""
    tokens, patches = micro_batch * (image_tokens + text_tokens), micro_batch * image_tokens * 4
    wide = TEXT["hidden_size"]
    kept = tokens * wide * TEXT["num_hidden_layers"] * 2
    again = tokens * (3 * TEXT["intermediate_size"] + 8 * wide) * 2
    if tower_trains:  # its weights are float32, and so is what runs between its layers
        kept += patches * VISION["hidden_size"] * VISION["depth"] * 4
        again = max(again, patches * (3 * VISION["intermediate_size"] + 8 * VISION["hidden_size"]) * 4)
    return kept + again + 3 * 4 * 12 * micro_batch * TEXT["vocab_size"]  # and some 12 supervised rows of logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--image-tokens", type=int, default=1280, help="the paper's most: 1280 x 28 x 28 pixels")
    parser.add_argument("--text-tokens", type=int, default=160)
    args = parser.parse_args()
    print(
        f"Qwen2.5-VL-7B, micro batch {args.micro_batch}, {args.image_tokens} image and {args.text_tokens} text tokens each, GiB"
    )
    print(f"{'':50}{'trained, M':>12}{'frozen':>8}{'trained':>9}{'activations':>13}{'sum':>7}{'in 4 bits':>11}")
    for name, config in RECIPES.items():
        model, parts = opened(replace(config, micro_batch=args.micro_batch))
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        frozen = 2 * sum(p.numel() for p in model.parameters() if not p.requires_grad)
        linears = sum(
            module.weight.numel()
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear)
            and "lora_" not in path
            and parts.of(path) == "language"
            and "lm_head" not in path
        )
        active = activations(args.micro_batch, args.image_tokens, args.text_tokens, config.vision != "frozen")
        total = frozen + 16 * trained + active
        cells = [frozen / GIB, 16 * trained / GIB, active / GIB, total / GIB, (total - 1.5 * linears) / GIB]
        print(
            f"{name:50}{trained / 1e6:12.1f}"
            + "".join(f"{c:>{w}.1f}" for c, w in zip(cells, (8, 9, 13, 7, 11), strict=True))
        )


if __name__ == "__main__":
    main()
