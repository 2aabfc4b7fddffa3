"""U-Nets on CLIP texts: what has grown on Stable Diffusion 1, 2 and XL."""

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    SemanticStableDiffusionPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    StableDiffusionSAGPipeline,
    StableDiffusionXLPAGPipeline,
    StableUnCLIPPipeline,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from tiny_diffusion import sd15, sdxl
from tiny_parts import DIM, byte_tokenizer, clip_config, ddim, kl_vae, unet
from transformers import CLIPTextModel

from .registry import family
from .stages import LENGTH, REFUSED, prior, text


def without_images() -> dict[str, object]:
    return {name: part for name, part in sd15().components.items() if name != "image_encoder"}


@family("StableDiffusionPipeline 2")
def sd2() -> DiffusionPipeline:
    pipe = sd15()
    parts = {**pipe.components, "unet": unet(attention_head_dim=(2, 4), use_linear_projection=True)}
    parts["scheduler"] = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)


@family("StableDiffusionPAGPipeline")
def pag() -> DiffusionPipeline:
    return StableDiffusionPAGPipeline(**sd15().components, requires_safety_checker=False)


@family("StableDiffusionSAGPipeline")
def sag() -> DiffusionPipeline:
    return StableDiffusionSAGPipeline(**sd15().components, requires_safety_checker=False)


@family("SemanticStableDiffusionPipeline")
def semantic() -> DiffusionPipeline:
    return SemanticStableDiffusionPipeline(**without_images(), requires_safety_checker=False)


@family("LatentConsistencyModelPipeline", quick=True)
def lcm() -> DiffusionPipeline:
    parts = {**sd15().components, "unet": unet(time_cond_proj_dim=8)}
    parts["scheduler"] = LCMScheduler.from_config(parts["scheduler"].config)
    return LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)


@family("StableDiffusionXLPAGPipeline")
def sdxl_pag() -> DiffusionPipeline:
    return StableDiffusionXLPAGPipeline(**sdxl().components, add_watermarker=False)


@family("StableUnCLIPPipeline", {"prior_num_inference_steps": 2}, REFUSED)
def stable_unclip() -> DiffusionPipeline:
    """An image embedding is drawn first, by a prior of its own, and is drawn from then."""
    return StableUnCLIPPipeline(
        prior_tokenizer=byte_tokenizer(LENGTH),
        prior_text_encoder=text(),
        prior=prior(),
        prior_scheduler=DDPMScheduler(
            variance_type="fixed_small_log",
            prediction_type="sample",
            clip_sample_range=5.0,
            beta_schedule="squaredcos_cap_v2",
        ),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=DIM),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=byte_tokenizer(),
        text_encoder=CLIPTextModel(clip_config()),
        unet=unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * DIM),
        scheduler=ddim(),
        vae=kl_vae(),
    )
