"""Which judge to take for what: the table of docs/judges.md, from the facts in scorers/judges.py and sizes counted here.

Sizes are counted on torch's meta device, from configurations that are written down here, and beside them stands what
published listings of files say; nothing is downloaded.

    python benchmarks/judges_page.py            # writes the table into docs/judges.md
    python benchmarks/judges_page.py --count    # counts the parameters again, and compares
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from cogguided.scorers.judges import JUDGES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "judges.md"
START, END = "<!-- made by benchmarks/judges_page.py -->\n", "<!-- end -->\n"

USE = {
    "pickscore": "choosing among images of one prompt as people would; quick, has gradients",
    "hpsv2": "choosing among images of one prompt by other people's choices: a second opinion to hold out",
    "hpsv3": "choosing among images of one prompt; newer, large, tells how sure it is",
    "imagereward": "choosing among images of one prompt, as experts did; small",
    "laion_aesthetic": "beauty without a prompt; the smallest that people taught",
    "clip_iqa": "photographic quality, or any pair of opposites, for next to nothing",
    "siglip": "whether the prompt is shown at all",
    "vqascore": "whether a compound prompt (who does what to whom, how many) is shown",
    "qalign": "technical quality of a picture without a prompt",
    "unified_reward": "a rating in words and numbers, on one axis or the mean",
    "pyiqa": "any other published measure of image quality (MUSIQ, TOPIQ, NIMA, ...)",
}
PARAMETERS: dict[str, float] = {
    "pickscore": 986.1,
    "hpsv2": 986.1,
    "laion_aesthetic": 427.6,
    "clip_iqa": 102.0,
    "siglip": 1136.0,
    "imagereward": 446.2,
    "hpsv3": 8291.4,
    "vqascore": 8292.2,
    "qalign": 893.7,
    "unified_reward": 8767.1,
}
"""Millions, by `--count`; pyiqa's metrics differ."""

PUBLISHED: dict[str, tuple[str, int]] = {
    "pickscore": ("3.94 GB", 4),  # yuvalkirstain/PickScore_v1 at dc2ed37: model.safetensors
    "siglip": ("4.54 GB", 4),  # google/siglip2-so400m-patch14-384: model.safetensors
    "laion_aesthetic": ("1.71 GB", 4),  # openai/clip-vit-large-patch14 as copied by InvokeAI: model.safetensors
    "imagereward": ("1.79 GB", 4),  # THUDM/ImageReward at 7a9e21f: ImageReward.pt, 1,786,880,927 bytes
    "vqascore": ("16.58 GB", 2),  # Qwen2.5-VL-7B, four parts, in di-zhang-fdu/Qwen2.5-VL-7B-R1-Distillation
    "hpsv3": ("16.57 GB", 2),  # its base: Qwen/Qwen2-VL-7B-Instruct at a7a06a1, five parts
}
"""Size of the weights' files as published and bytes a number, read from stored pages of these repositories, not fetched.

HPS v2: its network is the ViT-H-14 of LAION, whose float32 file has 3,944,552,236 bytes (GHyeok/CLIP-ViT-H-14-laion2B-s32B-b79K
at 635b634); HPS_v2.pt itself, 8,063,374,362 bytes (xswu/HPSv2 at 75c46db), holds more than the weights. UnifiedReward's
base has the sizes of Qwen3-VL-8B (config.json of Steinate/Cortex). Of Q-SiT nothing was found; its parts are as in
llava-hf/llava-interleave-qwen-0.5b-hf (pictures) and Qwen/Qwen2-0.5B (text).
"""

QWEN_TEXT = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
QWEN_TEXT |= {"num_key_value_heads": 4, "vocab_size": 152064}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}


def _open_clip(name: str) -> Any:
    import open_clip

    config = open_clip.get_model_config(name)
    return open_clip.CLIP(
        **{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}, quick_gelu=config.get("quick_gelu", False)
    )


def _mllm(kind: str, **config: Any) -> Any:
    import transformers as tf

    return tf.AutoModelForImageTextToText.from_config(tf.AutoConfig.for_model(kind, **config))


def _siglip() -> Any:
    import transformers as tf

    vision = {**SIGLIP, "image_size": 384, "patch_size": 14}
    text = {**SIGLIP, "vocab_size": 256000, "max_position_embeddings": 64, "projection_size": 1152}
    return tf.SiglipModel(tf.SiglipConfig(vision_config=vision, text_config=text))


def _imagereward() -> Any:
    import torch
    import transformers as tf

    # BLIP's large picture encoder and BERT base with cross-attention, and the head of five layers
    vision = tf.BlipVisionModel(
        tf.BlipVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
                            image_size=224, patch_size=16)
    )  # fmt: skip
    text = tf.BertModel(
        tf.BertConfig(vocab_size=30524, is_decoder=True, add_cross_attention=True, encoder_hidden_size=1024),
        add_pooling_layer=False,
    )
    for layer in text.encoder.layer:
        for name in ("key", "value"):
            setattr(layer.crossattention.self, name, torch.nn.Linear(1024, 768))
    widths = (768, 1024, 128, 64, 16, 1)
    head = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
    return torch.nn.ModuleList([vision, text, *head])


BUILDERS: dict[str, Callable[[], Any]] = {
    "pickscore": lambda: _open_clip("ViT-H-14"),
    "hpsv2": lambda: _open_clip("ViT-H-14"),
    "laion_aesthetic": lambda: _open_clip("ViT-L-14"),
    "clip_iqa": lambda: _open_clip("RN50-quickgelu"),
    "siglip": _siglip,
    "imagereward": _imagereward,
    "hpsv3": lambda: _mllm("qwen2_vl", text_config=QWEN_TEXT, vision_config={"hidden_size": 3584}),
    "vqascore": lambda: _mllm("qwen2_5_vl", text_config=QWEN_TEXT, vision_config={
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
    }),
    "qalign": lambda: _mllm("llava_onevision", vision_config={
        "model_type": "siglip_vision_model", **SIGLIP, "num_hidden_layers": 26, "image_size": 384, "patch_size": 14,
        "vision_use_head": False,
    }, text_config={
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 152000, "tie_word_embeddings": True,
    }, tie_word_embeddings=True),
    "unified_reward": lambda: _mllm("qwen3_vl", text_config={
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 151936, "head_dim": 128,
    }, vision_config={
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
        "deepstack_visual_indexes": [8, 16, 24],
    }),
}  # fmt: skip
"""The network of each judge, by its configuration as far as it is known here."""


def count(name: str) -> float:
    """Millions of parameters."""
    import torch

    with torch.device("meta"):
        model = BUILDERS[name]()
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def table() -> str:
    """The judges, by what they are for."""
    lines = [
        "| judge | take it for | taught by | licence | commercial use | parameters | weights: 16 bit, 32 bit | published file |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for info, _ in JUDGES:
        millions = PARAMETERS.get(info.name)
        size = "differs" if millions is None else f"{millions:,.0f} M"
        memory = "differs" if millions is None else f"{millions * 2 / 1e3:.1f} GB, {millions * 4 / 1e3:.1f} GB"
        taught = {"human": "people's judgements", "proxy": "no ratings"}.get(info.grounding, "differs")
        file, width = PUBLISHED.get(info.name, ("", 0))
        published = f"{file}, {8 * width} bit" if file else "not looked at" if millions is None else "not found"
        licence, commercial = info.licence or "not stated", info.commercial or "ask"
        lines.append(
            f"| `{info.name}` | {USE[info.name]} | {taught} | {licence} | {commercial} | {size} | {memory} | {published} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true", help="count the parameters again")
    if parser.parse_args().count:
        for name in BUILDERS:
            print(f'    "{name}": {count(name):.1f},' + ("" if PARAMETERS.get(name) == round(count(name), 1) else "  # new"))
        return
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}{table()}{END}{after}", "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
