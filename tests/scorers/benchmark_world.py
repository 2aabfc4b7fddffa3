"""What runs of the benchmark are tried on: rated grey pictures, and a judge of their brightness."""

import torch
from PIL import Image

from cogguided.scorers import DIMENSIONS, FakeScorer, Scores

COUNT = 12


def rated(folder):
    """Grey pictures whose brightness is nearly their human memorability; one of them is broken."""
    lines = ["image,dimension,score"]
    for index in range(COUNT):
        level = index * 255 // COUNT
        Image.new("RGB", (4, 4), (level, level, level)).save(folder / f"{index:02d}.png")
        human = 0.0 if index == 0 else round(level / 255 * 0.9 + 0.05 * (index % 3), 3)
        lines.append(f"{index:02d}.png,memorability,{human}")
        if index < 4:
            lines.append(f"{index:02d}.png,aesthetics,{index + 1}")
    (folder / "03.png").write_bytes(b"not a picture")
    file = folder / "ratings.csv"
    file.write_text("\n".join(lines))
    return file


class Judge:
    """Scores by brightness on each dimension's scale; greedy rounds, and fails on dark pictures."""

    name, low, high, differentiable, needs_prompt = "aesthetics", 0.0, 10.0, False, False
    dimension, core, options = "aesthetics", None, None

    def __init__(self, *dimensions):
        self.dimensions = dimensions or tuple(DIMENSIONS)
        self.looks = []

    def to(self, device):
        return self

    def with_dimension(self, name):
        return FakeScorer(name, DIMENSIONS[name].low, DIMENSIONS[name].high)

    def __call__(self, images, prompts=None):
        return self.score_all(images, [self.dimension])[self.dimension]

    def score_all(self, images, dimensions=None):
        return self.score_readouts(images, dimensions, ["expected"])["expected"]

    def score_readouts(self, images, dimensions=None, readouts=("expected", "greedy")):
        self.looks.append((len(images), tuple(dimensions)))
        shares = [sum(image.getpixel((0, 0))) / 765 for image in images]
        found = {}
        for readout in readouts:
            found[readout] = {}
            for name in dimensions:
                dim = DIMENSIONS[name]
                values = torch.tensor([dim.low + share * (dim.high - dim.low) for share in shares])
                if readout == "greedy":
                    values = torch.where(values < dim.low + 0.1 * (dim.high - dim.low), torch.nan, values.round())
                    errors = [None if v == v else f"no number in the answer 'dark {v}'" for v in values.tolist()]
                    found[readout][name] = Scores(values, errors=errors)
                else:
                    mass = torch.full_like(values, 0.9)
                    labels = [dim.label(v) for v in values.tolist()]
                    found[readout][name] = Scores(values, std=values * 0 + 0.1, mass=mass, labels=labels)
        return found


def memorability(**kwargs):
    return FakeScorer("memorability", **kwargs)
