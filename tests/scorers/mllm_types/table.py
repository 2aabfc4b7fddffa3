"""What each model type needs beyond the common small sizes, what is refused, and why some are not built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tiny_mllm import GROUPED_VOCAB

SIDE = 28
COMMON: dict[str, Any] = {
    "vocab_size": GROUPED_VOCAB,
    "vocab_size_per_layer_input": GROUPED_VOCAB,
    "hidden_size": 32,
    "d_model": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "layers": 2,
    "attention_heads": 4,
    "output_dim": 32,
    "downsample_hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 48,
    "ffn_dim": 48,
    "d_ff": 48,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "depth": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "out_hidden_size": 32,
    "image_size": SIDE,
    "patch_size": 14,
    "max_position_embeddings": 1024,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 64,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "shared_expert_intermediate_size": 48,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [1],
    "global_attn_indexes": [1],
    "num_query_tokens": 4,
    "mm_tokens_per_image": 4,
    "output_channels": 32,
    "downsample_channels": [32, 32],
    "mlp_dim": 48,
    "base_channels": 32,
    "projector_layers": 1,
    **dict.fromkeys(
        (
            "text_hidden_size", "adapter_in_dim", "adapter_out_dim", "adapter_input_size", "projection_dim",
            "projector_hidden_size", "projector_input_dim", "projector_output_dim", "vision_output_dim",
            "vision_hidden_size", "encoder_hidden_size", "projection_hidden_size", "word_embed_proj_dim",
            "patch_embed_hidden_size", "decoder_hidden_size",
        ),
        32,
    ),
    "alignment_intermediate_size": 64,
    "merged_hidden_size": 128,
    "unpadded_vocab_size": GROUPED_VOCAB,
}
"""Small values by the name of the field, wherever it stands."""


@dataclass(frozen=True)
class Type:
    """What one model type needs.

    Attributes:
        config: fields of the configuration, nested as it is.
        parts: classes of nested configurations that are absent by default.
        processor: class of the processor, where transformers' mapping names none.
        processing: arguments of the processor.
        images: arguments of the image processor.
        image: what stands for the image in the chat template; the processor's image token where empty.
        tokens: named tokens of the tokenizer; None for one that it must not have.
        ids: tokens by the name of the configuration's field.
        special: further special tokens.
        tokenizer: makes another tokenizer of it.
    """

    config: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    processor: str = ""
    processing: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=dict)
    image: str = ""
    tokens: dict[str, str | None] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    special: tuple[str, ...] = ()
    tokenizer: Callable[[Any], Any] | None = None


CLASSES: dict[str, dict[str, str]] = {
    "nemotron_h_omni": {
        "image_processor": "NemotronH_Omni_Reasoning_V3ImageProcessor",
        "video_processor": "NemotronH_Omni_Reasoning_V3VideoProcessor",
        "feature_extractor": "ParakeetFeatureExtractor",
    },
    "glm4v_moe": {"image_processor": "Glm4vImageProcessor", "video_processor": "Glm4vVideoProcessor"},
    "glm_ocr": {"image_processor": "Glm46VImageProcessor", "video_processor": "Glm46VVideoProcessor"},
    "qwen3_vl_moe": {"image_processor": "Qwen2VLImageProcessor"},
    "qwen2_5_omni_thinker": {
        "image_processor": "Qwen2VLImageProcessor",
        "video_processor": "Qwen2VLVideoProcessor",
        "feature_extractor": "WhisperFeatureExtractor",
    },
    "qwen3_omni_moe_thinker": {
        "image_processor": "Qwen2VLImageProcessor",
        "video_processor": "Qwen2VLVideoProcessor",
        "feature_extractor": "WhisperFeatureExtractor",
    },
}
"""Parts of processors that transformers' mappings do not name for a type: those of its published checkpoints."""

_PIXTRAL: dict[str, Any] = {
    "config": {"vision_config": {"image_size": 112, "patch_size": 14}},
    "images": {"size": {"longest_edge": 56}, "patch_size": {"height": 14, "width": 14}},
    "processing": {"spatial_merge_size": 2},
}
_SIGLIP: dict[str, Any] = {"vision_config": {"image_size": 28, "patch_size": 14}}
_MLA: dict[str, Any] = {"text_config": {"num_key_value_heads": 4, "head_dim": 8}}
_MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_QUERIES: dict[str, Any] = {
    "processing": {"num_query_tokens": 4},
    "tokens": {"image_token": None},
    "ids": {"image": "<image>"},
    "image": " ",
}
_SOUND: dict[str, str | None] = {name: f"<{name}>" for name in ("audio_token", "boa_token", "eoa_token")}
_SIDE_32 = {"height": 32, "width": 32}
TYPES: dict[str, Type] = {
    "aria": Type(
        {"projector_patch_to_query_dict": {196: 4}, "vision_config": {"image_size": 980, "patch_size": 70}},
        processing={"size_conversion": {980: 4}},
    ),
    "aya_vision": Type(
        {**_SIGLIP, "downsample_factor": 2},
        processing={"img_size": 28, "downsample_factor": 2},
        ids={"image": "<|IMG_PATCH|>"},
    ),
    "blip-2": Type(**_QUERIES),
    "cohere2_vision": Type(
        {"vision_config": {"image_size": 4, "patch_size": 1}, "downsample_factor": 2},
        images={"size": {"height": 4, "width": 4}, "patch_size": 2},
        image="<image_token>",
    ),
    "cohere_compass": Type(
        {"text_config": {"rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), _MROPE)}},
        tokens={"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
    ),
    "deepseek_vl": Type(_SIGLIP, processing={"num_image_tokens": 4}),
    "deepseek_vl_hybrid": Type(
        {
            "vision_config": {"image_size": 64, "patch_size": 16},
            "high_res_vision_config": {"image_size": 256, "patch_size": 16, "window_size": 7},
        },
        images={"size": {"height": 64, "width": 64}, "high_res_size": {"height": 256, "width": 256}},
        processing={"num_image_tokens": 16},
    ),
    "florence2": Type(
        {
            "vision_config": {
                "depths": [1, 1], "embed_dim": [16, 32], "num_heads": [2, 2], "num_groups": [2, 2],
                "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
                "patch_prenorm": [False, True], "window_size": 4,
                "projection_dim": 32, "max_position_embeddings": 16,
            },
            "text_config": {"decoder_start_token_id": 2},
        },
        images={"size": _SIDE_32, "crop_size": _SIDE_32, "image_seq_length": 17},
        image=" ",
    ),
    "gemma4": Type(parts={"vision_config": "Gemma4VisionConfig"}, tokens=_SOUND),
    "gemma4_unified": Type(parts={"vision_config": "Gemma4UnifiedVisionConfig"}, tokens=_SOUND),
    "glm_ocr": Type(processor="Glm46VProcessor"),
    "glmga": Type(processor="Glm46VProcessor"),
    "granite_docling": Type(
        {"vision_config": {"image_size": 56, "patch_size": 14}},
        images={"size": {"height": 56, "width": 56}},
        processing={"image_seq_len": 1},
    ),
    "instructblip": Type(**_QUERIES),
    "janus": Type(
        {"vision_config": {"image_size": 28, "patch_size": 14, "num_image_tokens": 4}},
        processing={"num_image_tokens": 4},
    ),
    "kimi_k25": Type(_MLA),
    "lighton_ocr": Type(**_PIXTRAL),
    "mistral3": Type(**_PIXTRAL),
    "mistral_large4": Type(**{**_PIXTRAL, "config": {**_PIXTRAL["config"], **_MLA}}),
    "llama4": Type(
        {
            "vision_config": {
                "image_size": 28, "patch_size": 14, "intermediate_size": 128,
                "projector_input_dim": 32, "projector_output_dim": 32, "vision_output_dim": 32,
            },
            "text_config": {"intermediate_size_mlp": 48, "attention_chunk_size": 512},
        },
        images={"max_patches": 1},
        image="<|image|>",
        ids={"image": "<|patch|>"},
    ),
    "deepseek_ocr2": Type(
        {
            "vision_config": {"sam_config": {"image_size": 96, "patch_size": 16, "window_size": 4}},
            "text_config": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2},
        },
        images={"size": {"height": 96, "width": 96}, "tile_size": 96, "max_patches": 2},
        processing={"patch_size": 2},  # the model has 12 x 12 queries, whatever the size
    ),
    "dots3_note": Type(
        {
            "text_config": {
                "num_key_value_heads": 4, "head_dim": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4,
                "swa_q_lora_rank": 16, "swa_kv_lora_rank": 16, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8,
                "swa_v_head_dim": 8, "shared_experts_intermediate_size": 48,
            },
            "vision_config": {"mlp_layer_types": ["dense", "dense"]},
        },
        images={"temporal_patch_size": 1},
    ),
    "glm5_next": Type(
        {
            "text_config": {
                "num_key_value_heads": 4, "qk_rope_head_dim": 0, "linear_head_dim": 8, "linear_num_heads": 4,
                "indexer_types": ["full", "full"],
            },
        },
    ),
    "got_ocr2": Type(  # its processor counts on 256 tokens an image
        {"vision_config": {"image_size": 256, "patch_size": 4, "window_size": 8, "global_attn_indexes": []}},
        images={"size": {"height": 256, "width": 256}},
    ),
    "granite4_vision": Type(
        {
            "vision_config": {"image_size": 112, "patch_size": 14, "hidden_size": 64},
            "qformer_config": {"hidden_size": 64, "encoder_hidden_size": 64, "num_attention_heads": 1},
            "downsample_rate": "4/8", "deepstack_layer_map": [[-1, 0]], "spatial_target_layers": [0, 1, 0, 1],
            "image_grid_pinpoints": [[112, 112], [112, 224], [224, 112]],
        },
        images={
            "size": {"shortest_edge": 112}, "crop_size": {"height": 112, "width": 112},
            "image_grid_pinpoints": [[112, 112], [112, 224], [224, 112]],
        },
        processing={"downsample_rate": "4/8"},
    ),
    "inkling_mm_model": Type({"vision_config": {"patch_size": 4}}, images={"size": {"height": 4, "width": 4}}),
    "kosmos-2.5": Type(
        {
            "text_config": {"embed_dim": 32}, "vision_config": {"patch_embed_hidden_size": 768},
            "latent_query_num": 4,
        },
        processor="Kosmos2_5Processor",
        images={"max_patches": 16},
        processing={"num_image_tokens": 4},
        image=" ",
    ),
    "minimax_m3_vl": Type(
        special=("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>["),
        ids={"image": "]<]image[>[", "video": "]<]video[>["},
        image="]<]image[>[",
    ),
    "molmo2": Type(
        {
            "vision_config": {"image_size": [56, 56], "num_position_embeddings": 16},
            "adapter_config": {"vision_feature_layer": [-1, -2]},
        },
        images={"size": {"height": 56, "width": 56}, "overlap_margins": [1, 1], "max_crops": 2},
        ids={
            "image_patch": "<im_patch>", "image_start": "<im_start>", "image_end": "<im_end>",
            "low_res_image_start": "<low_res_im_start>", "frame_start": "<frame_start>", "frame_end": "<frame_end>",
        },
    ),
    "muse_spark": Type(
        {
            "text_config": {"num_attention_heads": 4, "moe_hidden_size": 32},
            "audio_config": {"out_hidden_size": 32, "num_hidden_layers": 4, "hidden_sizes": [8, 8, 8, 8]},
            "out_hidden_size": 128,
        },
    ),
    "nemotron_h_omni": Type(
        {"vision_config": {"video_temporal_patch_size": 2}}, images={"min_num_patches": 4, "max_num_patches": 16}
    ),
    "qwen4_exp": Type(
        {
            "text_config": {
                "hc_lowrank": 8, "layer_types": ["linear_attention", "indexed_attention"], "indexer_n_heads": 2,
                "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 64, "indexer_compress_ratio": 4,
            },
        },
    ),
    "llava_next": Type({"image_grid_pinpoints": [[28, 28], [28, 56], [56, 28]]}),
    "llava_next_video": Type({"image_grid_pinpoints": [[28, 28], [28, 56], [56, 28]]}),
    "muse_glimmer": Type({"out_hidden_size": 128}),
    "ovis2": Type(
        _SIGLIP,
        processing={"image_seq_length": 4},
        special=("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"),
        ids={"image": "<IMG_ATOM>"},
    ),
    "paligemma": Type(_SIGLIP, tokens={"image_token": "<image>"}, images={"image_seq_length": 4}),
    "qianfan_ocr": Type(image="<image>", processing={"image_seq_length": 1}),
    "t5gemma2": Type(image="<boi_token>", processing={"image_seq_length": 4}, ids={"image": "<image_token>"}),
    "vipllava": Type({"vision_feature_layers": [-2, -1]}),
    "glm4v_moe": Type({"text_config": {"head_dim": 16}}),
    "paddleocr_vl": Type({"text_config": {"rope_parameters": _MROPE}}),
    "step3p7": Type(
        {"vision_config": {"image_size": 112, "patch_size": 14}, "text_config": {"sliding_window": 16}},
        images={"size": {"height": 112, "width": 112}, "patch_size": 56},
    ),
    "qwen2_5_omni_thinker": Type(processor="Qwen2_5OmniProcessor", ids={"vision_start": "<vision_bos_token>"}),
    "qwen3_omni_moe_thinker": Type(processor="Qwen3OmniMoeProcessor", ids={"vision_start": "<vision_bos_token>"}),
    "cosmos3_omni": Type(processor="Qwen3VLProcessor"),
    "hunyuan_vl": Type(
        {"text_config": {"rope_parameters": _MROPE, "head_dim": 8}},
        image="<image_start_token><image_token><image_end_token>",
    ),
    "hy_v4_vl": Type({"text_config": {"num_key_value_heads": 4}}),
    "perception_lm": Type(
        {
            "vision_config": {
                "architecture": "vit_pe_core_tiny_patch16_384",
                "model_args": {
                    "embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": [32, 32], "ref_feat_shape": [2, 2],
                },
            },
        },
        images={"tile_size": 32},
        processing={"patch_size": 16, "pooling_ratio": 1},
    ),
    "pp_chart2table": Type(image="<imgpad>", special=("<imgpad>",), ids={"image": "<imgpad>"}),
    "idefics": Type(
        tokens={"image_token": "<image>"}, image="<fake_token_around_image><image><fake_token_around_image>"
    ),
}

REFUSED: dict[str, tuple[str, str]] = {
    "evolla": ("loads", "safetensors"),
    "instructblipvideo": ("loads", "cannot take one picture"),
    "llama4": ("loads", "image_outputs"),
    "pi0": ("loads", "'state'"),
    "pix2struct": ("loads", "takes pictures alone"),
    "pp_formulanet": ("loads", "takes pictures alone"),
    "shieldgemma2": ("loads", "weights are missing"),
    "idefics2": ("gradient", "no gradient to the pixels"),
    "video_llava": ("gradient", "no gradient to the pixels"),
}
"""What a type is refused, and a part of the sentence that says why."""

NO_QUESTION = ("evolla", "instructblipvideo", "pi0", "pix2struct", "pp_formulanet")
"""Types that take no picture with a question: proteins, videos, a robot's state, pictures alone."""

_CODES = "its pictures are tokens of a codebook, whose vocabulary comes with the published tokenizer"
UNBUILT: dict[str, str] = {
    "apertus1p5": _CODES,
    "chameleon": _CODES,
    "emu3": _CODES,
    "diffusion_gemma": "writes by diffusion, not from left to right; the mapping names no image processor",
    "ernie4_5_vl_moe": "its video processor wants a font file that comes with the checkpoint",
    "fast_vlm": "its vision tower is a timm model that cannot be made small from its configuration",
    "fuyu": "its processor puts the picture before the text itself, around a template",
    "gemma3n": "its vision tower is a timm model that cannot be made small from its configuration",
    "kosmos-2": "its processor takes one text for all pictures, and token ids by place",
    "mistral4": "a text model: transformers has no processor of pictures for it",
    "udop": "reads documents by Tesseract",
    "vision-encoder-decoder": "a pair of any two models: transformers has no processor for it",
}
"""Types that are not built here, and why."""
