"""Emotional valence of emoji-like pictures by three small members that share no weights with the embedded MLLM.

Convolutional networks trained from scratch, a linear probe on the embedded CLIP's image features, and boosted
regression trees (Friedman 2001, "Greedy function approximation: a gradient boosting machine") on measured colours,
edges and shapes; the score is their standardised mean. Made by ``examples/embedded/independent.py`` from the half of
the human ratings that the embedded scorer never saw.

Weights: with the package. Licence: CC BY-SA 4.0, as the ratings (Emoji Sentiment Ranking); commercial use included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...._defaults import EMBEDDED
from ...._errors import ModelError
from ..clip import CLIPScorer
from ..parts.files import fill, place_for, read_weights
from ..parts.judge import Judge, Judged, Pictures
from .features import SIDE
from .members import Nets, Probe, Trees

CONFIG, WEIGHTS, SCALE = "independent.json", "model.safetensors", ".scale"
MEMBERS = ("nets", "probe", "trees")


class IndependentScorer(Judge):
    """Emotional valence from −3 to 3, higher feels better, of pictures drawn on white as emoji are; no prompt.

    A judge to measure with: it gives no gradient, so no training can follow one. `std` is the spread among its three
    members on the same scale: where they disagree, do not believe it.

    Make one with `from_pretrained`, or `load_scorer("independent")`.
    """

    name = "independent"
    low = -3.0
    high = 3.0
    differentiable = False

    def __init__(self, members: nn.ModuleDict, calibration: dict[str, Any], batch_size: int = 64) -> None:
        """Take the members and how their values become one.

        Args:
            members: "nets", "probe" and "trees", each (B, 3, 64, 64) -> (B,).
            calibration: of each member mean and scale, which standardise it; "offset" and "slope" of their mean.
            batch_size: images a pass.
        """
        super().__init__(members, batch_size)
        self.calibration = calibration

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = EMBEDDED / "independent",
        clip: str | Path = EMBEDDED / "clip",
        batch_size: int = 64,
        device: torch.device | str | None = None,
    ) -> IndependentScorer:
        """Load the members from a folder.

        Args:
            model: folder with the members' weights.
            clip: folder of the CLIP that the probe was fitted on.
            batch_size: images a pass.
            device: default: the GPU if there is one.

        Raises:
            ModelError: weights are missing or do not fit.

        Executed examples are in ``tests/scorers/test_independent.py``.
        """
        folder, place = Path(model), place_for(device)
        try:
            facts = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            sizes, calibration = facts["sizes"], facts["calibration"]
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{folder}: no {CONFIG} of this judge there ({error}); 'make embedded' makes the folder again"
            ) from error
        weights = read_weights(folder / WEIGHTS)
        with torch.inference_mode(False):
            members = built(sizes, CLIPScorer.from_pretrained(clip, batch_size=batch_size, device=place))
            fill(members, unpacked(weights), folder / WEIGHTS)
            members = members.to(place)
        return cls(members, calibration, batch_size)

    def to(self, device: torch.device | str) -> IndependentScorer:
        """Move the weights, those of CLIP too, and return the scorer itself."""
        super().to(device)
        self.model["probe"].clip[0].to(device)
        return self

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Tensor:
        """Return pixels (B, 3, 64, 64) in [0, 1]."""
        return torch.stack([sized(picture) for picture in pictures]).to(self.device)

    def judge(self, inputs: Tensor) -> Judged:
        """Ask the members and take their mean."""
        values = self.standardised(inputs)
        slope, offset = self.calibration["slope"], self.calibration["offset"]
        return Judged(offset + slope * values.mean(dim=1), slope * values.std(dim=1))

    def standardised(self, pixels: Tensor) -> Tensor:
        """Values of the members, (B, 3), each of mean 0 and spread 1 on the pictures it was fitted to."""
        columns = []
        for name in MEMBERS:
            mean, scale = self.calibration[name]
            columns.append((self.model[name](pixels).float() - mean) / scale)
        return torch.stack(columns, dim=1)


def unpacked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo what the file does for size: kernels of 8-bit numbers with a scale for each channel, floats of 16 bits.

    >>> kept = {"w": torch.tensor([[[[127]]]], dtype=torch.int8), "w.scale": torch.tensor([0.5]).half()}
    >>> unpacked(kept)["w"].item()
    0.5
    """
    found = {}
    for name, of in weights.items():
        if of.dtype == torch.int8 and name + SCALE in weights:
            found[name] = of.float() / 127 * weights[name + SCALE].float().view(-1, 1, 1, 1)
        elif not name.endswith(SCALE):
            found[name] = of.float() if of.is_floating_point() else of
    return found


def built(sizes: dict[str, int], clip: Any) -> nn.ModuleDict:
    """Return members of these sizes, without weights.

    Raises:
        ModelError: a size is missing.
    """
    try:
        return nn.ModuleDict({
            "nets": Nets(sizes["nets"], sizes["width"]),
            "probe": Probe(clip, sizes["features"]),
            "trees": Trees(sizes["trees"], sizes["nodes"], sizes["depth"]),
        })
    except KeyError as error:
        raise ModelError(f"{CONFIG}: tells no {error} among its sizes") from error


def sized(picture: Any) -> Tensor:
    """Bring a picture to (3, 64, 64) in [0, 1]; one of that size stays as it is.

    >>> sized(torch.ones(3, 128, 100)).shape
    torch.Size([3, 64, 64])
    """
    from torchvision.transforms import functional

    from ..parts.pixels import as_tensor

    pixels = as_tensor(picture)
    if pixels.shape[-2:] == (SIDE, SIDE):
        return pixels
    scaled: Tensor = functional.resize(pixels, [SIDE, SIDE], antialias=True)
    return scaled.clamp(0, 1)
