"""What others than the target say of a run: held-out judges, faithfulness, diversity; and the alarm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

TARGET, FAITHFULNESS, DIVERSITY = "target", "faithfulness", "diversity"
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What held-out prompts gave after a round.

    Attributes:
        round: 0 before training.
        seconds: of the run until then.
        values: (P,) of each member of the panel and of the "target", one per held-out prompt, means over its seeds,
            higher is better; NaN where nothing could be read.
        unread: images without a valid target score.
    """

    round: int
    seconds: float
    values: dict[str, Values]
    unread: int = 0

    def mean(self, name: str) -> float:
        """Mean over the prompts that were read."""
        return float(np.nanmean(self.values[name])) if np.isfinite(self.values[name]).any() else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {name: [float(v) for v in of] for name, of in self.values.items()}
        return {"round": self.round, "seconds": round(self.seconds, 2), "values": values, "unread": self.unread}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Evaluation:
        """Read plain values back; null is NaN.

        >>> Evaluation.from_dict({"round": 1, "seconds": 2.0, "values": {"target": [0.5, None]}}).mean("target")
        0.5
        """
        values = {
            name: np.array([math.nan if v is None else v for v in of], dtype=float)
            for name, of in facts["values"].items()
        }
        return cls(int(facts["round"]), float(facts["seconds"]), values, int(facts.get("unread", 0)))


def interval(differences: Values, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's interval for paired differences (P,); NaNs are left out.

    >>> [round(v, 2) for v in interval(np.array([0.9, 1.0, 1.1, np.nan]))]
    [1.0, 0.75, 1.25]
    """
    found = differences[np.isfinite(differences)]
    if len(found) < 2:
        return (float(found.mean()) if len(found) else math.nan), -math.inf, math.inf
    mean = float(found.mean())
    half = float(stdtrit(len(found) - 1, 0.5 + confidence / 2)) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Alarm:
    """Tells when the target still rises while a member of the panel falls: the scorer is being exploited.

    A member has fallen when, since the evaluation at which it stood highest, it lost more than its tolerance beyond
    noise (99 % interval, paired over held-out prompts with the same seeds) while the target rose beyond noise (95 %).

    Args:
        tolerances: of each member, in its own unit.
        patience: evaluations in a row at which the same member must have fallen; 0: never.

    >>> up, down = np.array([0.1, 0.2, 0.3]), np.array([3.0, 2.0, 1.0])
    >>> rising = [Evaluation(i, 0.0, {"target": up + i, "judge": down - i}) for i in range(3)]
    >>> Alarm({"judge": 0.0}, patience=2)(rising)
    'judge'
    """

    tolerances: Mapping[str, float]
    patience: int = 2
    confidence: float = field(default=0.99)

    def __call__(self, evaluations: Sequence[Evaluation]) -> str | None:
        """Return the member that has fallen long enough, or None."""
        if self.patience == 0 or len(evaluations) <= self.patience:
            return None
        recent = range(len(evaluations) - self.patience, len(evaluations))
        for name in self.tolerances:
            if all(self.fallen(name, evaluations[: i + 1]) for i in recent):
                return name
        return None

    def fallen(self, name: str, evaluations: Sequence[Evaluation]) -> bool:
        """Whether a member has fallen at the last evaluation, as against its highest, while the target rose."""
        now = evaluations[-1]
        peak = max(evaluations, key=lambda e: -math.inf if math.isnan(e.mean(name)) else e.mean(name))
        if peak is now:
            return False
        _, _, high = interval(now.values[name] - peak.values[name], self.confidence)
        _, rise, _ = interval(now.values[TARGET] - peak.values[TARGET])
        return high < -self.tolerances[name] and rise > 0

    def sound(self, evaluations: Sequence[Evaluation]) -> bool:
        """Whether no member has fallen at the last evaluation."""
        return not any(self.fallen(name, evaluations) for name in self.tolerances)


def best(evaluations: Sequence[Evaluation], alarm: Alarm) -> Evaluation:
    """Return the evaluation with the highest target among those at which no member of the panel had fallen.

    >>> low, high = (Evaluation(i, 0.0, {"target": np.array([0.1 * i])}) for i in (1, 2))
    >>> best([low, high], Alarm({})).round
    2
    """
    sound = [e for i, e in enumerate(evaluations) if alarm.sound(evaluations[: i + 1])]
    return max(sound or evaluations[:1], key=lambda e: -math.inf if math.isnan(e.mean(TARGET)) else e.mean(TARGET))
