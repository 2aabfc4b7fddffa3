"""Put the trained parts together: the folder of a QwenImagePipeline, with the defaults of CogGuidedPipeline beside
it. Transformer and VAE are compressed (`cogguided.pipelines.embedded.packed`), and the tokenizer is written without spaces.
"""

from __future__ import annotations

import json
from pathlib import Path

from common import WEIGHTS
from safetensors.torch import load_file, save_file

from cogguided.pipelines.embedded.packed import PLAIN, PackedTransformer, PackedVAE, pack

DEFAULTS = {
    "height": 64,
    "width": 64,
    "num_inference_steps": 20,
    "true_cfg_scale": 3.0,
    "negative_prompt": " ",
}
INDEX = {
    "_class_name": "QwenImagePipeline",
    "_diffusers_version": "0.36.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": [PackedTransformer.__module__, PackedTransformer.__name__],
    "vae": [PackedVAE.__module__, PackedVAE.__name__],
}
UNREAD = tuple(f"transformer_blocks.5.{part}." for part in ("attn.add_q_proj", "attn.to_add_out", "txt_mlp"))
"""What the last block makes of the text. Only the image goes on from there: these were never trained, and change none."""


def forget_unread(weights: Path) -> None:
    """Zero what nothing reads."""
    state = load_file(weights)
    for name in state:
        if name.startswith(UNREAD):
            state[name].zero_()
    save_file(state, weights, {"format": "pt"})


def compact(tokenizer: Path) -> None:
    """Write a tokenizer's file without indentation: less than half the size."""
    data = json.loads(tokenizer.read_text(encoding="utf-8"))
    tokenizer.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def export(folder: Path) -> None:
    """Compress what was trained since it was compressed last, and write what diffusers and we read first."""
    if (folder / "transformer" / PLAIN).is_file():
        forget_unread(folder / "transformer" / PLAIN)
    for part in ("transformer", "vae"):
        if (folder / part / PLAIN).is_file():
            pack(folder / part)
    compact(folder / "tokenizer" / "tokenizer.json")
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=1) + "\n")
    (folder / "cogguided.json").write_text(json.dumps({"version": 1, "call_defaults": DEFAULTS}, indent=1) + "\n")


def main() -> None:
    export(WEIGHTS)
    sizes = {path.relative_to(WEIGHTS): path.stat().st_size for path in sorted(WEIGHTS.rglob("*.safetensors*"))}
    for path, size in sizes.items():
        print(f"{size / 1e6:8.2f} MB  {path}")
    print(f"{sum(sizes.values()) / 1e6:8.2f} MB  in all")


if __name__ == "__main__":
    main()
