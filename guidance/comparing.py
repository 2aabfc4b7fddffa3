"""Comparisons of candidates two by two, and the strengths that explain them best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .._errors import InputError
from ..scorers.base import ComparingScorer, Scores
from ..scorers.target import Target, TargetScores
from .memory import free_memory, is_out_of_memory
from .run import Run, write_scores
from .types import REJECTED, Candidate, Request

Pairs = list[tuple[int, int]]
Floats = npt.NDArray[np.float64]


def bradley_terry(count: int, pairs: Sequence[tuple[int, int]], wins: Sequence[float], prior: float = 0.1) -> Floats:
    """Strengths (count,) of which P(i beats j) = 1 / (1 + exp(s_j - s_i)) explains comparisons best; their mean is 0.

    Bradley & Terry 1952, "Rank Analysis of Incomplete Block Designs", by Newton's method.

    Args:
        count: how many are compared.
        pairs: which were compared.
        wins: P(the first is better), 0 to 1, of each pair.
        prior: weight of a normal prior, which keeps the strength of who always won finite.

    >>> strengths = bradley_terry(3, [(0, 1), (1, 2)], [0.9, 0.8])
    >>> strengths.argsort().tolist()
    [2, 1, 0]
    """
    strengths = np.zeros(count)
    one, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    for _ in range(50):
        beats = 1 / (1 + np.exp(strengths[other] - strengths[one]))
        slope = -prior * strengths
        np.add.at(slope, one, np.asarray(wins) - beats)
        np.add.at(slope, other, beats - np.asarray(wins))
        bend = beats * (1 - beats)
        matrix = prior * np.eye(count)
        for rows, columns, sign in ((one, one, 1), (other, other, 1), (one, other, -1), (other, one, -1)):
            np.add.at(matrix, (rows, columns), sign * bend)
        step = np.linalg.solve(matrix, slope)
        strengths += np.clip(step, -2, 2)
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return np.asarray(strengths - strengths.mean() if count else strengths)


def win_rates(strengths: Floats) -> Floats:
    """Probability (N,) that each beats another of them, on average over the others; 0.5 of one alone.

    >>> win_rates(np.zeros(3)).tolist()
    [0.5, 0.5, 0.5]
    """
    if len(strengths) < 2:
        return np.full(len(strengths), 0.5)
    beats = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
    return np.asarray((beats.sum(1) - 0.5) / (len(strengths) - 1))


def next_pairs(strengths: Floats, done: Sequence[tuple[int, int]], most: int, rng: np.random.Generator) -> Pairs:
    """Up to `most` pairs of neighbours in strength that were not compared, none of them in two pairs (a Swiss round).

    >>> next_pairs(np.array([3.0, 0.0, 1.0, 2.0]), [(0, 3)], 2, np.random.default_rng(0))
    [(0, 2), (3, 1)]
    """
    known = {frozenset(pair) for pair in done}
    waiting = list(np.lexsort((rng.random(len(strengths)), -strengths)))  # of equals, in any order
    found: Pairs = []
    while waiting and len(found) < most:
        one = waiting.pop(0)
        other = next((rival for rival in waiting if frozenset((one, rival)) not in known), None)
        if other is not None:
            waiting.remove(other)
            found.append((int(one), int(other)))
    return found


@dataclass
class Ranking:
    """Candidates that are compared two by two, by one judge or several.

    Attributes:
        count: candidates (N).
        weights: of each judge's win rates.
        pairs: compared so far.
        wins: (T, pairs) P(the first is better) by each judge; NaN where it could not tell.
    """

    count: int
    weights: Sequence[float]
    pairs: Pairs = field(default_factory=list)
    wins: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def rates(self) -> Floats:
        """(T, N) how probably each candidate beats another, NaN for one of which no comparison could be read."""
        found = np.full((len(self.weights), self.count), 0.5)
        met = np.array(self.pairs, dtype=np.int64).reshape(-1, 2)
        for judge, said in enumerate(self.wins):
            told = np.isfinite(said)
            found[judge] = win_rates(bradley_terry(self.count, [tuple(pair) for pair in met[told]], said[told]))
            found[judge, np.setdiff1d(met, met[told])] = np.nan
        return found

    def meet(self, most: int, ask: Callable[[Pairs], Sequence[Sequence[float]]], rng: np.random.Generator) -> int:
        """Play a round of at most so many comparisons; `ask` answers with (T, pairs). Returns how many there were."""
        standing = np.nan_to_num(np.asarray(self.weights) @ self.rates(), nan=-np.inf)
        new = next_pairs(standing, self.pairs, most, rng)
        if new:
            said = np.asarray(ask(new), dtype=np.float64)
            self.wins = np.concatenate([self.wins.reshape(len(self.weights), len(self.pairs)), said], axis=1)
            self.pairs += new
        return len(new)


def check_comparing(name: str, target: Target | None) -> Target:
    """Return a target all terms of which compare images.

    Raises:
        InputError: there is no target, or a term looks at one image at a time.
    """
    if target is None:
        raise InputError(f"{name}: nothing to search by: pass target=, a scorer that compares images")
    for term in target.terms:
        if not isinstance(term.scorer, ComparingScorer) or not term.scorer.compares:
            raise InputError(
                f"{name} compares images two by two, and the scorer '{term.name}' looks at one at a time: give an "
                "MLLM that is read by readout='pairwise', or search with BestOfN"
            )
    return target


def compare(run: Run, pairs: Sequence[tuple[Candidate, Candidate]], prompt: str) -> list[list[float]]:
    """P(the first is better) of pairs by each of a run's terms, NaN where it cannot be read; the budget counts it."""
    assert run.target is not None
    seconds, nfe = run.seconds, run.nfe
    found = [_by_one(term.scorer, pairs, prompt) for term in run.target.terms]
    run.spend(2 * len(pairs) * len(found))  # both orders
    run.rates.learn("comparisons", len(pairs), run.seconds - seconds, run.nfe - nfe)
    return found


def play(run: Run, target: Target, request: Request, most: int) -> None:
    """Rank a request's candidates by at most so many comparisons, within the budget; a score is a win rate."""
    mine = [c for c in run.candidates if c.request == request.index and REJECTED not in c.image.info]
    ranking = Ranking(len(mine), [term.weight for term in target.terms])
    rng, left = np.random.default_rng(request.seed), most

    def ask(pairs: Pairs) -> list[list[float]]:
        return compare(run, [(mine[one], mine[other]) for one, other in pairs], request.prompt)

    with run.bar(most, "comparisons") as bar:
        while fitting := run.affordable(left, comparisons=1.0):
            met = ranking.meet(fitting, ask, rng)
            if not met:
                break
            left -= met
            if bar is not None:
                bar.update(met)
    if left and not fitting:
        run.note(f"budget spent: {left} of {most} comparisons of {request.prompt!r} were not made")
    if mine:
        write_scores(mine, totals(target, ranking.rates()))
    said = np.round(ranking.wins.T, 4).tolist()
    told = [[mine[a].seed, mine[b].seed, *of] for (a, b), of in zip(ranking.pairs, said, strict=bool(ranking.pairs))]
    run.facts.setdefault("tournament", []).append({"request": request.index, "comparisons": len(told), "seeds": told})


def _by_one(scorer: Any, pairs: Sequence[tuple[Candidate, Candidate]], prompt: str) -> list[float]:
    try:
        said = scorer.compare([a.image for a, _ in pairs], [b.image for _, b in pairs], [prompt] * len(pairs))
        values: list[float] = said.values.tolist()
        return values
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(pairs) == 1:
            raise
    free_memory()
    middle = len(pairs) // 2
    return [*_by_one(scorer, pairs[:middle], prompt), *_by_one(scorer, pairs[middle:], prompt)]


def totals(target: Target, rates: Floats) -> TargetScores:
    """What a target says of candidates of which its terms give these win rates (T, N)."""
    values = torch.from_numpy(rates).float()
    total = torch.tensor([term.weight for term in target.terms]) @ values
    errors = [None if ok else "no comparison of it could be read" for ok in total.isfinite().tolist()]
    terms = {term.name: Scores(of) for term, of in zip(target.terms, values, strict=True)}
    return TargetScores(total, total.isfinite(), terms, errors)
