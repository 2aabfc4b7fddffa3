"""Scorers as torchmetrics metrics: the mean score of all images that were shown, over batches and processes."""

from collections.abc import Sequence
from typing import Any

import torch

from .._errors import missing_extra
from ..scorers import Ensemble, Scorer, Target, TargetSpec, load_scorer, load_target
from .layouts import as_images

# No annotations as text here: TorchScript, which torchmetrics' metrics can be compiled by, cannot read them.

try:
    from torchmetrics import Metric
except ImportError as error:
    raise missing_extra("torchmetrics", "torchmetrics") from error


def cog_score(images: Any, scorer: Scorer, prompts: Sequence[str] | None = None) -> torch.Tensor:
    """Return the mean score of images, in the scorer's own range; those without one are left out.

    Args:
        images: of any layout (see `as_images`).
        scorer: any scorer.
        prompts: one per image, where the scorer needs them.

    Returns:
        a scalar, float32; NaN where no image has a score.

    >>> from cogguided import FakeScorer
    >>> cog_score(torch.ones(2, 3, 4, 5), FakeScorer())
    tensor(1.)
    """
    return scorer(as_images(images), prompts).values.nanmean()


class CogScore(Metric):
    """The mean score of images, in the scorer's own range: higher is more of what the scorer is named after.

    Images without a score are left out of the mean and counted in `invalid`; with no score at all it is NaN.

    Args:
        scorer: a name ("emotional_valence"), folder or hub name, or a scorer object; or a target's weights.
        **kwargs: of `torchmetrics.Metric`.

    Attributes:
        total: sum of the scores, float64.
        count: images with a score.
        invalid: images without one.

    >>> from cogguided import FakeScorer
    >>> metric = CogScore(FakeScorer())
    >>> metric.update(torch.ones(2, 3, 4, 5))
    >>> metric.update(["no-such.png"])
    >>> metric.compute(), metric.invalid
    (tensor(1.), tensor(1))
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: torch.Tensor
    count: torch.Tensor
    invalid: torch.Tensor

    def __init__(self, scorer: Any = "emotional_valence", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scorer = as_scorer(scorer)
        bounds = {"plot_lower_bound": self.scorer.low, "plot_upper_bound": self.scorer.high}
        self.__dict__.update(bounds, plot_legend_name=self.scorer.name)  # facts of a class to torchmetrics
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("invalid", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, images: Any, prompts: Sequence[str] | None = None) -> None:
        """Score B images of any layout and add them."""
        with torch.no_grad():
            scores = self.scorer(as_images(images), prompts).to(self.total.device)
        self.total += scores.values[scores.valid].double().sum()
        self.count += int(scores.valid.sum())
        self.invalid += scores.num_invalid

    def compute(self) -> torch.Tensor:
        """Return the mean of all scores, a float32 scalar."""
        return (self.total / self.count).float()

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or several, between the scorer's bounds."""
        return self._plot(val, ax)


def as_scorer(spec: Any) -> Scorer:
    """Return a scorer of a name, an object, or a target's weights.

    >>> from cogguided import FakeScorer
    >>> as_scorer({FakeScorer("light"): -1}).low
    -1.0
    """
    if isinstance(spec, Target):
        return Ensemble(spec)
    if isinstance(spec, dict) or (isinstance(spec, str) and ("=" in spec or "," in spec)):
        weights: TargetSpec = spec
        return Ensemble(load_target(weights))
    return load_scorer(spec)
