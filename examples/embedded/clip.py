"""Train the small open_clip model that tells how faithful a picture is to its prompt."""

from __future__ import annotations

import argparse
import json
import random

import torch
from base_mllm import SIZE, known
from captions import caption
from common import CACHE, WEIGHTS, train
from data import concepts, fetch, pictures
from open_clip import get_tokenizer
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity, interpolate
from transformers import AutoTokenizer

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def settings(tokenizer: object) -> dict:
    vision = {"image_size": SIZE, "layers": 4, "width": 192, "head_width": 32, "patch_size": 16}
    text = {
        "context_length": 24, "vocab_size": len(tokenizer), "width": 160, "heads": 5, "layers": 3,
        "hf_tokenizer_name": "tokenizer", "tokenizer_kwargs": {"subfolder": "../tokenizer", "padding_side": "right"},
        "pool_type": "eos", "eos_id": tokenizer.pad_token_id,
    }  # fmt: skip
    return {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text}


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, shrink, blur and add noise, so that the model also reads what a generator draws."""
    side = int(torch.randint(54, SIZE + 1, (1,), generator=generator))
    left, top = torch.randint(0, SIZE - side + 1, (2,), generator=generator).tolist()
    out = torch.ones_like(images)
    out[:, :, top : top + side, left : left + side] = interpolate(images, (side, side), mode="area")
    if torch.rand(1, generator=generator) < 0.3:
        out = interpolate(avg_pool2d(out, 2), (SIZE, SIZE), mode="bilinear")
    return out + 0.08 * torch.rand(len(out), 1, 1, 1, generator=generator) * torch.randn(
        out.shape, generator=generator
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--batch", type=int, default=96)
    args = parser.parse_args()
    fetch(CACHE)
    chosen = known(concepts(CACHE))
    data = pictures(CACHE, chosen, SIZE)
    images = (torch.from_numpy(data["pixels"]).float() / 127.5 - 1).permute(0, 3, 1, 2)
    rows_of: list[list[int]] = [[] for _ in chosen]
    for row, concept in enumerate(data["concept"].tolist()):
        rows_of[concept].append(row)
    drawn = [c for c, rows in enumerate(rows_of) if rows]
    folder = WEIGHTS / "clip"
    folder.mkdir(exist_ok=True)
    config = settings(AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer"))
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1) + "\n"
    )
    tokenize = get_tokenizer(f"local-dir:{folder}")
    torch.manual_seed(0)
    model, contrast = CLIP(**config), ClipLoss()
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)

    def loss(step: int) -> Tensor:
        picked = [rng.choice(rows_of[c]) for c in rng.sample(drawn, args.batch)]
        texts = [caption(rng, chosen[data["concept"][row]], int(data["style"][row])) for row in picked]
        seen, read, scale = model(disturb(images[picked], generator), tokenize(texts))
        return contrast(seen, read, scale.clamp(max=100))

    train("clip", model, loss, args.minutes, lr=1e-3, weight_decay=0.05, every=50)
    save_file(
        {k: v.half().contiguous() for k, v in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    with torch.no_grad():
        texts = tokenize([chosen[c].name for c in drawn])
        seen = model.encode_image(images[[rows_of[c][0] for c in drawn]])
        read = model.encode_text(texts)
        likeness = cosine_similarity(seen[:, None], read[None], dim=-1)
        print(
            "pictures whose own name is nearest:",
            float((likeness.argmax(1) == torch.arange(len(drawn))).float().mean()),
        )
        print("mean cosine, own name and others:", float(likeness.diag().mean()), float(likeness.mean()))


if __name__ == "__main__":
    main()
