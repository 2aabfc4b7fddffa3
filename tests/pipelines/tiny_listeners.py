"""Text-to-image pipelines conditioned by a (multimodal) language model, with tiny random weights, built in memory.

>>> pipe = tiny_listener("krea2")
>>> image = pipe(prompt="a cat", **LISTENER_CALL["krea2"])[0][0]

They go on where tiny_diffusion's qwen_image and z_image leave off: seven families more, each with its own real text
encoders, denoiser, VAE and scheduler. Tokenizers are stand-ins, but come in the processor that the pipeline expects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from tiny_diffusion import SMALL
from tiny_parts import DIM, VOCAB, byte_tokenizer, clip_config, kl_vae, t5
from transformers import (
    ByT5Tokenizer,
    CLIPTextModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

QWEN_VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PIXTRAL_VISION = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
WIDER = VOCAB + 4
IDS = {f"{name}_token_id": VOCAB + i for i, name in enumerate(("vision_start", "vision_end", "image", "video"))}
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML for contents in parts, too."""

LANGUAGE: dict[str, Any] = {
    "vocab_size": WIDER,
    "hidden_size": DIM,
    "intermediate_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
"""Weights are wide enough for a hidden state that no norm scales to matter."""
TINY = {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2}
VISION = {"depth": 1, "hidden_size": DIM, "intermediate_size": DIM, "num_heads": 2, "out_hidden_size": DIM}


def tokenizer(special: list[str]) -> PreTrainedTokenizerFast:
    wider = byte_tokenizer(2048)
    wider.add_tokens(special, special_tokens=True)
    wider.chat_template = PARTS
    return wider


def length(tokenizer: PreTrainedTokenizerFast, text: str) -> int:
    """How many tokens of a template to cut off; pipelines know the number for their own tokenizer only."""
    return len(tokenizer(text)["input_ids"])


def qwen2_processor() -> Qwen2VLProcessor:
    return Qwen2VLProcessor(
        Qwen2VLImageProcessor(), tokenizer(QWEN_VISION), Qwen2VLVideoProcessor(), chat_template=PARTS
    )


def qwen2_5_vl(layers: int = 2) -> Qwen2_5_VLForConditionalGeneration:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {key: value for key, value in LANGUAGE.items() if key != "head_dim"}
    config = Qwen2_5_VLConfig(
        text_config={**text, "num_hidden_layers": layers, "rope_parameters": rope},
        vision_config={**VISION, "fullatt_block_indexes": [0]},
        tie_word_embeddings=False,
        **IDS,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl_config() -> Qwen3VLConfig:
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 10000.0}
    return Qwen3VLConfig(
        text_config={**LANGUAGE, "rope_parameters": rope},
        vision_config={**VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        tie_word_embeddings=False,
        **IDS,
    )


def qwen_image_21() -> DiffusionPipeline:
    return QwenImage21Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage21(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=4,
            dim_mult=[1] * 5,
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen3VLForConditionalGeneration(qwen3_vl_config()),
        processor=Qwen3VLProcessor(
            Qwen2VLImageProcessor(), tokenizer(QWEN_VISION), Qwen3VLVideoProcessor(), chat_template=PARTS
        ),
        transformer=QwenImage21Transformer2DModel(
            in_channels=4,
            out_channels=4,
            context_in_dim=DIM,
            axes_dims_rope=(2, 2, 4),
            **TINY,
        ),
    )


def hunyuan_image() -> DiffusionPipeline:
    pipe = HunyuanImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32,) * 4,
            layers_per_block=1,
            spatial_compression_ratio=8,
            sample_size=32,
            scaling_factor=1.0,
        ),
        text_encoder=qwen2_5_vl(layers=4),  # it takes the hidden states two layers before the last
        tokenizer=tokenizer(QWEN_VISION),
        text_encoder_2=t5(),
        tokenizer_2=ByT5Tokenizer(),  # of a text's bytes alone, which t5 has room for
        transformer=HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_single_layers=1,
            num_refiner_layers=1,
            mlp_ratio=1.0,
            text_embed_dim=DIM,
            text_embed_2_dim=DIM,
            rope_axes_dim=(4, 4),
            **TINY,
        ),
    )
    pipe.prompt_template_encode_start_idx = length(pipe.tokenizer, pipe.prompt_template_encode.split("{")[0])
    pipe.tokenizer_max_length = 64  # no argument of a call
    return pipe


def longcat_image() -> DiffusionPipeline:
    processor = qwen2_processor()
    pipe = LongCatImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=kl_vae(16, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=qwen2_5_vl(),
        tokenizer=processor.tokenizer,
        text_processor=processor,
        transformer=LongCatImageTransformer2DModel(
            in_channels=64,
            num_single_layers=1,
            joint_attention_dim=DIM,
            pooled_projection_dim=DIM,
            axes_dims_rope=[2, 2, 4],
            **TINY,
        ),
    )
    pipe.tokenizer_max_length = 64  # no argument of a call
    return pipe


def kandinsky5() -> DiffusionPipeline:
    pipe = Kandinsky5T2IPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=kl_vae(
            block_out_channels=(8,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=qwen2_5_vl(),
        tokenizer=qwen2_processor(),
        text_encoder_2=CLIPTextModel(clip_config(max_position_embeddings=77)),
        tokenizer_2=byte_tokenizer(77),
        transformer=Kandinsky5Transformer3DModel(
            in_visual_dim=4,
            out_visual_dim=4,
            in_text_dim=DIM,
            in_text_dim2=DIM,
            time_dim=DIM,
            model_dim=DIM,
            ff_dim=DIM,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(4, 2, 2),
        ),
    )
    pipe.prompt_template_encode_start_idx = length(pipe.tokenizer.tokenizer, pipe.prompt_template.split("{")[0])
    pipe.resolutions = [(16, 16)]  # it takes the nearest of these, the smallest of which is 1024 x 1024
    return pipe


def ovis_image() -> DiffusionPipeline:
    pipe = OvisImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=kl_vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=Qwen3Model(Qwen3Config(**LANGUAGE)),
        tokenizer=tokenizer(QWEN_VISION),
        transformer=OvisImageTransformer2DModel(
            in_channels=16,
            out_channels=16,
            num_single_layers=1,
            joint_attention_dim=DIM,
            axes_dims_rope=(2, 2, 4),
            **TINY,
        ),
    )
    pipe.user_prompt_begin_id = length(pipe.tokenizer, "<|im_start|>user\n" + pipe.system_prompt)
    return pipe


def flux2() -> DiffusionPipeline:
    config = Mistral3Config(
        text_config={"model_type": "mistral", **LANGUAGE},
        vision_config={
            "model_type": "pixtral",
            "hidden_size": DIM,
            "intermediate_size": DIM,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 4,
        },
        image_token_index=VOCAB,
        tie_word_embeddings=False,
    )
    # the system message is longer than all else, and the same every time
    template = PARTS.replace("in messages", "in messages if m['role'] != 'system'")
    return Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLFlux2(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=2,
            layers_per_block=1,
            sample_size=32,
        ),
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=PixtralProcessor(
            PixtralImageProcessor(patch_size=4), tokenizer(PIXTRAL_VISION), patch_size=4, chat_template=template
        ),
        transformer=Flux2Transformer2DModel(
            in_channels=16,
            num_single_layers=1,
            joint_attention_dim=2 * DIM,
            timestep_guidance_channels=DIM,
            axes_dims_rope=(2, 2, 2, 2),
            **TINY,
        ),
    )


def krea2() -> DiffusionPipeline:
    pipe = Krea2Pipeline(
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
        text_encoder=Qwen3VLModel(qwen3_vl_config()),
        tokenizer=tokenizer(QWEN_VISION),
        transformer=Krea2Transformer2DModel(
            in_channels=16,
            num_key_value_heads=1,
            intermediate_size=DIM,
            timestep_embed_dim=DIM,
            text_hidden_dim=DIM,
            num_text_layers=2,
            text_num_attention_heads=2,
            text_num_key_value_heads=1,
            text_intermediate_size=DIM,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 2, 2),
            **TINY,
        ),
        text_encoder_select_layers=(1, 2),
    )
    pipe.prompt_template_encode_start_idx = length(pipe.tokenizer, pipe.prompt_template_encode_prefix)
    return pipe


LISTENERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "qwen_image_21": qwen_image_21,
    "hunyuan_image": hunyuan_image,
    "longcat_image": longcat_image,
    "kandinsky5": kandinsky5,
    "ovis_image": ovis_image,
    "flux2": flux2,
    "krea2": krea2,
}

LISTENER_CALL: dict[str, dict[str, Any]] = {
    "qwen_image_21": {**SMALL, "height": 32, "width": 32},
    "hunyuan_image": SMALL,
    "longcat_image": {**SMALL, "enable_prompt_rewrite": False},
    "kandinsky5": {**SMALL, "max_sequence_length": 64},
    "ovis_image": {**SMALL, "max_sequence_length": 64},
    "flux2": {**SMALL, "max_sequence_length": 64, "text_encoder_out_layers": (1, 2)},
    "krea2": {**SMALL, "max_sequence_length": 64},
}
"""Arguments that make a call of each family small; give the prompt by name: Flux2 takes an image first."""


def wake(denoiser: torch.nn.Module) -> None:
    """Widen its weights, so that a text changes an image by more than a rounding; zeros would hide text and noise."""
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0) if parameter.any() else parameter.normal_(std=0.2)


def tiny_listener(family: str, seed: int = 0) -> DiffusionPipeline:
    """A pipeline of the family with random weights from `seed`, on the CPU, without progress bars."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = LISTENERS[family]()
        for name, module in pipe.components.items():
            if isinstance(module, torch.nn.Module):
                module.eval()
                if name == "transformer":
                    wake(module)
    pipe.set_progress_bar_config(disable=True)
    return pipe
