"""Prompt rewriting: try other wordings of a prompt, keep those that the target likes and that still mean the same.

After OPT2I (Mañas et al. 2024, arXiv:2403.17804): propose, draw, score, tell the proposer how each wording did,
again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from scipy.special import stdtrit

from ..._errors import InputError
from ...scorers import Scorer
from ..rates import Arm
from ..run import Run
from ..search.common import check_part, check_scored, check_whole, finish, first_images
from ..search.pool import Pool
from ..types import Candidate, Job, Request
from .proposers.base import Proposer, Trial, clean_prompt, plain
from .proposers.registry import load_proposer

STRAYED = "its wording strayed from what was asked for"
NOT_BEST = "another wording was chosen"


@dataclass(eq=False)
class Wording:
    """A wording and what its images were like.

    Attributes:
        prompt: the wording.
        round: in which it was proposed; 0: the user's own, the first proposals are of round 1.
        images: score and faithfulness to the user's own prompt by seed.
        error: why it is out; None while it is in.
    """

    prompt: str
    round: int = 0
    images: dict[int, tuple[float, float]] = field(default_factory=dict)
    error: str | None = None

    @property
    def score(self) -> float:
        """Mean of the target over its images; NaN before there are any."""
        return _mean([score for score, _ in self.images.values()])

    @property
    def faithfulness(self) -> float:
        """Mean of its images' faithfulness."""
        return _mean([faithful for _, faithful in self.images.values()])

    def gains(self, other: Wording) -> list[float]:
        """By how much it scores above another wording, seed by seed, where both have an image."""
        return [self.images[s][0] - other.images[s][0] for s in self.images if s in other.images]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class RewritePrompt:
    """Try `n` other wordings of each prompt, `rounds` times, on `images` images each, from the same seeds.

    A wording whose images are less faithful to the user's own prompt than the own wording's, by more than `margin`,
    is out, and so is one without the words that the user quoted or put in [brackets]. The best of the others is
    chosen if it beats the user's own beyond noise: a one-sided t-test on the differences seed by seed, whose spread
    is pooled over all wordings. Else the user's own stays. A search that follows draws from what was chosen; alone,
    its best image is returned.

    Args:
        n: wordings proposed per round.
        rounds: of proposals; each is told how the earlier ones did.
        images: per wording.
        proposer: "phrases" (a bandit over a phrase bank), "expand" (the embedded generator's own language model),
            "scorer" (the MLLM scorer's own model), "http://host:8000#model", a chat model's folder or hub name,
            several joined by "+", or any object with a name and `propose`.
        margin: how much less faithful a wording may be, as a share of the own wording's faithfulness.
        faithfulness: scorer of images against texts.
        confidence: that a wording is better, at which it takes the place of the user's own; 0.5: whenever its mean
            is.
        steps: denoising steps of the images; fewer than the call's own make them drafts, and if nothing follows the
            `full` best are drawn again in full; None: as the call asks.
        full: how many drafts of the chosen wordings to draw in full if nothing follows; None: `keep` and one more.
        arms: wordings to go on with at most.
        keep: how many of the best images to return per prompt if nothing follows.
        batch_size: images at once; None: 8, and half as many each time memory runs out.

    >>> RewritePrompt(4).rounds
    1
    """

    n: int = 4
    rounds: int = 1
    images: int = 3
    proposer: str | Proposer = "phrases"
    margin: float = 0.02
    faithfulness: str | Scorer = "clip"
    confidence: float = 0.9
    steps: int | None = None
    full: int | None = None
    arms: int = 1
    keep: int = 1
    batch_size: int | None = None
    name: ClassVar[str] = "rewrite"

    def __post_init__(self) -> None:
        numbers = {"n": self.n, "rounds": self.rounds, "images": self.images, "arms": self.arms, "keep": self.keep}
        check_whole("RewritePrompt", **numbers, steps=self.steps, full=self.full, batch_size=self.batch_size)
        check_part("RewritePrompt", margin=self.margin)
        check_part("RewritePrompt", 0.5, 1.0, confidence=self.confidence)
        if self.keep > self.images * self.arms:
            raise InputError(
                f"RewritePrompt: keep={self.keep} of images={self.images} for each of arms={self.arms} wordings; "
                "keep at most all"
            )

    def __call__(self, run: Run) -> None:
        """Propose, draw, judge; leave the chosen wordings in `run.arms`."""
        check_scored("RewritePrompt", run)
        run.keep = self.keep
        for request in run.requests:
            run.arms[request.index] = [Arm(clean_prompt(request.prompt))]
        first = first_images(run, self.name, self.batch_size)
        proposer = load_proposer(self.proposer, run)
        judge = run.load(self.faithfulness) if isinstance(self.faithfulness, str) else self.faithfulness
        trials = {r.index: [Wording(clean_prompt(r.prompt))] for r in run.requests}
        told = run.facts.setdefault(self.name, {"proposer": proposer.name, "margin": self.margin, "requests": []})
        found: list[tuple[Wording, Job, Candidate]] = []
        with run.bar(self.rounds, "rewriting") as bar:
            for number in range(1, self.rounds + 1):
                fresh: list[tuple[Request, Wording]] = []
                for request in run.requests:
                    mine = trials[request.index]
                    new = propose(run, proposer, request, mine, number, self.n)
                    fresh += [(request, w) for w in ([*mine, *new] if number == 1 else new)]
                    mine += new
                made = self._draw(run, fresh, first)
                note_scores(judge, made)
                found += made
                for request in run.requests:
                    reject(trials[request.index], self.margin)
                if bar is not None:
                    bar.update(1)
                if len(made) < len(fresh) * self.images:
                    break
        for request in run.requests:
            chosen, facts = self._decide(trials[request.index])
            told["requests"].append({"request": request.index, **facts})
            if len(trials[request.index]) == 1:
                run.note(f"'{request.prompt}': no other wording was proposed for this target")
            run.arms[request.index] = [self._arm(wording, first) for wording in chosen]
        self._hold_back(run, found)
        if run.last and self.steps is not None:
            self._finish(run, found)

    def _draw(
        self, run: Run, fresh: Sequence[tuple[Request, Wording]], first: int
    ) -> list[tuple[Wording, Job, Candidate]]:
        """Draw and score images of wordings, all of a wording or none, as many as the budget allows.

        Their seeds count up from the `first` that is not used up.
        """
        kind, units = ("steps", 1.0) if self.steps is None else ("drafts", run.rates.drafts(self.steps))
        count = len(fresh)
        if run.limited:
            each = -(-count // len(run.requests))
            later = float(self.keep + 1 if self.full is None else self.full) if self.steps is not None else 0.0
            share = 1 if run.last else 2  # the other half is for what follows
            fits = run.affordable(
                share * each * self.images, {"steps": later, "looks": later}, **{kind: units, "looks": 1.0}
            )
            count = min(count, fits // share // self.images * len(run.requests))
            if count < len(fresh):
                run.note(f"budget: {len(fresh) - count} of {len(fresh)} wordings were not tried")
        jobs, owners = [], []
        for request, wording in fresh[:count]:
            for k in range(self.images):
                origin = {"guidance": self.name, "k": k, "round": wording.round}
                jobs.append(Job(request, wording.prompt, request.seed + first + k, origin))
                owners.append(wording)
        if not jobs:
            return []
        overrides = {} if self.steps is None else {"num_inference_steps": self.steps}
        pool = Pool(run, jobs, overrides=overrides, batch_size=self.batch_size, draft=self.steps is not None)
        pool.advance(1.0)
        return list(zip(owners, jobs, pool.look(), strict=True))

    def _decide(self, wordings: Sequence[Wording]) -> tuple[list[Wording], dict[str, Any]]:
        """Choose the wordings to go on with, and say how all did."""
        own, others = wordings[0], [w for w in wordings[1:] if w.error is None]
        spread, freedom = pooled_spread([w.gains(own) for w in wordings[1:]])
        better = []
        for wording in others:
            gain, width = _mean(wording.gains(own)), self._width(len(wording.gains(own)), spread, freedom)
            certain = gain - width > 0 if self.confidence > 0.5 else gain > 0
            if certain:
                better.append(wording)
            else:
                wording.error = "not better beyond noise"
        better.sort(key=lambda w: -w.score)
        chosen = better[: self.arms] or [own]
        for wording in better[self.arms :]:
            wording.error = "better, but not the best"
        own_spread = pooled_spread([[score for score, _ in w.images.values()] for w in wordings])
        facts = [self._facts(w, own, chosen, (spread, freedom), own_spread) for w in wordings]
        return chosen, {"chosen": [w.prompt for w in chosen], "wordings": facts}

    def _width(self, count: int, spread: float, freedom: int) -> float:
        """Half of the interval around a mean of differences, at the confidence asked for."""
        if count == 0 or freedom == 0 or not math.isfinite(spread):
            return math.inf
        return float(stdtrit(freedom, self.confidence)) * spread / math.sqrt(count)

    def _facts(
        self,
        wording: Wording,
        own: Wording,
        chosen: Sequence[Wording],
        gain: tuple[float, int],
        score: tuple[float, int],
    ) -> dict[str, Any]:
        """What the record says of a wording; intervals are two-sided, 95 %, with a pooled spread."""
        gains = wording.gains(own) if wording is not own else []
        return {
            "prompt": wording.prompt,
            "round": wording.round,
            "images": len(wording.images),
            "score": _finite(wording.score),
            "interval": interval(wording.score, len(wording.images), *score),
            "gain": _finite(_mean(gains)),
            "gain_interval": interval(_mean(gains), len(gains), *gain),
            "faithfulness": _finite(wording.faithfulness),
            "chosen": wording in chosen,
            "rejected": wording.error if wording not in chosen else None,
        }

    def _arm(self, wording: Wording, first: int) -> Arm:
        used = len(wording.images) if self.steps is None else 0
        used += first if wording.round == 0 or used else 0
        return Arm(wording.prompt, {"wording": wording.prompt} if wording.round else {}, used)

    def _hold_back(self, run: Run, found: Sequence[tuple[Wording, Job, Candidate]]) -> None:
        """Images of wordings that were not chosen cannot win; of the user's own only where that was chosen."""
        for wording, job, candidate in found:
            if wording.prompt not in [arm.prompt for arm in run.arms[job.request.index]]:
                strayed = wording.error is not None and wording.error.startswith("less faithful")
                candidate.held_back = STRAYED if strayed else NOT_BEST

    def _finish(self, run: Run, found: Sequence[tuple[Wording, Job, Candidate]]) -> None:
        """Draw the best drafts of the chosen wordings again, in full."""
        count = self.keep + 1 if self.full is None else self.full
        jobs: list[Job] = []
        for request in run.requests:
            mine = [(j, c) for _, j, c in found if j.request is request and c.valid and c.held_back is None]
            jobs += [job for job, _ in sorted(mine, key=lambda pair: pair[1].rank)[:count]]
        if jobs:
            finish(run, Pool(run, jobs, batch_size=self.batch_size))


def propose(
    run: Run, proposer: Proposer, request: Request, known: Sequence[Wording], number: int, n: int
) -> list[Wording]:
    """Return up to `n` new wordings of a request for a round; the proposer is told how the known ones did."""
    assert run.target is not None
    history = [Trial(w.prompt, w.score, len(w.images), w.error is None) for w in known if w.images]
    seed = (request.seed + number) % 2**31
    texts = proposer.propose(request.prompt, run.target.weights, history, n, seed)
    seen = {plain(w.prompt) for w in known}
    return [Wording(text, number) for text in texts if plain(text) not in seen][:n]


def note_scores(judge: Scorer, made: Sequence[tuple[Wording, Job, Candidate]]) -> None:
    """Note the images' scores, and how faithful they are to what the user asked for, with their wordings."""
    if not made:
        return
    asked = [clean_prompt(job.request.prompt) for _, job, _ in made]
    faithful = judge([candidate.image for _, _, candidate in made], asked).values.tolist()
    for (wording, job, candidate), value in zip(made, faithful, strict=True):
        wording.images[job.seed] = (candidate.score if candidate.valid else math.nan, value)
        candidate.origin["faithfulness"] = round(value, 4) if math.isfinite(value) else None


def reject(wordings: Sequence[Wording], margin: float) -> None:
    """Note why a wording is out: the first is the user's own, which never is."""
    own = wordings[0].faithfulness
    for wording in wordings[1:]:
        wording.error = None
        if not wording.images:
            wording.error = "not tried: budget spent"
        elif not math.isfinite(wording.score):
            wording.error = "no image with a valid score"
        elif not wording.faithfulness >= own - margin * abs(own):
            wording.error = (
                f"less faithful to the prompt: {wording.faithfulness:.4f}, the own wording's {own:.4f} "
                f"less {margin:.0%} allowed"
            )


def pooled_spread(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the standard deviation within groups, pooled over them, and its degrees of freedom.

    >>> pooled_spread([[1.0, 3.0], [10.0, 12.0]])
    (1.4142135623730951, 2)
    """
    known = [np.array([v for v in group if math.isfinite(v)]) for group in groups]
    freedom = sum(max(0, len(group) - 1) for group in known)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in known if len(group) > 1)
    return (math.sqrt(squares / freedom), freedom) if freedom else (math.nan, 0)


def interval(mean: float, count: int, spread: float, freedom: int) -> list[float] | None:
    """Return the two-sided 95 % t-interval of a mean of `count` values; None where it cannot be known.

    >>> interval(1.0, 4, spread=0.5, freedom=10)
    [0.443, 1.557]
    """
    if count == 0 or freedom == 0 or not math.isfinite(mean):
        return None
    width = float(stdtrit(freedom, 0.975)) * spread / math.sqrt(count)
    return [round(mean - width, 4), round(mean + width, 4)]


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
