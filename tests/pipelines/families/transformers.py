"""Diffusion transformers on T5, BERT or Gemma texts: PixArt, HunyuanDiT, Sana, Lumina, AuraFlow, CogView, Kolors."""

from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPAGPipeline,
    HunyuanDiTPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPAGPipeline,
    SanaPAGPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
    StableDiffusion3PAGPipeline,
)
from tiny_diffusion import CALL, pixart_sigma, sana, sd3
from tiny_parts import DIM, VOCAB, byte_tokenizer, kl_vae, t5
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2Model,
    GemmaConfig,
    GemmaModel,
    GlmConfig,
    GlmModel,
    UMT5Config,
    UMT5EncoderModel,
)

from .registry import LEFT_OUT, family, framed

LANGUAGE = {
    "vocab_size": VOCAB,
    "hidden_size": DIM,
    "intermediate_size": DIM,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
FLOW = FlowMatchEulerDiscreteScheduler


@family("StableDiffusion3PAGPipeline", {"max_sequence_length": 16, "pag_scale": 1.0})
def sd3_pag() -> DiffusionPipeline:
    parts = {k: v for k, v in sd3().components.items() if k not in ("image_encoder", "feature_extractor")}
    return StableDiffusion3PAGPipeline(**parts, pag_applied_layers=["blocks.0"])


@family("PixArtAlphaPipeline", {**CALL["pixart_sigma"], "max_sequence_length": LEFT_OUT})
def pixart_alpha() -> DiffusionPipeline:
    return PixArtAlphaPipeline(**pixart_sigma().components)


@family("PixArtSigmaPAGPipeline", CALL["pixart_sigma"])
def pixart_pag() -> DiffusionPipeline:
    return PixArtSigmaPAGPipeline(**pixart_sigma().components, pag_applied_layers=["blocks.0"])


def hunyuan_parts() -> dict[str, object]:
    bert = BertConfig(
        vocab_size=VOCAB,
        hidden_size=DIM,
        intermediate_size=DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    return {
        "vae": kl_vae(),
        "text_encoder": BertModel(bert),
        "tokenizer": byte_tokenizer(77),
        "transformer": HunyuanDiT2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            in_channels=4,
            cross_attention_dim=DIM,
            cross_attention_dim_t5=DIM,
            pooled_projection_dim=DIM,
            hidden_size=DIM,
            text_len=77,
            text_len_t5=256,
            activation_fn="gelu-approximate",
        ),
        "scheduler": DDPMScheduler(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        "text_encoder_2": t5(),
        "tokenizer_2": byte_tokenizer(256),
    }


@family("HunyuanDiTPipeline", {"use_resolution_binning": False})
def hunyuan_dit() -> DiffusionPipeline:
    return HunyuanDiTPipeline(**hunyuan_parts())


@family("HunyuanDiTPAGPipeline", {"use_resolution_binning": False})
def hunyuan_pag() -> DiffusionPipeline:
    return HunyuanDiTPAGPipeline(**hunyuan_parts(), pag_applied_layers=["blocks.1"])


@family("SanaPAGPipeline", CALL["sana"])
def sana_pag() -> DiffusionPipeline:
    return SanaPAGPipeline(**sana().components, pag_applied_layers=["transformer_blocks.0"])


@family("SanaSprintPipeline", {**CALL["sana"], "intermediate_timesteps": None})
def sprint() -> DiffusionPipeline:
    transformer = SanaTransformer2DModel(
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
        qk_norm="rms_norm_across_heads",
        guidance_embeds=True,
    )
    return SanaSprintPipeline(**{**sana().components, "transformer": transformer, "scheduler": SCMScheduler()})


@family("LuminaPipeline", {"max_sequence_length": 32, "clean_caption": False})
def lumina() -> DiffusionPipeline:
    return LuminaPipeline(
        transformer=LuminaNextDiT2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=DIM,
            num_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            cross_attention_dim=DIM,
        ),
        scheduler=FLOW(),
        vae=kl_vae(),
        text_encoder=GemmaModel(GemmaConfig(**LANGUAGE)),
        tokenizer=framed(byte_tokenizer(256)),
    )


@family("Lumina2Pipeline", {"max_sequence_length": 64, "system_prompt": "Draw."})
def lumina2() -> DiffusionPipeline:
    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=DIM,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            scaling_factor=1.0,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(128, 32, 32),
            cap_feat_dim=DIM,
        ),
        scheduler=FLOW(),
        vae=kl_vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=Gemma2Model(Gemma2Config(**LANGUAGE)),
        tokenizer=byte_tokenizer(256),
    )


@family("AuraFlowPipeline", {"max_sequence_length": 16})
def aura_flow() -> DiffusionPipeline:
    text = UMT5Config(vocab_size=VOCAB, d_model=DIM, d_kv=8, d_ff=DIM, num_layers=1, num_heads=2)
    return AuraFlowPipeline(
        tokenizer=byte_tokenizer(),
        text_encoder=UMT5EncoderModel(text),
        vae=kl_vae(),
        transformer=AuraFlowTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_projection_dim=DIM,
            joint_attention_dim=DIM,
            out_channels=4,
            pos_embed_max_size=64,
        ),
        scheduler=FLOW(),
    )


@family("CogView3PlusPipeline", {"max_sequence_length": 16})
def cogview3() -> DiffusionPipeline:
    return CogView3PlusPipeline(
        tokenizer=byte_tokenizer(),
        text_encoder=t5(),
        vae=kl_vae(),
        transformer=CogView3PlusTransformer2DModel(
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            out_channels=4,
            text_embed_dim=DIM,
            time_embed_dim=8,
            condition_dim=4,
            pos_embed_max_size=8,
            sample_size=8,
        ),
        scheduler=CogVideoXDDIMScheduler(),
    )


@family("CogView4Pipeline", {"max_sequence_length": 16})
def cogview4() -> DiffusionPipeline:
    return CogView4Pipeline(
        tokenizer=framed(byte_tokenizer(64)),
        text_encoder=GlmModel(GlmConfig(**LANGUAGE)),
        vae=kl_vae(),
        transformer=CogView4Transformer2DModel(
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            out_channels=4,
            text_embed_dim=DIM,
            time_embed_dim=8,
            condition_dim=4,
        ),
        scheduler=FLOW(
            base_shift=0.25,
            max_shift=0.75,
            base_image_seq_len=256,
            use_dynamic_shifting=True,
            time_shift_type="linear",
        ),
    )
