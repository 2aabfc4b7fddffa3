"""What the page asks for: one value that makes the images, and from which the code for the same is written."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._defaults import AUTO
from .._errors import InputError
from ..guidance import Budget, Guidance, Variations
from ..guidance.search.named import named_guidance
from ..pipelines import CogGuidedOutput, CogGuidedPipeline
from ..pipelines.loading import EMBEDDED

MOST_CANDIDATES, LONGEST_PROMPT, LARGEST_SIZE = 256, 4000, 4096
VARIATIONS = 9
RANDOM_SEEDS = 1_000_000
"""Below this, so that they can be read and typed again."""


@dataclass(frozen=True)
class Settings:
    """One call, as `cogguided generate` has its options.

    Attributes:
        prompt: what to draw.
        target: signed weights by name; empty: nothing is scored.
        seed: of the first candidate.
        model: "embedded", a folder, or a hub name.
        scorer: scores the target's terms; None: by name.
        search: a name of `searches()`.
        n: candidates; None: the search's own number.
        keep: how many of the best to choose.
        rewrite: other wordings; None: the search's own number.
        steps: denoising steps; None: the pipeline's own.
        size: pixels of width and height; None: the pipeline's own.
        budget: "30s" or "400nfe"; None: no limit.
        device: where the model is; None: the first there is.
        dtype: of its weights.
    """

    prompt: str
    target: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    model: str = EMBEDDED
    scorer: str | None = None
    search: str = AUTO
    n: int | None = None
    keep: int = 1
    rewrite: int | None = None
    steps: int | None = None
    size: int | None = None
    budget: str | None = None
    device: str | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Check what the page can get wrong.

        Raises:
            InputError: one sentence on what was expected.
        """
        if not self.prompt.strip():
            raise InputError("prompt: type what should be drawn, e.g. a face")
        if len(self.prompt) > LONGEST_PROMPT:
            raise InputError(f"prompt: expected at most {LONGEST_PROMPT} characters, got {len(self.prompt)}")
        for name, value, low, high in (
            ("candidates", self.n, 1, MOST_CANDIDATES),
            ("keep", self.keep, 1, MOST_CANDIDATES),
            ("other wordings", self.rewrite, 0, MOST_CANDIDATES),
            ("steps", self.steps, 1, 1000),
            ("size", self.size, 1, LARGEST_SIZE),
            ("seed", self.seed, 0, 2**53 - 1),  # what a browser can hold
        ):
            if value is not None and not low <= value <= high:
                raise InputError(f"{name}: expected a whole number from {low} to {high}, got {value}")
        Budget.parse(self.budget)

    @property
    def target_text(self) -> str | None:
        """The target as the command line has it.

        >>> Settings("a face", {"memorability": 1.0, "emotional_valence": -0.5}).target_text
        'memorability=1,emotional_valence=-0.5'
        """
        if len(self.target) == 1 and 1.0 in self.target.values():
            return next(iter(self.target))
        return ",".join(f"{name}={weight:g}" for name, weight in self.target.items()) or None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the base pipeline's call."""
        found: dict[str, Any] = {} if self.size is None else {"width": self.size, "height": self.size}
        return found if self.steps is None else {**found, "num_inference_steps": self.steps}

    def guidance(self) -> list[Guidance]:
        """What gets better images, as `cogguided generate` would.

        >>> [step.name for step in Settings("a face", {"clip": 1.0}).guidance()]
        ['joint']
        """
        if self.search == Variations.name and not self.target:
            return [Variations(self.n or VARIATIONS, keep=self.keep)]
        few = self.model == EMBEDDED and self.steps is None
        scored = bool(self.target)
        return named_guidance(self.search, self.n, self.keep, self.rewrite, scored=scored, few_steps=few)

    @property
    def expected(self) -> int:
        """How many candidates there will be, where nothing stops the call; 0: not known."""
        count = 0
        for step in self.guidance():
            told = getattr(step, "total", getattr(step, "n", 0))
            count += told if isinstance(told, int) else 0
        return count or 1

    def make(self, pipe: CogGuidedPipeline) -> CogGuidedOutput:
        """Make the images."""
        output: CogGuidedOutput = pipe(
            self.prompt,
            target=self.target_text,
            guidance=self.guidance(),
            seed=self.seed,
            budget=self.budget,
            **self.arguments,
        )
        return output

    @property
    def folder_name(self) -> str:
        """A folder's name that says what is in it and when it was made."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower()).strip("-")[:32].strip("-") or "images"
        return f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}"


def weights_of(names: Sequence[str], values: Sequence[float | None], judge: str | None, weight: float | None) -> dict[
    str, float
]:
    """Return a target's weights from sliders, those that are not 0, and a further judge with its own.

    >>> weights_of(["memorability", "funniness"], [1, 0], "clip", 0.3)
    {'memorability': 1.0, 'clip': 0.3}
    """
    found = {name: float(value) for name, value in zip(names, values, strict=True) if value}
    return {**found, judge: float(weight)} if judge and weight else found


def whole(name: str, text: str | None) -> int | None:
    """Return the number in a field; None where it is empty.

    Raises:
        InputError: not a whole number.

    >>> whole("steps", " 5 "), whole("steps", "")
    (5, None)
    """
    text = (text or "").strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name}: expected a whole number, or nothing, got {text[:40]!r}") from None


def seed_of(value: str | None) -> int:
    """Return a seed: the one that was given, or a random one."""
    found = whole("seed", value)
    return secrets.randbelow(RANDOM_SEEDS) if found is None else found
