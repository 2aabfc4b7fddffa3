"""Pipelines without a VAE, or of two minds about it: DeepFloyd IF, PRX."""

from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    IFPipeline,
    PRXPipeline,
    PRXPixelPipeline,
    PRXTransformer2DModel,
)
from diffusers.pipelines.deepfloyd_if import IFWatermarker
from tiny_listeners import LANGUAGE
from tiny_parts import DIM, byte_tokenizer, kl_vae, t5, unet
from transformers import Qwen3Config, Qwen3Model
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from .registry import family, framed


@family("IFPipeline", {"clean_caption": False})
def deep_floyd() -> DiffusionPipeline:
    return IFPipeline(
        tokenizer=byte_tokenizer(77),
        text_encoder=t5(),
        unet=unet(
            sample_size=64,
            in_channels=3,
            out_channels=6,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            encoder_hid_dim=DIM,
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            cross_attention_dim=32,  # its norm has 32 groups
            cross_attention_norm="group_norm",
            resnet_time_scale_shift="scale_shift",
            act_fn="gelu",
        ),
        scheduler=DDPMScheduler(
            beta_schedule="squaredcos_cap_v2",
            thresholding=True,
            dynamic_thresholding_ratio=0.95,
            sample_max_value=1.0,
            variance_type="learned_range",
        ),
        safety_checker=None,
        feature_extractor=None,
        watermarker=IFWatermarker(),
        requires_safety_checker=False,
    )


def prx_transformer(**changes: object) -> PRXTransformer2DModel:
    facts = {
        "patch_size": 1,
        "in_channels": 4,
        "context_in_dim": DIM,
        "hidden_size": DIM,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "axes_dim": [4, 4],
    }
    return PRXTransformer2DModel(**{**facts, **changes})


@family(
    "PRXPipeline",
    {"use_resolution_binning": False, "tokenizer_max_length": 32},
    skipped={
        "save, load": "plain diffusers saves the configuration of T5Gemma's encoder and then reads it as that of "
        "the whole model, so that it builds one of two billion weights and fails"
    },
)
def prx() -> DiffusionPipeline:
    names = ("bos_token_id", "initializer_range")
    config = T5GemmaModuleConfig(
        **{k: v for k, v in LANGUAGE.items() if k not in names},
        query_pre_attn_scalar=8,
        sliding_window=64,
        dropout_rate=0.0,
    )
    return PRXPipeline(
        transformer=prx_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=T5GemmaEncoder(config),
        tokenizer=framed(byte_tokenizer(64)),
        vae=kl_vae(shift_factor=0.0, scaling_factor=1.0),
    )


@family("PRXPixelPipeline", {"use_resolution_binning": False})
def prx_pixel() -> DiffusionPipeline:
    return PRXPixelPipeline(
        transformer=prx_transformer(in_channels=3, bottleneck_size=8, resolution_embeds=True),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=Qwen3Model(Qwen3Config(**LANGUAGE)),
        tokenizer=framed(byte_tokenizer(64)),
        prompt_max_tokens=32,
    )
