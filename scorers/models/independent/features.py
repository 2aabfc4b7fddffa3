"""What can be measured of a drawing on white without any network: its colours, edges, details and shape."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 64
"""Pictures are looked at in this many pixels a side."""
FRAME = 32
"""So large is the drawn part made, whatever its place and size were."""
PAPER, DARK = 0.94, 0.45
"""What is as light as that in its darkest colour is paper; what is below that in luminance is dark."""
BINS, ORIENTATIONS = 4, 8


def measured(pictures: Tensor) -> Tensor:
    """Measure pictures (B, 3, 64, 64) in [0, 1], on white: (B, 396), float.

    In order: a colour histogram of what is drawn (64); and of the drawn part, framed: mean colours on 4 x 4 fields
    (48); histograms of oriented edges there and over all (136); on 8 x 8 fields, how much differs from the ground
    colour and how much is dark (128); means and spreads of saturation, luminance, fine detail and colours (12); the
    drawn share, how unlike its mirror image it is, and of dark marks and of edges in the lower middle their place
    and curvature, as of a mouth (8).

    >>> measured(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 396])
    """
    pictures = pictures.clamp(0, 1)
    drawn = _drawn(pictures).float()[:, None]
    frame = framed(pictures)
    luminance = _luminance(frame)
    smooth = F.avg_pool2d(F.pad(luminance, (1, 1, 1, 1), mode="replicate"), 3, 1)
    edges, oriented = _edges(luminance)
    dark = (luminance < DARK).float()
    ground = frame.flatten(2).median(dim=-1).values[:, :, None, None]
    detail = (frame - ground).abs().sum(dim=1, keepdim=True)
    saturation = frame.amax(dim=1, keepdim=True) - frame.amin(dim=1, keepdim=True)
    parts = [
        _colours(pictures, drawn),
        F.avg_pool2d(frame, FRAME // 4).flatten(1),
        F.avg_pool2d(oriented, FRAME // 4).flatten(1),
        oriented.mean(dim=(2, 3)),
        F.avg_pool2d(detail, FRAME // 8).flatten(1),
        F.avg_pool2d(dark, FRAME // 8).flatten(1),
        *(_moments(of) for of in (saturation, luminance, (luminance - smooth).abs(), frame)),
        drawn.mean(dim=(2, 3)),
        (frame - frame.flip(3)).abs().mean(dim=(1, 2, 3))[:, None],
        _curvature(dark),
        _curvature(edges),
    ]
    return torch.cat(parts, dim=1)


def framed(pictures: Tensor) -> Tensor:
    """Cut out the square around what is drawn on (B, 3, H, W), as (B, 3, 32, 32); a blank picture is cut nowhere.

    >>> spot = torch.ones(1, 3, 64, 64)
    >>> spot[:, :, 10:26, 40:56] = 0
    >>> bool(framed(spot).mean() < 0.05)
    True
    """
    drawn = _drawn(pictures)
    left, right = _ends(drawn.any(dim=1))
    top, bottom = _ends(drawn.any(dim=2))
    where = pictures.new_zeros(len(pictures), 2, 3)
    where[:, 0, 0] = where[:, 1, 1] = torch.maximum(right - left, bottom - top) / 2
    where[:, 0, 2], where[:, 1, 2] = (left + right) / 2, (top + bottom) / 2
    grid = F.affine_grid(where, [len(pictures), 3, 2 * FRAME, 2 * FRAME], align_corners=False)
    return F.avg_pool2d(1 - F.grid_sample(1 - pictures, grid, align_corners=False), 2)  # outside is white


def _drawn(pictures: Tensor) -> Tensor:
    return pictures.amin(dim=1) < PAPER


def _ends(lines: Tensor) -> tuple[Tensor, Tensor]:
    """First and last place that is set on each of (B, L), from -1 to 1; all of it where none is."""
    size = lines.shape[-1]
    some, marks = lines.any(dim=-1), lines.float()
    first = torch.where(some, marks.argmax(dim=-1), 0)
    last = torch.where(some, size - marks.flip(-1).argmax(dim=-1), size)
    return first / size * 2 - 1, last / size * 2 - 1


def _luminance(pictures: Tensor) -> Tensor:
    weights = pictures.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (pictures * weights).sum(dim=1, keepdim=True)


def _colours(pictures: Tensor, drawn: Tensor) -> Tensor:
    """Shares of the drawn pixels by colour, (B, 64)."""
    red, green, blue = (pictures * BINS).long().clamp(max=BINS - 1).unbind(1)
    which = ((red * BINS + green) * BINS + blue).flatten(1)
    counts = pictures.new_zeros(len(pictures), BINS**3).scatter_add_(1, which, drawn.flatten(1))
    return counts / drawn.sum(dim=(2, 3)).clamp(min=1)


def _edges(luminance: Tensor) -> tuple[Tensor, Tensor]:
    """Strength of edges (B, 1, S, S), and the same divided among orientations (B, 8, S, S)."""
    wide = F.pad(luminance, (1, 1, 1, 1), mode="replicate")
    across = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
    down = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    strength = (across**2 + down**2).sqrt()
    turn = torch.atan2(down, across) % math.pi / math.pi * ORIENTATIONS
    apart = turn - torch.arange(ORIENTATIONS, device=turn.device).view(1, -1, 1, 1)
    near = 1 - ((apart + ORIENTATIONS / 2) % ORIENTATIONS - ORIENTATIONS / 2).abs()
    return strength, near.clamp(min=0) * strength


def _moments(maps: Tensor) -> Tensor:
    return torch.cat([maps.mean(dim=(2, 3)), maps.std(dim=(2, 3))], dim=1)


def _curvature(marks: Tensor) -> Tensor:
    """Of marks (B, 1, S, S) in the lower middle: do they rise to the sides, how low are they, how many; (B, 3)."""
    size = marks.shape[-1]
    line = torch.linspace(-1, 1, size, device=marks.device)
    down, across = line.view(1, 1, size, 1), line.view(1, 1, 1, size)
    marks = marks * (down > 0) * (across.abs() < 0.75)
    mass = marks.sum(dim=(2, 3), keepdim=True).clamp(min=1e-3)
    aside = across**2

    def mean(of: Tensor) -> Tensor:
        return (marks * of).sum(dim=(2, 3), keepdim=True) / mass

    bent = mean((aside - mean(aside)) * (down - mean(down)))
    return torch.cat([bent, mean(down), mass / 100], dim=1).flatten(1)
