"""Train the transformer of the QwenImagePipeline by flow matching on cached latents and text features."""

from __future__ import annotations

import argparse
import random
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from captions import caption, dressed, families, open_words
from common import CACHE, WEIGHTS, train
from data import Concept, concepts, fetch, pictures, world
from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from latents import CHANNELS, decode, encode, load
from PIL import Image
from tokenizer import PREFIX_TOKENS, TEMPLATE
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from cogguided.pipelines.embedded.packed import PackedTransformer

SIZE, SHIFT, GRID = 64, 5.0, 4
DRAWN = ("noto", "flat")
STYLE_SHARE = (0.6, 0.4)
OPEN = 0.35  # share of captions that name a whole family
WATCHED = [
    "red heart",
    "crying cat",
    "pizza",
    "angry face",
    "birthday cake",
    "dog",
    "panda",
    "a face",
    "happy face",
    "ghost",
    "rose",
    "hamburger",
    "an animal",
    "a cat",
    "food",
    "pig",
]


def build() -> QwenImageTransformer2DModel:
    torch.manual_seed(0)
    model = QwenImageTransformer2DModel(
        patch_size=2, in_channels=4 * CHANNELS, out_channels=CHANNELS, num_layers=6, attention_head_dim=64,
        num_attention_heads=4, joint_attention_dim=256, axes_dims_rope=(16, 24, 24),
    )  # fmt: skip
    for block in model.transformer_blocks:
        for modulation in (block.img_mod[1], block.txt_mod[1]):
            torch.nn.init.zeros_(modulation.weight)
            torch.nn.init.zeros_(modulation.bias)
    for layer in (model.norm_out.linear, model.proj_out):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return model


class TextFeatures:
    """The text encoder's features of a prompt, as QwenImagePipeline computes them; kept once computed."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")
        self.encoder = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            WEIGHTS / "text_encoder", dtype=torch.float32
        ).eval()
        self.one = lru_cache(maxsize=None)(self._one)

    @torch.no_grad()
    def _one(self, prompt: str) -> Tensor:
        ids = self.tokenizer(TEMPLATE.replace("{}", prompt), return_tensors="pt").input_ids
        return self.encoder.model(input_ids=ids, use_cache=False).last_hidden_state[0, PREFIX_TOKENS:]

    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Features (B, L, 256), zero where shorter, and their mask (B, L)."""
        rows = [self.one(prompt) for prompt in prompts]
        features = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return features, torch.arange(features.shape[1])[None] < lengths[:, None]


def pack(latents: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H/2 * W/2, 4C), QwenImagePipeline's order."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(tokens: Tensor) -> Tensor:
    b, n, c = tokens.shape
    side = int(n**0.5)
    rows = tokens.view(b, side, side, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(b, c // 4, 2 * side, 2 * side)


def velocity(model: QwenImageTransformer2DModel, tokens: Tensor, t: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
    """Predicted noise minus data, (B, 16, 4C), at times `t` (B,) in (0, 1]."""
    features, mask = text
    return model(
        hidden_states=tokens,
        timestep=t,
        encoder_hidden_states=features,
        encoder_hidden_states_mask=mask,
        img_shapes=[[(1, GRID, GRID)]] * len(tokens),
        return_dict=False,
    )[0]


@torch.no_grad()
def draw(
    model: QwenImageTransformer2DModel, text: TextFeatures, prompts: list[str], seeds: list[int], steps: int = 20,
    guidance: float = 3.0,
) -> Tensor:  # fmt: skip
    """Latents (B, 48, 8, 8) by Euler steps with classifier-free guidance, rescaled as QwenImagePipeline
    does.
    """
    noise = [torch.randn(CHANNELS, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    tokens = pack(torch.stack(noise))
    times = torch.linspace(1, 0, steps + 1)
    times = SHIFT * times / (1 + (SHIFT - 1) * times)
    wanted, unwanted = text(prompts), text([" "] * len(prompts))
    for now, after in pairwise(times):
        t = now.expand(len(tokens))
        yes, no = velocity(model, tokens, t, wanted), velocity(model, tokens, t, unwanted)
        both = no + guidance * (yes - no)
        tokens = tokens + (after - now) * both * yes.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True)
    return unpack(tokens)


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (N, 3, S, S) in [-1, 1] side by side."""
    rows = ((pictures.clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()
    lines = [np.concatenate(list(rows[i : i + columns]), 1) for i in range(0, len(rows), columns)]
    return Image.fromarray(np.concatenate(lines))


class Draws:
    """Draws pictures and captions for training: first an open prompt and then one of its pictures, or first a picture.

    Drawing the open prompt first teaches "a cat" and "an animal" as often as each other, and every picture of a family
    with equal chance. A concept that bears a family's name ("cat") would take that word for itself, so it is drawn
    through the family alone.
    """

    def __init__(self, chosen: list[Concept], concept: np.ndarray, style: np.ndarray) -> None:
        self.chosen, self.concept, self.style = chosen, concept, style
        self.rng, self.numbers = random.Random(0), np.random.default_rng(0)
        shares = np.array([weight(chosen[c], s) for c, s in zip(concept, style, strict=True)])
        self.families = [
            (text, rows, shares[rows] / shares[rows].sum(), 2.0 if " " not in text else 0.5)
            for text, members in families(chosen).items()
            if len(rows := np.flatnonzero(np.isin(concept, members) & (shares > 0)))
        ]
        names = {text for text, *_ in self.families if " " not in text}
        shares = shares * [chosen[c].name not in names for c in concept]
        self.shares = shares / shares.sum()
        often = np.array([weight * len(rows) ** 0.5 for _, rows, _, weight in self.families])
        self.often = often / often.sum()

    def __call__(self, count: int) -> tuple[np.ndarray, list[str]]:
        """Rows of the pictures, (count,), and a caption for each; one in ten is empty, for guidance."""
        rows, prompts = np.empty(count, int), []
        for i in range(count):
            draw = self.rng.random()
            if draw < OPEN:
                text, members, chances, _ = self.families[self.numbers.choice(len(self.families), p=self.often)]
                rows[i] = self.numbers.choice(members, p=chances)
                prompts.append(dressed(self.rng, text, int(self.style[rows[i]])))
            else:
                rows[i] = self.numbers.choice(len(self.shares), p=self.shares)
                about = self.chosen[self.concept[rows[i]]]
                prompts.append(caption(self.rng, about, int(self.style[rows[i]])) if draw < 0.9 else " ")
        return rows, prompts


def weight(concept: Concept, style: int) -> float:
    """How often a picture is drawn: faces and cats, which differ least, twice as often as other things; what people
    use much, half as often again; and the second style for smileys alone."""
    kinds = open_words(concept)
    often = (2.0 if "face" in kinds or "cat" in kinds else 1.0) * (1.5 if concept.count >= 10 else 1.0)
    if concept.group == "Smileys & Emotion":
        return often * STYLE_SHARE[style]
    return often if style == 0 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--further", action="store_true", help="start from the weights that ship")
    args = parser.parse_args()
    fetch(CACHE)
    chosen = world(concepts(CACHE))
    data = pictures(CACHE, chosen, SIZE, DRAWN)
    pixels = torch.from_numpy(data["pixels"])
    basis = load(CACHE / "basis.pt", pixels)
    table = pack(encode(basis, pixels))
    model, text = build(), TextFeatures()
    if args.further:
        shipped = PackedTransformer.from_pretrained(WEIGHTS / "transformer", torch_dtype=torch.float32)
        model.load_state_dict(shipped.state_dict())
    draws = Draws(chosen, data["concept"], data["style"])
    torch.manual_seed(0)

    def loss(step: int) -> Tensor:
        rows, prompts = draws(args.batch)
        clean = table[torch.from_numpy(rows)]
        noise = torch.randn_like(clean)
        t = torch.sigmoid(torch.randn(len(rows)))
        t = SHIFT * t / (1 + (SHIFT - 1) * t)
        mixed = torch.lerp(clean, noise, t[:, None, None])
        return mse_loss(velocity(model, mixed, t, text(prompts)), noise - clean)

    def snapshot(step: int) -> None:
        if step % 1000 == 0:
            model.eval()
            found = draw(model, text, [p for p in WATCHED for _ in range(2)], [0, 1] * len(WATCHED), steps=12)
            sheet(decode(basis, found), 8).save(CACHE / f"watch-{step:06d}.png")
            model.train()

    train("generator", model, loss, args.minutes, lr=args.lr, average=0.9985, snapshot=snapshot)
    model.half().save_pretrained(WEIGHTS / "transformer")
    FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False).save_pretrained(WEIGHTS / "scheduler")


if __name__ == "__main__":
    main()
