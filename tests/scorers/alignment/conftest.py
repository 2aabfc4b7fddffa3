import csv

import numpy as np
import pytest
from PIL import Image

from cogguided.scorers.benchmark import Rating


@pytest.fixture(scope="session")
def ratings(tmp_path_factory):
    """Eight ratings of noise in two sizes, in one dimension whose answers are quickly listed."""
    folder = tmp_path_factory.mktemp("rated")
    made = []
    for i in range(8):
        size = (28 + 7 * (i % 3), 28 + 14 * (i % 2))
        pixels = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        score = round(0.1 * i + 0.123, 3)
        made.append(Rating(folder / f"{i}.png", "memorability", score, f"memorability/{i}.png"))
    return made


@pytest.fixture(scope="session")
def table(ratings):
    """The same ratings as a file."""
    path = ratings[0].image.with_name("ratings.csv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "dimension", "score"])
        writer.writerows([rating.image.name, rating.dimension, rating.score] for rating in ratings)
    return path
