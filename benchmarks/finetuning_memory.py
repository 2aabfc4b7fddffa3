"""How much GPU memory fine-tuning SDXL with a 7B MLLM as scorer takes, computed from shapes; nothing is run.

    python benchmarks/finetuning_memory.py
    python benchmarks/finetuning_memory.py --size 768 --rank 16

The UNet is built on torch's meta device with the LoRA that `finetune` puts on it, so weights are counted exactly. Per trained
weight: 4 bytes itself, 4 its gradient, 8 AdamW's moments, 4 the sampling copy. Activations are estimated: with checkpointing
what enters each block is kept and the widest block computed again. The MLLM's 4 bits are those of its language model's linear
layers (0.53 bytes a weight with NF4's scales); its vision tower, embeddings and head stay in half precision.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model

from cogguided import FinetuneConfig

GIB = 2**30
SDXL = {
    "in_channels": 4, "out_channels": 4, "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
TEXT_ENCODERS = 123_060_480 + 694_659_840
"""Weights of CLIP ViT-L and OpenCLIP ViT-bigG's text towers, from their model cards' shapes."""
VAE = 83_653_863
LANGUAGE_LINEARS, MLLM_REST = 6_525_288_448, 1_766_878_208
"""Of Qwen2.5-VL-7B (8,292,166,656): linear layers of the language model's blocks; vision tower, embeddings, head, norms."""


def unet(rank: int) -> Any:
    with torch.device("meta"):
        model = UNet2DConditionModel(**SDXL)
        inject_adapter_in_model(LoraConfig(r=rank, target_modules=list(FinetuneConfig().target_modules)), model)
    return model


def activations(size: int, checkpointing: bool, micro_batch: int) -> float:
    """Bytes, about, in half precision: 34 bytes a token and channel in a transformer layer, 12 in a residual block."""
    side = size // 8
    layers = {1: 0, 2: 2 * 2 + 3 * 2, 4: 10 * 2 + 3 * 10 + 10}  # transformer layers at each downsampling, up and down
    width = {1: 320, 2: 640, 4: 1280}
    one = {f: (side // f) ** 2 * width[f] * 34.0 for f in layers}
    residual = sum((side // f) ** 2 * width[f] * 12.0 * 5 for f in layers)
    if not checkpointing:
        return micro_batch * (sum(one[f] * n for f, n in layers.items()) + residual)
    kept = sum((side // f) ** 2 * width[f] * 2.0 * 8 for f in layers)  # what enters the blocks
    widest = max(one[2] * 2, one[4] * 10, (side**2) * 320 * 12.0 * 2)
    return micro_batch * (kept + widest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="pixels of a side")
    parser.add_argument("--rank", type=int, default=32)
    args = parser.parse_args()
    model = unet(args.rank)
    trained = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    frozen = sum(p.numel() for n, p in model.named_parameters() if "lora_" not in n)
    rows = {
        f"UNet, {frozen / 1e9:.3f} G weights, bfloat16": 2 * frozen,
        "text encoders, bfloat16": 2 * TEXT_ENCODERS,
        "VAE, bfloat16": 2 * VAE,
        f"LoRA of rank {args.rank}, {trained / 1e6:.1f} M weights: itself, gradient, AdamW, sampling copy": 20 * trained,
        "activations of one image, checkpointing (estimate)": activations(args.size, True, 1),
        "decoding one image in tiles (estimate)": 4 * 512 * 512 * 128 * 6.0,
        "7B MLLM in 4 bits": 0.53 * LANGUAGE_LINEARS + 2 * MLLM_REST,
        "MLLM: activations of one image (estimate)": 0.7 * GIB,
    }
    print(f"SDXL at {args.size} x {args.size} with --low-memory and a 7B MLLM in 4 bits, GiB\n")
    for name, size in rows.items():
        print(f"{name:95}{size / GIB:8.2f}")
    names = list(rows)
    fit = sum(rows[n] for n in names[:5]) + rows[names[6]]
    score = sum(rows[n] for n in names[:4]) + sum(rows[n] for n in names[6:])
    print(f"\n{'while it fits':95}{fit / GIB:8.2f}\n{'while it scores':95}{score / GIB:8.2f}")
    print(f"{'while it fits, the MLLM on the CPU in the meantime':95}{(fit - rows[names[6]]) / GIB:8.2f}")
    plain = activations(args.size, False, 8)
    print(f"{'(activations of 8 images without checkpointing)':95}{plain / GIB:8.2f}")


if __name__ == "__main__":
    main()
