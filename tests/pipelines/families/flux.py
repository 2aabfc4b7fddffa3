"""Double-stream transformers in Flux's manner: Chroma, Bria, Fibo, Flux.2 Klein, LongCat's kin."""

from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLWan,
    BriaFiboPipeline,
    BriaFiboTransformer2DModel,
    BriaPipeline,
    BriaTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from tiny_listeners import LANGUAGE, QWEN_VISION, TINY, tokenizer
from tiny_parts import DIM, byte_tokenizer, kl_vae, t5
from transformers import Qwen3Config, Qwen3ForCausalLM, SmolLM3Config, SmolLM3ForCausalLM

from .registry import family, framed

FLOW = FlowMatchEulerDiscreteScheduler


@family("ChromaPipeline", {"max_sequence_length": 16})
def chroma() -> DiffusionPipeline:
    return ChromaPipeline(
        scheduler=FLOW(),
        vae=kl_vae(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=t5(),
        tokenizer=byte_tokenizer(),
        transformer=ChromaTransformer2DModel(
            in_channels=16,
            num_single_layers=1,
            joint_attention_dim=DIM,
            axes_dims_rope=(2, 2, 4),
            approximator_hidden_dim=DIM,
            approximator_layers=1,
            approximator_num_channels=16,
            **TINY,
        ),
    )


@family("BriaPipeline", {"max_sequence_length": 16})
def bria() -> DiffusionPipeline:
    return BriaPipeline(
        scheduler=FLOW(),
        vae=kl_vae(shift_factor=0.0, scaling_factor=1.0),
        text_encoder=t5(),
        tokenizer=byte_tokenizer(),
        transformer=BriaTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_single_layers=1,
            joint_attention_dim=DIM,
            pooled_projection_dim=None,
            axes_dims_rope=[2, 2, 4],
            **TINY,
        ),
    )


@family("BriaFiboPipeline", {"height": 32, "width": 32, "max_sequence_length": 32})
def fibo() -> DiffusionPipeline:
    return BriaFiboPipeline(
        scheduler=FLOW(),
        vae=AutoencoderKLWan(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_spatial=16,
        ),
        # the pipeline puts SmolLM3's own first token, number 128,000, where a text is empty
        text_encoder=SmolLM3ForCausalLM(SmolLM3Config(**{**LANGUAGE, "vocab_size": 128_001})),
        tokenizer=framed(byte_tokenizer(64)),
        transformer=BriaFiboTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_single_layers=1,
            joint_attention_dim=2 * DIM,
            text_encoder_dim=DIM,
            pooled_projection_dim=None,
            axes_dims_rope=[2, 2, 4],
            **TINY,
        ),
    )


def klein_parts() -> dict[str, object]:
    return {
        "scheduler": FLOW(),
        "vae": AutoencoderKLFlux2(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=2,
            layers_per_block=1,
            sample_size=32,
        ),
        "text_encoder": Qwen3ForCausalLM(Qwen3Config(**LANGUAGE)),
        "tokenizer": tokenizer(QWEN_VISION),
        "transformer": Flux2Transformer2DModel(
            in_channels=16,
            num_single_layers=1,
            joint_attention_dim=2 * DIM,
            timestep_guidance_channels=DIM,
            axes_dims_rope=(2, 2, 2, 2),
            guidance_embeds=False,
            **TINY,
        ),
    }


KLEIN = {"max_sequence_length": 64, "text_encoder_out_layers": (1, 2)}


@family("Flux2KleinPipeline", KLEIN)
def klein() -> DiffusionPipeline:
    return Flux2KleinPipeline(**klein_parts())


@family("Flux2KleinKVPipeline", KLEIN)
def klein_kv() -> DiffusionPipeline:
    return Flux2KleinKVPipeline(**klein_parts())
