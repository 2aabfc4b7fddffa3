"""Pipelines on language models beyond those of tiny_listeners: HiDream, OmniGen, NucleusMoE."""

from diffusers import (
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    OmniGenPipeline,
    OmniGenTransformer2DModel,
)
from tiny_diffusion import DIM, byte_tokenizer, clip_config, kl_vae, t5
from tiny_listeners import LANGUAGE, PARTS, QWEN_VISION, TINY, qwen3_vl_config, tokenizer
from transformers import (
    CLIPTextModelWithProjection,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2VLImageProcessor,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from .registry import family

FLOW = FlowMatchEulerDiscreteScheduler


@family("HiDreamImagePipeline", {"max_sequence_length": 16})
def hidream() -> DiffusionPipeline:
    llama = LlamaForCausalLM(LlamaConfig(**LANGUAGE))
    pipe = HiDreamImagePipeline(
        scheduler=FLOW(),
        vae=kl_vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=CLIPTextModelWithProjection(clip_config()),
        tokenizer=byte_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer_2=byte_tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=byte_tokenizer(),
        text_encoder_4=llama,
        tokenizer_4=byte_tokenizer(),
        transformer=HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_single_layers=1,
            caption_channels=[DIM, DIM],
            text_emb_dim=2 * DIM,
            num_routed_experts=2,
            num_activated_experts=1,
            axes_dims_rope=(4, 2, 2),
            max_resolution=(16, 16),
            llama_layers=(0, 1),
            **TINY,
        ),
    )
    pipe.default_sample_size = 8  # images of any other area are scaled to it
    return pipe


@family("OmniGenPipeline", {"height": 32, "width": 32}, dict.fromkeys(("fine-tuning", "LoRA out"), "guided=True"))
def omnigen() -> DiffusionPipeline:
    special = [f"<|image_{k}|>" for k in (1, 2)]
    return OmniGenPipeline(
        transformer=OmniGenTransformer2DModel(
            hidden_size=DIM,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=DIM,
            num_layers=1,
            in_channels=4,
            time_step_dim=4,
            vocab_size=300,
            pad_token_id=0,
            pos_embed_max_size=16,
            rope_scaling={"long_factor": [1.0] * 4, "short_factor": [1.0] * 4},
        ),
        scheduler=FLOW(invert_sigmas=True, num_train_timesteps=1),
        vae=kl_vae(
            block_out_channels=(8,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        tokenizer=tokenizer(special),
    )


@family("NucleusMoEImagePipeline", {"return_index": -1, "max_sequence_length": 1024})
def nucleus() -> DiffusionPipeline:
    return NucleusMoEImagePipeline(
        scheduler=FLOW(),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen3VLForConditionalGeneration(qwen3_vl_config()),
        processor=Qwen3VLProcessor(
            Qwen2VLImageProcessor(), tokenizer(QWEN_VISION), Qwen3VLVideoProcessor(), chat_template=PARTS
        ),
        transformer=NucleusMoEImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            joint_attention_dim=DIM,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=4,  # narrower ones have a feed-forward of no width
            axes_dims_rope=(8, 4, 4),
            moe_enabled=False,
            capacity_factors=[8.0],
        ),
    )
