"""Put the trained parts together: a plain QwenImagePipeline folder, with the defaults of CogGuidedPipeline
beside it.
"""

from __future__ import annotations

import json

from common import WEIGHTS

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
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
}


def main() -> None:
    (WEIGHTS / "model_index.json").write_text(json.dumps(INDEX, indent=1) + "\n")
    (WEIGHTS / "cogguided.json").write_text(json.dumps({"version": 1, "call_defaults": DEFAULTS}, indent=1) + "\n")
    sizes = {path.relative_to(WEIGHTS): path.stat().st_size for path in sorted(WEIGHTS.rglob("*.safetensors"))}
    for path, size in sizes.items():
        print(f"{size / 1e6:8.2f} MB  {path}")
    print(f"{sum(sizes.values()) / 1e6:8.2f} MB  in all")


if __name__ == "__main__":
    main()
