"""Parts of tiny pipelines that several families have: tokenizer, text encoders, VAE, UNet, scheduler."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, PreTrainedTokenizerFast, T5Config, T5EncoderModel

DIM = 16
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>"]
VOCAB = 256 + len(SPECIAL)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(max_length: int = 24) -> PreTrainedTokenizerFast:
    """One token per byte, after the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        additional_special_tokens=SPECIAL[3:],
        model_max_length=max_length,
    )
    fast.chat_template = CHATML
    return fast


def clip_config(**changes: Any) -> CLIPTextConfig:
    facts = {
        "vocab_size": VOCAB,
        "hidden_size": DIM,
        "intermediate_size": DIM,
        "projection_dim": DIM,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return CLIPTextConfig(**{**facts, **changes})


def t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=VOCAB, d_model=DIM, d_kv=8, d_ff=DIM, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return T5EncoderModel(config)


def kl_vae(channels: int = 4, **changes: Any) -> AutoencoderKL:
    """Downsamples by 2."""
    facts = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": channels,
        "norm_num_groups": 2,
        "layers_per_block": 1,
        "sample_size": 32,
    }
    return AutoencoderKL(**{**facts, **changes})


def unet(**changes: Any) -> UNet2DConditionModel:
    facts = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "sample_size": 16,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": DIM,
        "attention_head_dim": 8,
        "norm_num_groups": 2,
    }
    return UNet2DConditionModel(**{**facts, **changes})


def ddim() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
