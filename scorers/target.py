"""Targets: what the user wants of an image, as one number from signed, normalised scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from .._errors import InputError
from .._texts import html_table
from .base import DimensionScorer, ImageInput, Scorer, Scores
from .dimensions import DIMENSIONS
from .registry import load_scorer

TargetSpec: TypeAlias = (
    str | Scorer | Mapping[str, float] | Mapping[Scorer, float] | Mapping[str | Scorer, float]
)
"""A name, weights as text ("memorability=1,emotional_valence=-0.5"), a scorer, or a mapping to weights."""


@dataclass(frozen=True)
class Term:
    """One part of a target: a scorer and its signed weight (0: scored and reported, not counted)."""

    name: str
    weight: float
    scorer: Scorer


@dataclass(frozen=True, eq=False)
class TargetScores:
    """What a target says of B images.

    Attributes:
        total: (B,) float32, sum of weight x (value - low) / (high - low), higher is better; NaN where not
            valid.
        valid: (B,) bool, False where a term with a weight has no score.
        terms: the raw scores of each term, in its own range.
        errors: per image why it is not valid, None where it is.
    """

    total: torch.Tensor
    valid: torch.Tensor
    terms: dict[str, Scores]
    errors: list[str | None]

    def _repr_html_(self) -> str:
        """What a notebook shows: a row an image, with the total and each term in its own range."""
        terms = [scores.values.tolist() for scores in self.terms.values()]
        rows = list(zip(range(len(self.total)), self.total.tolist(), *terms, self.errors, strict=True))
        return html_table(["image", "total", *self.terms, "why not"], rows)


class Target:
    """A weighted sum of scorers, each brought to [0, 1] by its own range.

    Values outside a scorer's stated range are not clamped. Terms that are dimensions of one loaded MLLM are
    scored in one pass.

    >>> from .models.fake import FakeScorer
    >>> target = Target([Term("light", -0.5, FakeScorer("light", high=2.0))])
    >>> target(torch.ones(1, 3, 2, 2)).total
    tensor([-0.2500])
    >>> target.low, target.high
    (-0.5, 0.0)
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        """Check the terms.

        Raises:
            InputError: no term, two of one name, no weight but 0, or a weight or range that is not finite.
        """
        names = [term.name for term in terms]
        if len(set(names)) != len(names):
            raise InputError(f"target: a name occurs twice in {names}")
        for term in terms:
            if not math.isfinite(term.weight):
                raise InputError(
                    f"target: the weight of '{term.name}' is {term.weight}, expected a finite number"
                )
            span = term.scorer.high - term.scorer.low
            if not (math.isfinite(span) and span > 0):
                raise InputError(
                    f"target: scorer '{term.name}' has range {term.scorer.low}..{term.scorer.high}; "
                    "a weighted term needs low < high, both finite"
                )
        if all(term.weight == 0 for term in terms):
            raise InputError("target: at least one term needs a weight other than 0, e.g. 'memorability=1'")
        self.terms = tuple(terms)

    @property
    def name(self) -> str:
        """The weights as text; a single term of weight 1 is just its name."""
        if len(self.terms) == 1 and self.terms[0].weight == 1:
            return self.terms[0].name
        return ",".join(f"{term.name}={term.weight:g}" for term in self.terms)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term by name."""
        return {term.name: term.weight for term in self.terms}

    @property
    def low(self) -> float:
        """Total of the worst image, when every term stays in its range."""
        return sum(min(term.weight, 0.0) for term in self.terms)

    @property
    def high(self) -> float:
        """Total of the best image, when every term stays in its range."""
        return sum(max(term.weight, 0.0) for term in self.terms)

    @property
    def blind(self) -> list[str]:
        """Names of the terms that count and pass no gradient to an image tensor."""
        return [term.name for term in self.terms if term.weight and not term.scorer.differentiable]

    @property
    def differentiable(self) -> bool:
        """Whether every term that counts passes gradients to an image tensor."""
        return not self.blind

    @property
    def needs_prompt(self) -> bool:
        """Whether a term compares images with prompts."""
        return any(term.scorer.needs_prompt for term in self.terms)

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> TargetScores:
        """Score B images by every term and add them up.

        Raises:
            InputError: not a batch of images, or a term needs prompts and none are given.
        """
        scores = self._score_terms(images, prompts)
        total: torch.Tensor | None = None
        errors: list[str | None] = [None] * len(images)
        for term in self.terms:
            if term.weight == 0:
                continue
            term_scores = scores[term.name]
            unit = (term_scores.values - term.scorer.low) / (term.scorer.high - term.scorer.low)
            total = term.weight * unit if total is None else total + term.weight * unit.to(total.device)
            for index, ok in enumerate(term_scores.valid.tolist()):
                if not ok and errors[index] is None:
                    reason = term_scores.errors[index] if term_scores.errors else None
                    errors[index] = f"{term.name}: {reason or 'not valid'}"
        assert total is not None  # __init__ has seen a weight
        return TargetScores(total, total.detach().isfinite(), scores, errors)

    def _score_terms(self, images: ImageInput, prompts: Sequence[str] | None) -> dict[str, Scores]:
        together: list[list[tuple[Term, DimensionScorer]]] = []  # one model and read-out, so one pass
        for term in self.terms:
            if not isinstance(term.scorer, DimensionScorer):
                continue
            for group in together:
                first = group[0][1]
                if first.core is term.scorer.core and first.options == term.scorer.options:
                    group.append((term, term.scorer))
                    break
            else:
                together.append([(term, term.scorer)])
        shared: dict[str, Scores] = {}
        for group in together:
            if len(group) > 1:
                asked = [scorer.dimension for _, scorer in group]
                needed = {"prompts": prompts} if any(scorer.needs_prompt for _, scorer in group) else {}
                answers: dict[str, Scores] = group[0][1].score_all(images, asked, **needed)
                shared.update({term.name: answers[scorer.dimension] for term, scorer in group})
        return {
            term.name: shared[term.name] if term.name in shared else term.scorer(images, prompts)
            for term in self.terms
        }

    def to(self, device: torch.device | str) -> Target:
        """Move every scorer and return the target itself."""
        for term in self.terms:
            term.scorer.to(device)
        return self


class Ensemble:
    """A target as a scorer: its values are the target's totals, between `low` and `high`.

    >>> from .models.fake import FakeScorer
    >>> both = Ensemble(load_target({FakeScorer("a"): 1, FakeScorer("b"): 1}))
    >>> both(torch.ones(1, 3, 2, 2)).values, both.low, both.high
    (tensor([2.]), 0.0, 2.0)
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.name = target.name
        self.low = target.low
        self.high = target.high
        self.differentiable = target.differentiable
        self.needs_prompt = target.needs_prompt

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images; where one term has no score the total is NaN, with the reason."""
        result = self.target(images, prompts)
        return Scores(result.total, errors=result.errors)

    def to(self, device: torch.device | str) -> Ensemble:
        """Move every scorer and return the ensemble itself."""
        self.target.to(device)
        return self


def parse_weights(text: str) -> dict[str, float]:
    """Read signed weights from text; a name alone weighs 1.

    Raises:
        InputError: a part that is not `name` or `name=number`, or a name that occurs twice.

    >>> parse_weights("memorability=1, emotional_valence=-0.5")
    {'memorability': 1.0, 'emotional_valence': -0.5}
    >>> parse_weights("funniness")
    {'funniness': 1.0}
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = math.nan
        if not name or not math.isfinite(weight):
            raise InputError(f"target: expected 'name' or 'name=number', got {part.strip()!r} in {text!r}")
        if name in weights:
            raise InputError(f"target: '{name}' occurs twice in {text!r}")
        weights[name] = weight
    return weights


def load_target(
    spec: TargetSpec,
    scorer: Scorer | Mapping[str, Scorer] | None = None,
    load: Callable[[str], Scorer] = load_scorer,
) -> Target:
    """Make a target from a name, weights, a scorer or a mapping; names are loaded unless `scorer` has them.

    Args:
        spec: what is wanted (see `TargetSpec`).
        scorer: scorers already loaded: one, used for its own name and, where it is an MLLM, for its other
            dimensions; or several by name.
        load: how to get a scorer by name. Dimension names are loaded once and share their weights.

    Raises:
        InputError: a malformed spec; UnknownNameError for a name nobody registered.

    >>> from .models.fake import FakeScorer
    >>> load_target("light=-1", scorer=FakeScorer("light")).weights
    {'light': -1.0}
    """
    if isinstance(spec, Scorer):
        return Target([Term(spec.name, 1.0, spec)])
    if isinstance(spec, str):
        weights: Mapping[Any, float] = parse_weights(spec)
    elif isinstance(spec, Mapping):
        weights = spec
    else:
        raise InputError(f"target: expected a name, weights or a scorer, got {type(spec).__name__}")
    terms: list[Term] = []
    for key, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise InputError(f"target: the weight of {key!r} is {weight!r}, expected a number")
        if isinstance(key, str):
            loaded = [term.scorer for term in terms if term.name in DIMENSIONS]
            terms.append(Term(key, float(weight), _find(key, scorer, loaded, load)))
        else:
            terms.append(Term(key.name, float(weight), key))
    return Target(terms)


def _find(
    name: str,
    given: Scorer | Mapping[str, Scorer] | None,
    loaded: Sequence[Scorer],
    load: Callable[[str], Scorer],
) -> Scorer:
    if isinstance(given, Mapping):
        if name in given:
            return given[name]
        candidates = [*given.values(), *loaded]
    elif given is not None:
        if name == given.name:
            return given
        candidates = [given, *loaded]
    else:
        candidates = list(loaded)
    for candidate in candidates:
        if isinstance(candidate, DimensionScorer) and name in candidate.dimensions:
            return candidate.with_dimension(name)
    return load(name)
