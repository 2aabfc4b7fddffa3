"""How well a scorer agrees with held-out ratings, in the benchmark's metrics; also over several processes."""

from __future__ import annotations

from collections.abc import Sequence

from ...benchmark.metrics import METRICS, evaluate, judged
from ...mllm.scorer import MLLMScorer
from ...ratings.reading import Rating


def evaluate_ratings(scorer: MLLMScorer, ratings: Sequence[Rating]) -> dict[str, float]:
    """Score every rating's image and compare: "spearman_memorability", "mae_memorability", ...

    All of the benchmark's metrics (`benchmark.metrics.METRICS`), with the scorer's own `min_mass`. Each
    process scores its share, and all return the whole. A metric that cannot be computed is left out.

    Executed in ``tests/scorers/alignment/test_sft.py``.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    mine = list(range(len(ratings)))[state.process_index :: state.num_processes]
    told: list[tuple[int, float, str | None, float]] = []
    for name in dict.fromkeys(rating.dimension for rating in ratings):
        chosen = [index for index in mine if ratings[index].dimension == name]
        if not chosen:
            continue
        scores = scorer.with_dimension(name)([ratings[index].image for index in chosen])
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
