"""Pipelines on language models beyond those of tiny_listeners: HiDream, OmniGen, NucleusMoE, Ernie, GLM-Image."""

from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    ErnieImagePipeline,
    ErnieImageTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    GlmImagePipeline,
    GlmImageTransformer2DModel,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    OmniGenPipeline,
    OmniGenTransformer2DModel,
)
from tiny_listeners import LANGUAGE, PARTS, PIXTRAL_VISION, QWEN_VISION, TINY, qwen3_vl_config, tokenizer
from tiny_parts import DIM, VOCAB, byte_tokenizer, clip_config, kl_vae, t5
from transformers import (
    ByT5Tokenizer,
    CLIPTextModelWithProjection,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessor,
    GlmImageProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3Model,
    PreTrainedTokenizerFast,
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


UNPREPARED = dict.fromkeys(("Halving", "Drafts", "fine-tuning", "LoRA out"), "no prepare_latents")


@family("ErnieImagePipeline", refused=UNPREPARED)
def ernie() -> DiffusionPipeline:
    """Its call draws the noise itself."""
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
    )
    return ErnieImagePipeline(
        scheduler=FLOW(),
        vae=AutoencoderKLFlux2(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=2,
            layers_per_block=1,
            sample_size=32,
        ),
        text_encoder=Mistral3Model(config),
        tokenizer=tokenizer(PIXTRAL_VISION),
        transformer=ErnieImageTransformer2DModel(
            hidden_size=DIM,
            num_attention_heads=2,
            num_layers=1,
            ffn_hidden_size=DIM,
            in_channels=16,
            out_channels=16,
            text_in_dim=DIM,
            rope_axes_dim=(4, 2, 2),
        ),
    )


SAMPLED = dict.fromkeys(("Halving", "Drafts", "fine-tuning", "LoRA out"), "global state")


@family("GlmImagePipeline", {"height": 64, "width": 64, "max_sequence_length": 64}, SAMPLED)
def glm_image() -> DiffusionPipeline:
    """A language model draws codes of the picture first, from torch's global state."""
    special = ["<|image|>", "<|grid_bos|>", "<|grid_eos|>"]
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(special).backend_tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
        extra_special_tokens=dict(zip(("image_token", "grid_bos_token", "grid_eos_token"), special, strict=True)),
    )
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {k: v for k, v in LANGUAGE.items() if k != "head_dim"}
    text |= {"vision_vocab_size": 32, "rope_parameters": rope, "eos_token_id": 32}  # none of the codes ends a picture
    config = GlmImageConfig(
        text_config=text,
        vision_config={
            "depth": 1,
            "hidden_size": DIM,
            "num_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "intermediate_size": DIM,
        },
        vq_config={"embed_dim": DIM, "num_embeddings": 32, "latent_channels": DIM},
        image_token_id=VOCAB,
        image_start_token_id=1,
        image_end_token_id=2,
    )
    return GlmImagePipeline(
        tokenizer=ByT5Tokenizer(),
        processor=GlmImageProcessor(GlmImageImageProcessor(), words, chat_template=PARTS),
        text_encoder=t5(),
        vision_language_encoder=GlmImageForConditionalGeneration(config),
        vae=kl_vae(
            block_out_channels=(8,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        transformer=GlmImageTransformer2DModel(
            patch_size=2,
            in_channels=4,
            out_channels=4,
            text_embed_dim=DIM,
            time_embed_dim=16,
            condition_dim=8,
            prior_vq_quantizer_codebook_size=32,
            **TINY,
        ),
        scheduler=FLOW(),
    )
