"""The models of `full_size.py`: published shapes, random weights made on the device, no network.

Shapes are those of the public models' own configuration files, written out here. Tokenizers are made on the spot: byte-level
BPE that knows the questions' and templates' words, as the real ones do, with each digit a token of its own (Qwen's rule), so
prompts have about as many tokens as with the real ones. `tiny=True` gives the same classes at a few thousand weights.

Random weights cost what real ones cost, with one exception: how many answer tokens the judge's expected read-out follows
depends on how decided the judge is. `decide` therefore writes one habit into an otherwise random judge: "label, space, 0.ddd",
so that it answers in the asked form, undecided among 27 numbers; without it the judge is undecided among all words there are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import open_clip
import torch
import transformers as tf
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cogguided.scorers import DIMENSIONS
from cogguided.scorers.mllm import MLLMScorer
from cogguided.scorers.mllm.checkpoints import ScorerFacts
from cogguided.scorers.mllm.options import ReadOptions
from cogguided.scorers.models.clip import CLIPScorer

JUDGE_TEXT = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064,
}  # fmt: skip
JUDGE_VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112, "patch_size": 14, "spatial_merge_size": 2,
}  # fmt: skip
TINY_TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2048,
}  # fmt: skip
TINY_VISION = {
    "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64,
    "fullatt_block_indexes": [1], "window_size": 56, "patch_size": 14, "spatial_merge_size": 2,
}  # fmt: skip
SDXL_UNET = {
    "in_channels": 4, "out_channels": 4, "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048,
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
TINY_UNET = {
    **SDXL_UNET, "sample_size": 16, "block_out_channels": (8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4,
    "transformer_layers_per_block": (1, 1, 1), "attention_head_dim": (2, 2, 2), "cross_attention_dim": 32,
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 16,
}  # fmt: skip
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
          "projection_dim": 768}  # fmt: skip
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
          "projection_dim": 1280, "hidden_act": "gelu"}  # fmt: skip
TINY_CLIP = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "projection_dim": 16}  # fmt: skip
T5_XXL = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
          "feed_forward_proj": "gated-gelu"}  # fmt: skip
TINY_T5 = {"vocab_size": 2048, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
KL_VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "sample_size": 1024,
}  # fmt: skip
TINY_VAE = {
    "block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1, "sample_size": 32, "norm_num_groups": 4,
}  # fmt: skip
FLUX_TINY = {"in_channels": 16, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2,
             "joint_attention_dim": 16, "pooled_projection_dim": 16, "axes_dims_rope": (2, 2, 4)}  # fmt: skip
QWEN_IMAGE_TINY = {"in_channels": 16, "out_channels": 4, "num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2,
                   "joint_attention_dim": 64, "axes_dims_rope": (4, 6, 6)}  # fmt: skip
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_IMAGE_WORDS = (
    "system user assistant Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
    "of the objects and background:"
)
PROMPTS = (
    "a lighthouse at dusk", "a face in the crowd", "an old car by the sea", "a bowl of fruit on a table",
    "two dogs in the snow", "a street market at night",
)  # fmt: skip


@contextmanager
def made_on(device: str, dtype: torch.dtype, seed: int = 0) -> Iterator[None]:
    """Let modules be built where they are to run, in the type they are to have, seeded."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(seed)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def tokenizer(length: int = 2048, eos: str = "<|im_end|>") -> tf.PreTrainedTokenizerFast:
    """Byte-level BPE, trained on what it will be asked."""
    texts = [dim.question for dim in DIMENSIONS.values()] + [QWEN_IMAGE_WORDS, *PROMPTS]
    texts += [f" {label}" for dim in DIMENSIONS.values() for label in dim.labels] * 20
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(texts * 5, trainer)
    fast = tf.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=eos, pad_token="<|endoftext|>", bos_token="<|im_start|>", model_max_length=length
    )
    fast.chat_template = TEMPLATE
    return fast


def mllm_config(tok: Any, tiny: bool) -> tf.Qwen2_5_VLConfig:
    ids = {
        "image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
    }  # fmt: skip
    text = dict(TINY_TEXT if tiny else JUDGE_TEXT)
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    sections = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return tf.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=TINY_VISION if tiny else JUDGE_VISION,
        tie_word_embeddings=False,
        **{name: tok.convert_tokens_to_ids(token) for name, token in ids.items()},
    )


def mllm(device: str, dtype: torch.dtype, tiny: bool, seed: int = 0) -> tuple[Any, Any]:
    """Qwen2.5-VL-7B's model and a processor for it."""
    tok = tokenizer()
    with made_on(device, dtype, seed):
        model = tf.Qwen2_5_VLForConditionalGeneration(mllm_config(tok, tiny)).eval().requires_grad_(False)
    most = 4 * 56**2 if tiny else 12_845_056
    images = tf.Qwen2VLImageProcessor(size={"shortest_edge": 56**2, "longest_edge": most}, patch_size=14, merge_size=2)
    model.generation_config.eos_token_id = [tok.convert_tokens_to_ids("<|im_end|>")]
    return model, tf.Qwen2_5_VLProcessor(images, tok, tf.Qwen2VLVideoProcessor(), TEMPLATE)


@torch.no_grad()
def decide(model: Any, processor: Any) -> None:
    """Write the habit of the asked form of answer into a random judge, as a table of next words.

    Matrices are scaled by their width, queries and keys up so that attention picks, what layers add down so that the last
    hidden state still points to the last token: the picture then moves the scores, and the head's row of a word gets a part
    along each token that it may follow. Numbers are 0.ddd with digits of classes of their own for each place, so that the
    last token alone says what may come.
    """
    tok = processor.tokenizer
    embed, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    gains = {"q_proj": 2.0, "k_proj": 2.0, "o_proj": 0.3, "down_proj": 0.1}
    for name, weight in model.model.language_model.named_parameters():
        if weight.ndim == 2:
            gain = next((gain for part, gain in gains.items() if part in name), 1.0)
            weight.normal_(std=gain if weight is embed else gain * weight.shape[1] ** -0.5)
    head.normal_(std=head.shape[1] ** -0.5)
    follows: dict[int, set[int]] = {}
    start = tok("assistant\n", add_special_tokens=False)["input_ids"][-1]
    end = tok.convert_tokens_to_ids("<|im_end|>")
    labels = sorted({label for dim in DIMENSIONS.values() for label in dim.labels})
    for label, *digits in itertools.product(labels, "123", "456", "789"):
        said = tok(f"{label} 0.{''.join(digits)}", add_special_tokens=False)["input_ids"]
        for before, after in itertools.pairwise([start, *said, end]):
            follows.setdefault(before, set()).add(after)
    width = embed.shape[1]
    for before, after in follows.items():
        direction = embed[before].float() / embed[before].float().norm()
        for token in after:
            logit = 40.0 - math.log(len(after))
            head[token] += (direction * logit / math.sqrt(width)).to(head.dtype)


def judge(device: str, dtype: torch.dtype, tiny: bool, decided: bool = True, batch_size: int = 16) -> MLLMScorer:
    model, processor = mllm(device, dtype, tiny)
    if decided:
        decide(model, processor)
    options = ReadOptions(batch_size=batch_size)
    return MLLMScorer.from_loaded(model, processor, ScorerFacts(name="random 7B"), options=options)


def clip(device: str, tiny: bool) -> CLIPScorer:
    """OpenCLIP ViT-L-14, the judge of faithfulness."""
    if tiny:
        shape = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
                 "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}  # fmt: skip
        torch.manual_seed(0)
        model = open_clip.CLIP(**shape)
        preprocess = open_clip.image_transform(32, is_train=False)
    else:
        model, _, preprocess = open_clip.create_model_and_transforms("ViT-L-14", pretrained=None)
    return CLIPScorer(model.to(device), preprocess, open_clip.get_tokenizer("ViT-L-14"))


def clip_text(kind: Any, shape: dict[str, Any], vocabulary: int) -> Any:
    config = tf.CLIPTextConfig(
        vocab_size=vocabulary, max_position_embeddings=77, pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape
    )
    return kind(config)


def sdxl(device: str, dtype: torch.dtype, tiny: bool) -> DiffusionPipeline:
    first, second = (TINY_CLIP, TINY_CLIP) if tiny else (CLIP_L, CLIP_G)
    vocabulary = 2048 if tiny else 49408
    with made_on(device, dtype):
        parts = {
            "vae": AutoencoderKL(**(TINY_VAE if tiny else KL_VAE), latent_channels=4, scaling_factor=0.13025),
            "text_encoder": clip_text(tf.CLIPTextModel, first, vocabulary),
            "text_encoder_2": clip_text(tf.CLIPTextModelWithProjection, second, vocabulary),
            "unet": UNet2DConditionModel(**(TINY_UNET if tiny else SDXL_UNET)),
        }
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    return finished(
        StableDiffusionXLPipeline(
            **parts, tokenizer=tokenizer(77), tokenizer_2=tokenizer(77), scheduler=scheduler, add_watermarker=False
        )
    )


def flux(device: str, dtype: torch.dtype, tiny: bool) -> DiffusionPipeline:
    vae = {**(TINY_VAE if tiny else KL_VAE), "latent_channels": 4 if tiny else 16, "use_quant_conv": False}
    with made_on(device, dtype):
        parts = {
            "vae": AutoencoderKL(**vae, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159),
            "text_encoder": clip_text(tf.CLIPTextModel, TINY_CLIP if tiny else CLIP_L, 2048 if tiny else 49408),
            "text_encoder_2": tf.T5EncoderModel(tf.T5Config(**(TINY_T5 if tiny else T5_XXL))),
            "transformer": FluxTransformer2DModel(guidance_embeds=True, **(FLUX_TINY if tiny else {})),
        }
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return finished(FluxPipeline(**parts, tokenizer=tokenizer(77), tokenizer_2=tokenizer(512), scheduler=scheduler))


def qwen_image(device: str, dtype: torch.dtype, tiny: bool, encoder: Any = None, generator_tiny: bool = False) -> DiffusionPipeline:
    """Qwen-Image; `encoder` takes the text encoder's place, `generator_tiny` keeps the text encoder's width alone."""
    tok = tokenizer()
    small = tiny or generator_tiny
    shape = {**QWEN_IMAGE_TINY, "joint_attention_dim": (TINY_TEXT if tiny else JUDGE_TEXT)["hidden_size"]} if small else {}
    tiny_vae = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [False],
                "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}  # fmt: skip
    with made_on(device, dtype):
        parts = {
            "vae": AutoencoderKLQwenImage(**(tiny_vae if small else {})),
            "transformer": QwenImageTransformer2DModel(**shape),
        }
    encoder = mllm(device, dtype, tiny, seed=1)[0] if encoder is None else encoder
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02,
        time_shift_type="exponential",
    )  # fmt: skip
    return finished(QwenImagePipeline(**parts, text_encoder=encoder, tokenizer=tok, scheduler=scheduler))


def finished(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """Ready to draw; denoisers' output layers, which start at zero, are drawn too."""
    pipe.set_progress_bar_config(disable=True)
    for name, module in pipe.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        module.eval().requires_grad_(False)
        if name in ("transformer", "unet"):
            for weight in module.parameters():
                if weight.ndim > 1 and not weight.any():
                    torch.nn.init.normal_(weight, std=0.02)
    return pipe
