"""What the paper's experiment takes on Qwen-Image (20B) with an aligned 7B, computed from shapes; nothing is run.

    python benchmarks/text_encoder_memory.py

Transformer and text encoder are built on torch's meta device with their published configurations (the transformer's are
diffusers' defaults), so the weights are counted exactly; two bytes each. Time: 2 operations per weight and token and pass,
at a stated share of a card's peak; attention and decoding are left out.
"""

from __future__ import annotations

import argparse

import torch
from alignment_memory import TEXT, VISION
from diffusers import QwenImageTransformer2DModel
from peft import LoraConfig, get_peft_model
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=768, help="pixels of a side; the paper's")
    parser.add_argument("--steps", type=int, default=14, help="the paper's")
    parser.add_argument("--tflops", type=float, default=989.0, help="peak in bfloat16; an H100's")
    parser.add_argument("--share", type=float, default=0.4, help="of the peak that is reached")
    args = parser.parse_args()
    with torch.device("meta"):
        transformer = QwenImageTransformer2DModel()
        encoder = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION, tie_word_embeddings=False)
        )
        language = r".*language_model.*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
        wrapped = get_peft_model(encoder, LoraConfig(r=64, target_modules=language))
    weights = sum(p.numel() for p in transformer.parameters())
    lora = sum(p.numel() for n, p in wrapped.named_parameters() if "lora_" in n)
    linears = sum(
        p.numel() for n, p in wrapped.named_parameters() if "language_model" in n and "base_layer.weight" in n
    )
    whole = sum(p.numel() for n, p in wrapped.named_parameters() if "lora_" not in n)
    rows = {
        f"transformer, {weights / 1e9:.2f} G weights": 2 * weights,
        f"text encoder, {whole / 1e9:.2f} G weights": 2 * whole,
        f"an adapter of rank 64 beside it, {lora / 1e6:.0f} M weights (float32)": 4 * lora,
        "or a full checkpoint: the language model's linear layers a second time": 2 * linears,
        "or the MLLM scorer's own weights, shared, with the originals kept": 2 * linears,
        "and without sharing, a second 7B as scorer": 2 * whole,
    }
    for name, size in rows.items():
        print(f"{name:75}{size / GIB:8.1f} GiB")
    tokens = (args.size // 16) ** 2 + 128
    seconds = 2 * weights * tokens * args.steps * 2 / (args.tflops * 1e12 * args.share)
    print(f"\none image of {args.size} x {args.size}, {args.steps} steps, two passes each: {seconds:.1f} s at {args.share:.0%} of {args.tflops:g} TFLOP/s")


if __name__ == "__main__":
    main()
