"""How well a scorer agrees with people, with bootstrap intervals; pure functions of arrays.

Spearman, MAE and MSE are the paper's (arXiv 2511.22805); Pearson, Kendall's tau-b, label accuracy, the share
of unread answers and the captured probability are beside them. An unread answer is NaN: it counts in `unread`
and in nothing else.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from ..._errors import InputError
from ..dimensions import Dimension

METRICS = ("spearman", "pearson", "kendall", "mae", "mse", "label_accuracy", "unread", "mass")
"""Names of the metrics, in the order of the tables."""
AGREEMENT = METRICS[:6]
"""Those that compare scores with people's; the others are about reading the scores."""
NUM_RESAMPLES = 2000
"""Bootstrap resamples of an interval."""
MANY = 2000
"""Above so many items intervals are percentiles: BCa's jackknife would take too long."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Resampled = Callable[[Ints], Floats]
"""A statistic of resamples: item numbers (..., n) to values (...)."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval.

    Attributes:
        value: NaN if it cannot be computed.
        low: lower end of the interval, NaN if there is none.
        high: upper end.
        note: why something is NaN, else "".
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""


@dataclass(frozen=True, eq=False)
class Judged:
    """What people and a scorer said about the same n images in one dimension.

    Attributes:
        human: (n,) human scores.
        score: (n,) the scorer's, NaN where it could not be read.
        human_labels: (n,) the bin of each human score, or None if the scorer is on another scale.
        labels: (n,) the label that the scorer gave or whose bin holds its score, None where unread; or None.
        mass: (n,) captured probability in [0, 1], NaN where not known; or None.
    """

    human: Floats
    score: Floats
    human_labels: Sequence[str] | None = None
    labels: Sequence[str | None] | None = None
    mass: Floats | None = None

    @property
    def read(self) -> npt.NDArray[np.bool_]:
        """(n,) whether the answer could be read."""
        return np.isfinite(self.score)


def judged(
    human: Sequence[float] | Floats,
    score: Sequence[float] | Floats,
    dim: Dimension | None = None,
    labels: Sequence[str | None] | None = None,
    mass: Sequence[float] | Floats | None = None,
) -> Judged:
    """Put scores beside human ones; with `dim` also labels, taken from the numbers where none were said.

    Raises:
        InputError: lengths differ, or a human score is not finite.

    >>> from ..dimensions import dimension
    >>> judged([2.0, 9.0], [4.0, float("nan")], dimension("aesthetics")).labels
    ['low', None]
    """
    people, scores = np.asarray(human, dtype=np.float64), np.asarray(score, dtype=np.float64)
    others = {"labels": labels, "mass": mass}
    lengths = {name: len(value) for name, value in others.items() if value is not None}
    if people.ndim != 1 or people.shape != scores.shape or any(n != len(people) for n in lengths.values()):
        raise InputError(f"expected arrays of one length, got human {people.shape}, score {scores.shape}, {lengths}")
    if not np.isfinite(people).all():
        raise InputError("human: expected finite scores")
    captured = None if mass is None else np.asarray(mass, dtype=np.float64)
    if dim is None:
        return Judged(people, scores, mass=captured)
    said = list(labels) if labels is not None else [None] * len(people)
    named = [
        None if math.isnan(value) else (label or dim.label(min(max(value, dim.low), dim.high)))
        for value, label in zip(scores.tolist(), said, strict=True)
    ]
    return Judged(people, scores, [dim.label(value) for value in people.tolist()], named, captured)


def pearson(x: Floats, y: Floats) -> Floats:
    """Pearson's correlation along the last axis, (..., n) to (...) in [-1, 1]; NaN where one is constant.

    >>> pearson(np.array([1.0, 2.0, 3.0]), np.array([[2.0, 4.0, 6.0], [5.0, 5.0, 5.0]]))
    array([ 1., nan])
    """
    dx, dy = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    constant = (x.max(-1) == x.min(-1)) | (y.max(-1) == y.min(-1))
    below = np.sqrt((dx * dx).sum(-1) * (dy * dy).sum(-1))
    return np.where(constant, np.nan, (dx * dy).sum(-1) / np.where(constant, 1.0, below)).clip(-1, 1)


def spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's rank correlation along the last axis (ties get mean ranks), (..., n) to (...) in [-1, 1].

    >>> float(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 100.0])))
    1.0
    """
    return pearson(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1))


def kendall(x: Floats, y: Floats) -> Floats:
    """Kendall's tau-b along the last axis, (..., n) to (...) in [-1, 1]; NaN where one is constant.

    >>> float(kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))).__round__(3)
    0.333
    """
    rows = np.broadcast_arrays(x, y)
    flat = [row.reshape(-1, row.shape[-1]) for row in rows]
    taus = [stats.kendalltau(a, b, method="asymptotic")[0] for a, b in zip(*flat, strict=True)]
    return np.array(taus, dtype=np.float64).reshape(rows[0].shape[:-1])


def mae(human: Floats, score: Floats) -> Floats:
    """Mean absolute error along the last axis, in the dimension's unit.

    >>> float(mae(np.array([1.0, 2.0]), np.array([2.0, 4.0])))
    1.5
    """
    return np.asarray(np.abs(score - human).mean(-1))


def mse(human: Floats, score: Floats) -> Floats:
    """Mean squared error along the last axis, in the dimension's unit squared.

    >>> float(mse(np.array([1.0, 2.0]), np.array([2.0, 4.0])))
    2.5
    """
    return np.asarray(((score - human) ** 2).mean(-1))


def evaluate(
    items: Judged, num_resamples: int = NUM_RESAMPLES, seed: int = 0, metrics: Sequence[str] = METRICS
) -> dict[str, Estimate]:
    """Compute every metric with its 95 % interval; `num_resamples=0` leaves the intervals out.

    Raises:
        InputError: an unknown metric.

    >>> from ..dimensions import dimension
    >>> human, score = [1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, float("nan")]
    >>> figures = evaluate(judged(human, score, dimension("funniness")), num_resamples=0)
    >>> figures["spearman"].value, figures["mae"].value, figures["unread"].value
    (1.0, 0.5, 0.25)
    >>> evaluate(judged(human, score))["mae"]
    Estimate(value=nan, low=nan, high=nan, note='the scorer is on another scale')
    """
    found = {}
    for name in metrics:
        statistic, subset, note = _statistic(name, items)
        found[name] = _estimate(statistic, len(subset), note, num_resamples, seed)
    return found


def compare(first: Judged, second: Judged, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """Compute first minus second for every metric, with paired bootstrap 95 % intervals.

    Both must hold the same items in the same order. Agreement and error are compared on the items that both
    have read; `unread` on all of them.

    Raises:
        InputError: the human scores differ, so these are not the same items.

    >>> from ..dimensions import dimension
    >>> human, funniness = [1.0, 2.0, 3.0], dimension("funniness")
    >>> good, bad = judged(human, [1.0, 2.0, 4.0], funniness), judged(human, [2.0, 3.0, 4.0], funniness)
    >>> round(compare(good, bad, num_resamples=0)["mae"].value, 3)
    -0.667
    """
    if not np.array_equal(first.human, second.human):
        raise InputError("the human scores differ: a comparison needs the same items in the same order")
    both = first.read & second.read
    found = {}
    for name in METRICS:
        kept = np.ones_like(both) if name == "unread" else both
        (one, subset, note), (two, others, other_note) = (
            _statistic(name, _only(items, kept)) for items in (first, second)
        )
        note = note or other_note or ("" if np.array_equal(subset, others) else "known for different items")
        statistic = None if one is None or two is None or note else _difference(one, two)
        found[name] = _estimate(statistic, len(subset), note, num_resamples, seed)
    return found


def bootstrap_interval(
    statistic: Resampled, num_items: int, num_resamples: int, seed: int
) -> tuple[float, float, str]:
    """95 % interval of a statistic over resampled items, by ``scipy.stats.bootstrap``, and why there is none.

    Method BCa (bias-corrected and accelerated: Efron 1987), percentiles above `MANY` items.

    >>> values = np.arange(100.0)
    >>> low, high, note = bootstrap_interval(lambda index: values[index].mean(-1), 100, 500, seed=0)
    >>> 43 < low < 45, 54 < high < 56, note
    (True, True, '')
    """
    if num_items < 2:
        return math.nan, math.nan, f"no interval: {num_items} items"

    def of_resample(index: npt.NDArray[np.generic], axis: int) -> Floats:
        return statistic(np.moveaxis(index, axis, -1).astype(np.int64))

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a degenerate distribution is reported by the note instead
        result = stats.bootstrap(
            (np.arange(num_items),),
            of_resample,
            vectorized=True,
            n_resamples=num_resamples,
            batch=max(1, 2_000_000 // num_items),
            method="BCa" if num_items <= MANY else "percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = map(float, result.confidence_interval)
    if math.isfinite(low) and math.isfinite(high):
        return low, high, ""
    distribution = result.bootstrap_distribution
    undefined = int(np.isnan(distribution).sum())
    if undefined:
        return math.nan, math.nan, f"no interval: undefined in {undefined} of {num_resamples} resamples"
    return math.nan, math.nan, "no interval: the same in (nearly) every resample"


def _estimate(statistic: Resampled | None, num_items: int, note: str, num_resamples: int, seed: int) -> Estimate:
    if statistic is None:
        return Estimate(math.nan, note=note)
    value = float(statistic(np.arange(num_items)))
    if math.isnan(value):
        return Estimate(value, note=note or "undefined: the scores or the human scores are all the same")
    if num_resamples == 0:
        return Estimate(value)
    low, high, why = bootstrap_interval(statistic, num_items, num_resamples, seed)
    return Estimate(value, low, high, why)


def _statistic(name: str, items: Judged) -> tuple[Resampled | None, Ints, str]:
    """Return a metric as a function of item numbers, the items it is about, and why there is none."""
    every = np.arange(len(items.human))
    subset = every[items.read]
    human, score = items.human[subset], items.score[subset]
    if name == "unread":
        lost = (~items.read).astype(np.float64)
        return (_mean_of(lost), every, "") if len(lost) else (None, every, "no items")
    if name == "mass":
        known = every if items.mass is None else every[np.isfinite(items.mass)]
        if items.mass is None or not len(known):
            return None, every, "this read-out does not tell it"
        return _mean_of(items.mass[known]), known, ""
    if not len(subset):
        return None, subset, "nothing could be read"
    if name in ("mae", "mse", "label_accuracy") and (items.labels is None or items.human_labels is None):
        return None, subset, "the scorer is on another scale"
    if name == "label_accuracy":
        pairs = zip(items.labels or (), items.human_labels or (), strict=True)
        return _mean_of(np.array([float(a == b) for a, b in pairs])[subset]), subset, ""
    if name in ("mae", "mse"):
        gap = np.abs(score - human)
        return _mean_of(gap if name == "mae" else gap**2), subset, ""
    if name == "kendall":
        return _kendall_of(human, score), subset, ""
    if name in ("spearman", "pearson"):
        of_pairs = spearman if name == "spearman" else pearson
        return (lambda index: of_pairs(human[index], score[index])), subset, ""
    raise InputError(f"unknown metric {name!r}: expected one of {', '.join(METRICS)}")


def _mean_of(values: Floats) -> Resampled:
    return lambda index: np.asarray(values[index].mean(-1))


def _difference(one: Resampled, two: Resampled) -> Resampled:
    return lambda index: one(index) - two(index)


def _kendall_of(x: Floats, y: Floats) -> Resampled:
    """Kendall's tau-b of resamples: the signs of all pairs, weighted by how often each item was drawn."""
    if len(x) > MANY:
        return lambda index: kendall(x[index], y[index])
    sign_x, sign_y = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    pairs = (sign_x * sign_y, np.abs(sign_x), np.abs(sign_y))

    def tau(index: Ints) -> Floats:
        flat = index.reshape(-1, index.shape[-1])
        offsets = np.arange(len(flat))[:, None] * len(x)
        counts = np.bincount((flat + offsets).ravel(), minlength=len(flat) * len(x)).reshape(len(flat), -1)
        weights = counts.astype(np.float64)
        concordance, untied_x, untied_y = (((weights @ signs) * weights).sum(-1) for signs in pairs)
        with np.errstate(invalid="ignore"):
            taus: Floats = concordance / np.sqrt(untied_x * untied_y)
        return taus.reshape(index.shape[:-1])

    return tau


def _only(items: Judged, kept: npt.NDArray[np.bool_]) -> Judged:
    where = np.flatnonzero(kept).tolist()
    return Judged(
        items.human[kept],
        items.score[kept],
        None if items.human_labels is None else [items.human_labels[i] for i in where],
        None if items.labels is None else [items.labels[i] for i in where],
        None if items.mass is None else items.mass[kept],
    )
