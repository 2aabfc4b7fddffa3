"""Pipelines that draw in several stages, with a scheduler each, and kin of them: Kandinsky, unCLIP, Cascade."""

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DDPMWuerstchenScheduler,
    DiffusionPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    KandinskyCombinedPipeline,
    KandinskyV22CombinedPipeline,
    PriorTransformer,
    StableCascadeCombinedPipeline,
    StableCascadeUNet,
    UnCLIPPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from diffusers.pipelines.stable_cascade.pipeline_stable_cascade import PaellaVQModel
from tiny_parts import DIM, VOCAB, byte_tokenizer, clip_config, t5, unet
from transformers import (
    CLIPImageProcessor,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from .registry import LEFT_OUT, family, framed

LENGTH = 77
STAGES = "draws in several stages"
REFUSED = dict.fromkeys(("Halving", "Drafts", "fine-tuning", "LoRA out"), STAGES)


def text() -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(clip_config(max_position_embeddings=LENGTH))


def vision() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=DIM,
        intermediate_size=DIM,
        projection_dim=DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    return CLIPVisionModelWithProjection(config)


def prior() -> PriorTransformer:
    prior = PriorTransformer(num_attention_heads=2, attention_head_dim=8, embedding_dim=DIM, num_layers=1)
    prior.clip_std.data.fill_(1.0)
    return prior


def unclip_scheduler(**changes: object) -> UnCLIPScheduler:
    facts = {"variance_type": "fixed_small_log", "prediction_type": "sample", "clip_sample_range": 10.0}
    return UnCLIPScheduler(**{**facts, **changes})


def kandinsky_prior() -> dict[str, object]:
    return {
        "prior_prior": prior(),
        "prior_image_encoder": vision(),
        "prior_text_encoder": text(),
        "prior_tokenizer": byte_tokenizer(LENGTH),
        "prior_scheduler": unclip_scheduler(),
        "prior_image_processor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
    }


def movq() -> VQModel:
    return VQModel(
        block_out_channels=(32, 32),  # its norms have 32 groups
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )


def kandinsky_unet(**changes: object) -> UNet2DConditionModel:
    facts = {
        "out_channels": 8,  # mean and variance
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "resnet_time_scale_shift": "scale_shift",
        "encoder_hid_dim": DIM,
    }
    return unet(**{**facts, **changes})


def kandinsky_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def super_resolution() -> UNet2DModel:
    return UNet2DModel(
        sample_size=32,
        in_channels=6,
        out_channels=3,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("ResnetUpsampleBlock2D",) * 2,
    )


KANDINSKY = {"height": 64, "width": 64, "prior_num_inference_steps": 2}


@family("KandinskyCombinedPipeline", KANDINSKY, REFUSED)
def kandinsky21() -> DiffusionPipeline:
    config = MCLIPConfig(
        transformerDimSize=DIM,
        imageDimSize=DIM,
        hidden_size=DIM,
        intermediate_size=DIM,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=VOCAB,
        max_position_embeddings=LENGTH + 2,
        pad_token_id=0,
    )
    return KandinskyCombinedPipeline(
        text_encoder=MultilingualCLIP(config),
        tokenizer=framed(byte_tokenizer(LENGTH)),  # a mean over no tokens is not a number
        unet=kandinsky_unet(addition_embed_type="text_image", encoder_hid_dim_type="text_image_proj"),
        scheduler=kandinsky_scheduler(),
        movq=movq(),
        **kandinsky_prior(),
    )


@family("KandinskyV22CombinedPipeline", KANDINSKY, REFUSED, quick=True)
def kandinsky22() -> DiffusionPipeline:
    return KandinskyV22CombinedPipeline(
        unet=kandinsky_unet(addition_embed_type="image", encoder_hid_dim_type="image_proj"),
        scheduler=kandinsky_scheduler(),
        movq=movq(),
        **kandinsky_prior(),
    )


@family("Kandinsky3Pipeline")
def kandinsky3() -> DiffusionPipeline:
    """One stage."""
    tokenizer = byte_tokenizer(128)
    return Kandinsky3Pipeline(
        tokenizer=tokenizer,
        text_encoder=t5(),
        unet=Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(8, 16),
            cross_attention_dim=4,
            encoder_hid_dim=DIM,
        ),
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="squaredcos_cap_v2", clip_sample=True
        ),
        movq=movq(),
    )


UNCLIP = {
    **dict.fromkeys(("num_inference_steps", "height", "width"), LEFT_OUT),
    **dict.fromkeys(("prior_num_inference_steps", "decoder_num_inference_steps", "super_res_num_inference_steps"), 2),
}


@family("UnCLIPPipeline", UNCLIP, {**REFUSED, "save, load": "no class `UnCLIPTextProjModel`"})
def unclip() -> DiffusionPipeline:
    return UnCLIPPipeline(
        prior=prior(),
        decoder=kandinsky_unet(class_embed_type="identity", in_channels=3, out_channels=6, encoder_hid_dim=None),
        text_encoder=text(),
        tokenizer=byte_tokenizer(LENGTH),
        text_proj=UnCLIPTextProjModel(clip_embeddings_dim=DIM, time_embed_dim=32, cross_attention_dim=DIM),
        super_res_first=super_resolution(),
        super_res_last=super_resolution(),
        prior_scheduler=unclip_scheduler(),
        decoder_scheduler=unclip_scheduler(variance_type="learned_range", prediction_type="epsilon"),
        super_res_scheduler=unclip_scheduler(prediction_type="epsilon"),
    )


@family(
    "StableCascadeCombinedPipeline",
    {"height": 128, "width": 128, "prior_num_inference_steps": 2, "prior_guidance_scale": 4.0},
    {**REFUSED, "save, load": "no class `PaellaVQModel`"},  # nor does plain diffusers load what it saves
)
def cascade() -> DiffusionPipeline:
    attention = ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock")
    prior = StableCascadeUNet(
        conditioning_dim=DIM,
        block_out_channels=(DIM, DIM),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        down_blocks_repeat_mappers=(1, 1),
        up_blocks_repeat_mappers=(1, 1),
        block_types_per_layer=(attention, attention),
        clip_image_in_channels=DIM,
        clip_text_in_channels=DIM,
        clip_text_pooled_in_channels=DIM,
        switch_level=(False,),
    )
    decoder = StableCascadeUNet(
        in_channels=4,
        out_channels=4,
        patch_size=2,
        conditioning_dim=DIM,
        block_out_channels=(8, DIM),
        num_attention_heads=(-1, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        down_blocks_repeat_mappers=(1, 1),
        up_blocks_repeat_mappers=(1, 1),
        block_types_per_layer=(attention[:2], attention),
        switch_level=None,
        clip_text_pooled_in_channels=DIM,
        effnet_in_channels=16,
    )
    scheduler = DDPMWuerstchenScheduler()
    tokenizer, encoder = byte_tokenizer(LENGTH), text()
    return StableCascadeCombinedPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        decoder=decoder,
        scheduler=scheduler,
        vqgan=PaellaVQModel(bottleneck_blocks=1, num_vq_embeddings=2, embed_dim=DIM),
        prior_tokenizer=tokenizer,
        prior_text_encoder=encoder,
        prior_prior=prior,
        prior_scheduler=scheduler,
    )
