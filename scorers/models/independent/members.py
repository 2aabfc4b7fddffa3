"""The three members of the judge, as networks without gradients: pictures (B, 3, 64, 64) in [0, 1] to values (B,)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .features import SIDE, measured

NET_SIDE, PARTS = 32, 24


class Net(nn.Module):
    """A small convolutional network on pictures of half the size; looks at a picture and at its mirror image."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        wide = (width, width, 2 * width, 2 * width, 3 * width, 3 * width)
        pairs = zip((3, *wide[:-1]), wide, strict=True)
        self.body = nn.Sequential(*(_block(before, after, 2 - i % 2) for i, (before, after) in enumerate(pairs)))
        self.out = nn.Linear(6 * width, 1)

    def features(self, pixels: Tensor) -> Tensor:
        """Mean and maximum over the places of (B, 3, 32, 32) in [0, 1]: (B, 6 width)."""
        seen = self.body(2 * pixels - 1)
        return torch.cat([seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))], dim=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Judge pictures."""
        pixels = F.avg_pool2d(pictures, SIDE // NET_SIDE)
        ways: list[Tensor] = [self.out(self.features(of))[:, 0] for of in (pixels, pixels.flip(3))]
        return (ways[0] + ways[1]) / 2


def _block(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())


class Nets(nn.Module):
    """The mean of networks that were trained from different seeds."""

    def __init__(self, count: int, width: int = 32) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Net(width) for _ in range(count))

    def forward(self, pictures: Tensor) -> Tensor:
        """Judge pictures."""
        return torch.stack([net(pictures) for net in self.nets]).mean(dim=0)


class Probe(nn.Module):
    """A linear probe on random Fourier features of a CLIP's image vectors; the CLIP stays as it is.

    Rahimi and Recht 2007, "Random features for large-scale kernel machines": cosines of random projections, here of
    the vectors less their mean, made unit vectors; `turn` holds the projections in parts of 1 / `PARTS`.
    """

    center: Tensor
    turn: Tensor
    phase: Tensor

    def __init__(self, clip: Any, features: int) -> None:
        super().__init__()
        self.clip = [clip]  # in a list: its weights are not among this module's
        width: int = clip.model.visual.output_dim
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("turn", torch.zeros(features, width, dtype=torch.int8))
        self.register_buffer("phase", torch.zeros(features))
        self.out = nn.Linear(features, 1)

    def features(self, vectors: Tensor) -> Tensor:
        """Features (B, F) of image vectors (B, D)."""
        unit = F.normalize(vectors - self.center, dim=-1)
        return (unit @ (self.turn.float() / PARTS).T + self.phase).cos()

    def forward(self, pictures: Tensor) -> Tensor:
        """Judge pictures."""
        judged: Tensor = self.out(self.features(self.clip[0].encode_images(pictures)))
        return judged[:, 0]


class Trees(nn.Module):
    """Regression trees on what is measured of a drawing (`measured`), summed.

    A node goes left where its feature is at most its threshold; a leaf is its own child.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor

    def __init__(self, trees: int, nodes: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for name, dtype in (("feature", torch.int16), ("left", torch.uint8), ("right", torch.uint8)):
            self.register_buffer(name, torch.zeros(trees, nodes, dtype=dtype))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(trees, nodes))

    def forward(self, pictures: Tensor) -> Tensor:
        """Judge pictures."""
        return self.grown(measured(pictures))

    def grown(self, features: Tensor) -> Tensor:
        """Sum of the leaves that (B, F) come to, (B,)."""
        rows = torch.arange(len(self.feature), device=features.device)
        place = torch.zeros(len(features), len(rows), dtype=torch.long, device=features.device)
        for _ in range(self.depth):
            seen = features.gather(1, self.feature[rows, place].long())
            goes_left = seen <= self.threshold[rows, place]
            place = torch.where(goes_left, self.left[rows, place], self.right[rows, place]).long()
        return self.value[rows, place].sum(dim=1)
