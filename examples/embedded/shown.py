"""What the judge of another kind is shown: artwork in five styles, the generator's own drawings, and pictures of nothing."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from base_mllm import SIZE, known
from common import CACHE
from data import NAMED, STYLES, Concept, concepts, fetch, has_picture, named_picture, picture
from data import world as in_world
from torch import Tensor
from torch.nn import functional as F

from cogguided import CogGuidedPipeline

MARKS = ("Block Elements", "Box Drawing")
"""Characters that picture nothing, which the ranking has too; no emoji is among them."""


@dataclass
class World:
    """All pictures of the known concepts, and which concept each shows."""

    concepts: list[Concept]
    pictures: Tensor
    nothing: Tensor
    shows: np.ndarray
    style: np.ndarray


def world() -> World:
    """Render every known concept in five styles, and scramble each."""
    fetch(CACHE)
    fetch(CACHE, NAMED)
    chosen = known([c for c in concepts(CACHE) if has_picture(CACHE, c.char)])
    art = stored("independent-art", lambda: artwork(chosen))
    own = stored("independent-drawn", lambda: drawings(chosen))
    rotten = stored("independent-rotten", lambda: drawings(chosen, rotten=True))
    pixels, shows, style = (np.concatenate([art[n], own[n]]) for n in ("pixels", "shows", "style"))
    pictures, broken = (torch.from_numpy(of).float().permute(0, 3, 1, 2) / 255 for of in (pixels, rotten["pixels"]))
    generator = torch.Generator().manual_seed(0)
    count = len(art["pixels"])
    empty = [(patterned if row % 2 else scrambled)(p, generator) for row, p in enumerate(pictures[:count])]
    empty += [dyed(p, generator) if row % 2 else p for row, p in enumerate(broken)]
    return World(chosen, pictures, torch.stack(empty), shows, style)


def stored(name: str, draw: Callable[[], list[tuple]]) -> dict[str, np.ndarray]:
    """Pictures (N, 64, 64, 3), the concepts they show and their styles, kept in one file."""
    path = CACHE / f"{name}.npz"
    if not path.exists():
        rows = draw()
        columns = {n: np.stack([np.asarray(row[i]) for row in rows]) for i, n in enumerate(("pixels", "shows", "style"))}
        np.savez_compressed(path, **columns)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def artwork(chosen: list[Concept]) -> list[tuple]:
    """Every concept in five styles."""
    rows: list[tuple] = []
    for index, about in enumerate(chosen):
        drawn = [picture(CACHE, style, about.char, SIZE) for style in STYLES]
        drawn += [named_picture(CACHE, style, about.name, SIZE) for style in NAMED]
        rows += [(image, index, number) for number, image in enumerate(drawn) if image is not None]
    return rows


def drawings(chosen: list[Concept], rotten: bool = False) -> list[tuple]:
    """What the embedded generator draws by the names of the concepts that it knows, in two styles: so drawings look here.

    `rotten`: what it draws with its attention disturbed at random (`disturb_attention`), so much that most show nothing.
    """
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    pipe.set_progress_bar_config(disable=True)
    own = {n: p.detach().clone() for n, p in pipe.transformer.named_parameters() if ".attn." in n and p.ndim == 2}
    drawn = {c.char for c in in_world(chosen)}
    known_ones = [i for i, c in enumerate(chosen) if c.char in drawn]
    rows: list[tuple] = []
    for number, style in enumerate(("glossy", "flat")):
        for start in range(0, len(known_ones), 32):
            some = known_ones[start : start + 32]
            if rotten:
                disturb_attention(pipe.transformer, own, torch.Generator().manual_seed(1000 * number + start))
            texts, seeds = [f"{style} {chosen[i].name}" for i in some], [1000 * number + i for i in some]
            made = pipe(texts, seed=seeds, num_inference_steps=10).images
            rows += [(image, i, len(STYLES) + len(NAMED) + number) for image, i in zip(made, some, strict=True)]
    return rows


@torch.no_grad()
def disturb_attention(model: torch.nn.Module, own: dict[str, Tensor], generator: torch.Generator) -> None:
    """Add to each matrix of attention a random one of rank 4, 1.2 to 2 times as large."""
    size = 1.2 + 0.8 * float(torch.rand(1, generator=generator))
    for name, parameter in model.named_parameters():
        if name in own:
            out, into = parameter.shape
            added = torch.randn(out, 4, generator=generator) @ torch.randn(4, into, generator=generator)
            parameter.copy_(own[name] + size * own[name].norm() / added.norm() * added)


def dyed(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Strengthen or weaken each colour of the ink, so that patterns come in all colours."""
    return 1 - ((1 - pixels) * (0.3 + 2.7 * torch.rand(3, 1, 1, generator=generator))).clamp(max=1)


def marks(cache: Path) -> float:
    """Mean valence of characters that picture nothing, from -3 to 3, by the same ranking as the emoji's."""
    counts = np.zeros(3)
    with next((cache / "ratings").rglob("Emoji_Sentiment_Data_v1.0.csv")).open(encoding="utf8") as file:
        for row in csv.DictReader(file):
            if row["Unicode block"] in MARKS:
                counts += [float(row[k]) for k in ("Negative", "Neutral", "Positive")]
    return float(3 * (counts[2] - counts[0]) / (counts.sum() + 3))


def scrambled(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Make a picture of nothing from (3, 64, 64): shuffled blocks, a repeated piece, blotches, or a piece close by."""

    def pick(*values: int) -> int:
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    def piece(side: int) -> Tensor:
        top, left = (torch.randint(8, SIZE - 7 - side, (2,), generator=generator)).tolist()
        return pixels[:, top : top + side, left : left + side]

    kind = pick(0, 1, 2, 3)
    if kind == 0:
        side = pick(8, 16)
        blocks = pixels.unfold(1, side, side).unfold(2, side, side).flatten(1, 2)
        order = torch.randperm(blocks.shape[1], generator=generator)
        return blocks[:, order].unflatten(1, (SIZE // side,) * 2).permute(0, 1, 3, 2, 4).reshape(3, SIZE, SIZE)
    if kind == 1:
        part = piece(pick(16, 24, 32))
        part = torch.cat([part, part.flip(2)], 2)
        return torch.cat([part, part.flip(1)], 1).repeat(1, 2, 2)[:, :SIZE, :SIZE]
    if kind == 2:  # the same pixels, those of like lightness beside one another
        rough = torch.randn(1, 1, *(pick(3, 5, 8, 12),) * 2, generator=generator)
        place = F.interpolate(rough, (SIZE, SIZE), mode="bicubic").flatten().argsort().argsort()
        flat = pixels.flatten(1)
        return flat[:, flat.mean(0).argsort()][:, place].reshape(3, SIZE, SIZE)
    return F.interpolate(piece(20)[None], (SIZE, SIZE), mode="bicubic")[0].clamp(0, 1)


def patterned(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Make stripes, checks or blotches in colours of a picture (3, 64, 64), mostly on paper and with ragged edges."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def blotches(side: int, count: int = 1) -> Tensor:
        return F.interpolate(torch.randn(1, count, side, side, generator=generator), (SIZE, SIZE), mode="bicubic")[0]

    line = torch.linspace(-1, 1, SIZE)
    down, across = torch.meshgrid(line, line, indexing="ij")
    bent = 0.12 * blotches(4, 2)

    def wave() -> Tensor:
        upright = math.pi / 2 * float(uniform(1) < 0.5) + 0.3 * float(uniform(1) - 0.5)
        turn = math.pi * float(uniform(1)) if float(uniform(1)) < 0.5 else upright
        fast = 3 + 11 * float(uniform(1))
        way = (across + bent[0]) * math.cos(turn) + (down + bent[1]) * math.sin(turn)
        return torch.sin(fast * way + 6.28 * uniform(1))

    flat = pixels.flatten(1)
    ink = flat[:, flat.amin(0) < 0.9]
    ink = ink if ink.shape[1] else flat
    colours = ink[:, torch.randint(ink.shape[1], (3,), generator=generator)]
    if uniform(1) < 0.5:
        colours = (colours + uniform(3, 3)) / 2
    if uniform(1) < 0.6:
        colours[:, 2] = 1
    kind = int(torch.randint(3, (1,), generator=generator))
    fields = [wave(), (0.5 * blotches(5)[0], wave(), blotches(7)[0])[kind]]
    share = [torch.sigmoid((1 + 5 * uniform(1)) * field) for field in fields]
    first, second, third = colours[:, :, None, None].unbind(1)
    made = (first * share[0] + second * (1 - share[0])) * share[1] + third * (1 - share[1])
    if uniform(1) < 0.7:
        wide, tall = 0.6 + 0.35 * uniform(2)
        inside = torch.sigmoid(8 * (1 - (across / wide) ** 4 - (down / tall) ** 4 - 0.5 * blotches(6)[0]))
        made = 1 - (1 - made) * inside
    return made.clamp(0, 1)
