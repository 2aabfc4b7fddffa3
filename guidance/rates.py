"""What a run learns as it goes: what work costs, and which wordings there are to draw from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Rates:
    """What work has cost lately, in seconds and in network evaluations.

    Attributes:
        known: by kind of work, (seconds, evaluations) of one unit: "steps", a whole trajectory; "drafts", a whole
            draft; "looks", decoding and scoring an image; "gradients", one of an image's score in its latents.
        whole: denoising steps of a whole trajectory; 0: not known yet.

    >>> rates = Rates()
    >>> rates.learn("looks", 4, seconds=2.0, nfe=4)
    >>> rates.cost(looks=10)
    (5.0, 10.0)
    """

    known: dict[str, tuple[float, float]] = field(default_factory=dict)
    whole: int = 0

    def learn(self, kind: str, units: float, seconds: float, nfe: float) -> None:
        """Note what some units of work took; the latest says most, as batches and machines change."""
        if units > 0:
            now = (seconds / units, nfe / units)
            old = self.known.get(kind, now)
            self.known[kind] = (0.7 * now[0] + 0.3 * old[0], 0.7 * now[1] + 0.3 * old[1])

    def drafts(self, steps: int) -> float:
        """Return what to count a draft of so many steps as: 1, or more where it takes more than a whole image.

        >>> Rates(whole=2).drafts(4), Rates(whole=20).drafts(4)
        (2.0, 1.0)
        """
        known = "drafts" in self.known or not self.whole
        return 1.0 if known else max(1.0, steps / self.whole)

    def cost(self, **units: float) -> tuple[float, float]:
        """Return (seconds, evaluations) that work would take; 0 for what was never done.

        Until one was made, a draft counts as a whole image, and a gradient as three, forward and backward.

        >>> rates = Rates({"steps": (1.0, 20.0)})
        >>> rates.cost(drafts=2)
        (2.0, 40.0)
        """
        whole = self.known.get("steps", (0.0, 0.0))
        unknown = {"drafts": whole, "gradients": (3 * whole[0], 3 * whole[1])}
        parts = [(n, self.known.get(kind, unknown.get(kind, (0.0, 0.0)))) for kind, n in units.items()]
        return sum(n * each[0] for n, each in parts), sum(n * each[1] for n, each in parts)


@dataclass(frozen=True)
class Arm:
    """A wording that stands for a request's prompt, where it comes from, and how many of its seeds are used up."""

    prompt: str
    origin: dict[str, Any] = field(default_factory=dict)
    used: int = 0
