"""U-Nets: what has grown on Stable Diffusion 1, 2 and XL, on CLIP's texts, and Kolors, on ChatGLM's."""

import atexit
import io
import shutil
import tempfile
from pathlib import Path

import sentencepiece
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    KolorsPAGPipeline,
    KolorsPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    SemanticStableDiffusionPipeline,
    StableDiffusionPAGPipeline,
    StableDiffusionPipeline,
    StableDiffusionSAGPipeline,
    StableDiffusionXLPAGPipeline,
    StableUnCLIPPipeline,
)
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer
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


def chatglm() -> tuple[ChatGLMTokenizer, ChatGLMModel]:
    """Its tokenizer on a SentencePiece model of single letters, trained here, and a small one of its models."""
    letters = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"]), model_writer=letters,
        model_type="char", vocab_size=40, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)  # it is read again when the tokenizer is saved
    file = Path(folder) / "tokenizer.model"
    file.write_bytes(letters.getvalue())
    tokenizer = ChatGLMTokenizer(str(file))
    config = ChatGLMConfig(
        num_layers=2, padded_vocab_size=64, hidden_size=DIM, ffn_hidden_size=2 * DIM, kv_channels=8,
        num_attention_heads=2, multi_query_attention=True, multi_query_group_num=1, seq_length=64, add_qkv_bias=True,
        hidden_dropout=0.0, attention_dropout=0.0, original_rope=True,
    )  # fmt: skip
    model = ChatGLMModel(config)
    for parameter in model.parameters():  # it leaves them as the memory was
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.1)
    return tokenizer, model


def kolors_parts() -> dict[str, object]:
    tokenizer, model = chatglm()
    return {
        "vae": kl_vae(),
        "text_encoder": model,
        "tokenizer": tokenizer,
        "unet": unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + DIM,
            encoder_hid_dim=DIM,
            encoder_hid_dim_type="text_proj",
        ),
        "scheduler": ddim(),
    }


@family("KolorsPipeline", {"max_sequence_length": 16})
def kolors() -> DiffusionPipeline:
    return KolorsPipeline(**kolors_parts())


NO_LORA = {"LoRA out": "its own LoRA loader asks for a text encoder that it does not have"}


@family("KolorsPAGPipeline", {"max_sequence_length": 16}, skipped=NO_LORA)
def kolors_pag() -> DiffusionPipeline:
    return KolorsPAGPipeline(**kolors_parts())


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
