"""Text-to-image pipelines of eight families with tiny random weights, built in memory, without a network.

>>> pipe = tiny_pipeline("flux")
>>> image = pipe("a cat", **CALL["flux"]).images[0]

Every family has its own real text encoders, denoiser, VAE and scheduler; only the tokenizer is a stand-in
(one token per byte), wrapped as the pipeline expects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tiny_parts import DIM, VOCAB, byte_tokenizer, clip_config, ddim, kl_vae, t5, unet
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)


def sd15() -> DiffusionPipeline:
    return StableDiffusionPipeline(
        vae=kl_vae(),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=byte_tokenizer(),
        unet=unet(),
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> DiffusionPipeline:
    return StableDiffusionXLPipeline(
        vae=kl_vae(),
        text_encoder=CLIPTextModel(clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer=byte_tokenizer(),
        tokenizer_2=byte_tokenizer(),
        unet=unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + DIM,
            cross_attention_dim=2 * DIM,
        ),
        scheduler=ddim(),
        add_watermarker=False,
    )


def sd3() -> DiffusionPipeline:
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * DIM,
            caption_projection_dim=DIM,
            pooled_projection_dim=2 * DIM,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=kl_vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=CLIPTextModelWithProjection(clip_config()),
        tokenizer=byte_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer_2=byte_tokenizer(),
        text_encoder_3=T5EncoderModel(
            T5Config(vocab_size=VOCAB, d_model=2 * DIM, d_kv=8, d_ff=DIM, num_layers=1, num_heads=2)
        ),
        tokenizer_3=byte_tokenizer(),
    )


def flux() -> DiffusionPipeline:
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=kl_vae(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=byte_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=byte_tokenizer(),
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=DIM,
            pooled_projection_dim=DIM,
            axes_dims_rope=(2, 2, 4),
        ),
    )


def pixart_sigma() -> DiffusionPipeline:
    return PixArtSigmaPipeline(
        tokenizer=byte_tokenizer(),
        text_encoder=t5(),
        vae=kl_vae(),
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            cross_attention_dim=DIM,
            sample_size=8,
            caption_channels=DIM,
            use_additional_conditions=False,
        ),
        scheduler=DPMSolverMultistepScheduler(),
    )


def sana() -> DiffusionPipeline:
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    text_encoder = Gemma2Model(
        Gemma2Config(
            vocab_size=VOCAB,
            hidden_size=DIM,
            intermediate_size=DIM,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    return SanaPipeline(
        tokenizer=byte_tokenizer(),
        text_encoder=text_encoder,
        vae=vae,
        transformer=SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=DIM,
            caption_channels=DIM,
            sample_size=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def qwen_image() -> DiffusionPipeline:
    text = {
        "vocab_size": VOCAB,
        "hidden_size": DIM,
        "intermediate_size": DIM,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "depth": 1,
        "hidden_size": DIM,
        "intermediate_size": DIM,
        "num_heads": 2,
        "out_hidden_size": DIM,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=3,
        video_token_id=3,
        vision_start_token_id=4,
        vision_end_token_id=4,
        tie_word_embeddings=False,
    )
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=byte_tokenizer(512),
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=DIM,
            axes_dims_rope=(4, 6, 6),
        ),
    )


def z_image() -> DiffusionPipeline:
    text_encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=VOCAB,
            hidden_size=DIM,
            intermediate_size=DIM,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=128,
        )
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=kl_vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=text_encoder,
        tokenizer=byte_tokenizer(),
        transformer=ZImageTransformer2DModel(
            all_patch_size=(2,),
            all_f_patch_size=(1,),
            in_channels=4,
            dim=DIM,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=DIM,
            axes_dims=[2, 2, 4],
            axes_lens=[256, 32, 32],
        ),
    )


BUILDERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd15": sd15,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "pixart_sigma": pixart_sigma,
    "sana": sana,
    "qwen_image": qwen_image,
    "z_image": z_image,
}
FAMILIES = list(BUILDERS)

SMALL = {"num_inference_steps": 2, "height": 16, "width": 16}
CALL: dict[str, dict[str, Any]] = {
    "sd15": SMALL,
    "sdxl": SMALL,
    "sd3": {**SMALL, "max_sequence_length": 16},
    "flux": {**SMALL, "max_sequence_length": 16},
    "pixart_sigma": {
        **SMALL,
        "max_sequence_length": 16,
        "use_resolution_binning": False,
        "clean_caption": False,
    },
    "sana": {
        **SMALL,
        "height": 32,
        "width": 32,
        "max_sequence_length": 16,
        "use_resolution_binning": False,
        "complex_human_instruction": None,
    },
    "qwen_image": {**SMALL, "negative_prompt": " "},
    "z_image": {**SMALL, "max_sequence_length": 48},
}
"""Arguments that make a call of each family small."""


def tiny_pipeline(family: str, seed: int = 0) -> DiffusionPipeline:
    """A pipeline of the family with random weights from `seed`, on the CPU, without progress bars."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = BUILDERS[family]()
        for name, module in pipe.components.items():
            if isinstance(module, torch.nn.Module):
                module.eval()
                if name in ("transformer", "unet"):  # zero-initialised ones would hide prompt and noise
                    for parameter in module.parameters():
                        if parameter.ndim > 1 and not parameter.any():
                            torch.nn.init.normal_(parameter, std=0.1)
    pipe.set_progress_bar_config(disable=True)
    return pipe
