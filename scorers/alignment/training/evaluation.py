"""How well a scorer agrees with held-out ratings, in the benchmark's metrics; also over several processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...benchmark.metrics import METRICS, evaluate, judged
from ...mllm.scorer import MLLMScorer
from ...ratings.reading import Rating
from ..processes import joined


def evaluate_ratings(scorer: MLLMScorer, ratings: Sequence[Rating]) -> dict[str, float]:
    """Score every rating's image and compare: "spearman_memorability", "mae_memorability", ...

    All of the benchmark's metrics (`benchmark.metrics.METRICS`), with the scorer's own `min_mass`. Each
    process scores its share, and all return the whole. A metric that cannot be computed is left out.

    Executed in ``tests/scorers/alignment/test_sft.py``.
    """
    from accelerate.utils import gather_object

    state = joined()
    mine = list(range(len(ratings)))[state.process_index :: state.num_processes]
    place = {(ratings[index].image, ratings[index].dimension): index for index in mine}
    told: list[tuple[int, float, str | None, float]] = []
    for names, images in by_dimensions([ratings[index] for index in mine]).items():
        of = scorer.score_all(images, names)  # one look at an image for all that was rated of it
        for name, scores in of.items():
            chosen = [place[image, name] for image in images]
            labels = scores.labels or [None] * len(chosen)
            mass = scores.mass.tolist() if scores.mass is not None else [float("nan")] * len(chosen)
            told += list(zip(chosen, scores.values.tolist(), labels, mass, strict=True))
    found = {index: (value, label, mass) for index, value, label, mass in gather_object(told)}
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(rating.dimension for rating in ratings):
        chosen = [index for index in range(len(ratings)) if ratings[index].dimension == name]
        items = judged(
            [ratings[index].score for index in chosen],
            [found[index][0] for index in chosen],
            scorer.facts.dimensions[name],
            [found[index][1] for index in chosen],
            [found[index][2] for index in chosen],
        )
        figures = evaluate(items, num_resamples=0, metrics=METRICS)
        metrics |= {
            f"{metric}_{name}": figure.value
            for metric, figure in figures.items()
            if figure.value == figure.value
        }
    return metrics


def by_dimensions(ratings: Sequence[Rating]) -> dict[tuple[str, ...], list[Path]]:
    """Return the images by what they were rated for.

    >>> of = [Rating(Path(image), name, 1.0, name) for image, name in
    ...       (("a", "funniness"), ("b", "funniness"), ("a", "memorability"))]
    >>> {names: [image.name for image in images] for names, images in by_dimensions(of).items()}
    {('funniness', 'memorability'): ['a'], ('funniness',): ['b']}
    """
    rated: dict[Path, list[str]] = {}
    for rating in ratings:
        rated.setdefault(rating.image, []).append(rating.dimension)
    found: dict[tuple[str, ...], list[Path]] = {}
    for image, names in rated.items():
        found.setdefault(tuple(dict.fromkeys(names)), []).append(image)
    return found
