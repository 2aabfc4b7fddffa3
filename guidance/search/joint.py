"""Wordings and seeds searched together, by cheap drafts: the default of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..._defaults import DRAFT_STEPS
from ..._errors import InputError
from ...scorers import Scorer
from ..rates import Arm
from ..rewriting.proposers.base import Proposer, clean_prompt
from ..rewriting.proposers.registry import load_proposer
from ..rewriting.rewrite_prompt import Wording, note_scores, propose, reject
from ..run import Run
from ..types import Candidate, Job, Request
from .common import check_part, check_scored, check_whole, finish, first_images
from .pool import Pool

STRAYED = "strayed from what was asked for"
Made = list[tuple[Wording, Job, Candidate]]


@dataclass(frozen=True)
class JointSearch:
    """Make `n` drafts of each prompt, some in other wordings, then the `full` best in full from the same noise.

    In each round `rewrites` new wordings get one draft each; the other drafts go to the user's own wording, and from
    the second round on in turn to the best wordings so far, the worse half of which is left behind. An image of
    another wording cannot win if it is less faithful to the user's own prompt than the own wording's images are on
    average, by more than `margin`, and a wording whose images are so is out. What is in quotes or [brackets] stays.

    Unlike `RewritePrompt` it asks for no proof that a wording is better: it looks for one good image, not for a good
    wording.

    Args:
        n: drafts per prompt, in all rounds together.
        rewrites: new wordings per round; None: half of its drafts.
        rounds: each is told how the wordings so far did.
        steps: denoising steps of a draft.
        full: how many drafts to make in full; None: `keep` and one more, for what a draft got wrong. 0: none, the
            drafts are what is returned, so `steps` must be enough for a picture.
        keep: how many of the best to return per prompt.
        proposer: of wordings (see `RewritePrompt`).
        margin: how much less faithful an image may be, as a share of the own wording's faithfulness.
        faithfulness: scorer of images against texts.
        batch_size: images at once; None: 8, and half as many each time memory runs out.

    >>> JointSearch().finalists
    2
    """

    n: int = 12
    rewrites: int | None = None
    rounds: int = 1
    steps: int = DRAFT_STEPS
    full: int | None = None
    keep: int = 1
    proposer: str | Proposer = "phrases"
    margin: float = 0.02
    faithfulness: str | Scorer = "clip"
    batch_size: int | None = None
    name: ClassVar[str] = "joint"

    def __post_init__(self) -> None:
        numbers = {"n": self.n, "rounds": self.rounds, "steps": self.steps, "keep": self.keep}
        check_whole("JointSearch", **numbers, batch_size=self.batch_size)
        check_whole("JointSearch", 0, rewrites=self.rewrites, full=self.full)
        check_part("JointSearch", margin=self.margin)
        if self.n < self.rounds * (self.new + 1):
            raise InputError(
                f"JointSearch: n={self.n} drafts are too few for rewrites={self.new} wordings and the own one "
                f"in each of rounds={self.rounds}"
            )
        if not self.keep <= (self.finalists or self.n) <= self.n:
            raise InputError(
                f"JointSearch: expected keep <= full <= n, got keep={self.keep}, full={self.full}, n={self.n}"
            )

    @property
    def new(self) -> int:
        """New wordings per round."""
        return self.n // (2 * self.rounds) if self.rewrites is None else self.rewrites

    @property
    def finalists(self) -> int:
        """How many drafts are made in full."""
        return min(self.n, self.keep + 1) if self.full is None else self.full

    def __call__(self, run: Run) -> None:
        """Draft, learn, draft again; then finish the best."""
        check_scored("JointSearch", run)
        run.keep = self.keep
        proposer = load_proposer(self.proposer, run) if self.new else None
        judge = run.load(self.faithfulness) if isinstance(self.faithfulness, str) else self.faithfulness
        trials = {request.index: [Wording(clean_prompt(request.prompt))] for request in run.requests}
        for request in run.requests:
            run.arms[request.index] = [Arm(clean_prompt(request.prompt))]
        first = first_images(run, self.name, self.batch_size)
        made: Made = []
        with run.bar(self.rounds + 1, "joint search") as bar:
            for number in range(1, self.rounds + 1):
                jobs: list[tuple[Wording, Job]] = []
                count = self.n * number // self.rounds - self.n * (number - 1) // self.rounds
                for request in run.requests:
                    mine = trials[request.index]
                    fresh = [] if proposer is None else propose(run, proposer, request, mine, number, self.new)
                    jobs += self._share(request, mine, fresh, count, first)
                    mine += fresh
                drawn = self._draw(run, jobs)
                note_scores(judge, drawn)
                made += drawn
                for mine in trials.values():
                    reject(mine, self.margin)
                if bar is not None:
                    bar.update(1)
                if len(drawn) < len(jobs):
                    break
            self._finish(run, made, trials)
            if bar is not None:
                bar.update(1)
        told = [{"request": index, "wordings": _facts(mine)} for index, mine in trials.items()]
        run.facts[self.name] = {"proposer": None if proposer is None else proposer.name, "requests": told}

    def _share(
        self, request: Request, known: Sequence[Wording], fresh: Sequence[Wording], count: int, first: int
    ) -> list[tuple[Wording, Job]]:
        """Share a round's drafts out: one to each new wording, the rest in turn to the better half of the others.

        The others come first: a budget that cuts a round short must leave something to compare wordings with.
        """
        good = sorted((w for w in known if w.error is None), key=lambda w: -w.score if w.images else 0.0)
        good = good[: max(1, (len(good) + 1) // 2)]
        taken = [*(good[k % len(good)] for k in range(count - len(fresh))), *fresh]
        used = {id(w): len(w.images) for w in taken}
        jobs = []
        for wording in taken:
            k = used[id(wording)]
            used[id(wording)] += 1
            origin = {"guidance": self.name, "k": k, "round": wording.round}
            jobs.append((wording, Job(request, wording.prompt, request.seed + first + k, origin)))
        return jobs

    def _draw(self, run: Run, jobs: Sequence[tuple[Wording, Job]]) -> Made:
        """Draw and score drafts, as many as the budget allows beside the finish."""
        count = len(jobs)
        if run.limited:
            each = -(-count // len(run.requests))
            later = {"steps": float(self.finalists), "looks": float(self.finalists)}
            fits = run.affordable(each, later, drafts=run.rates.drafts(self.steps), looks=1.0)
            count = min(count, fits * len(run.requests))
            if count < len(jobs):
                run.note(f"budget: {len(jobs) - count} of {len(jobs)} drafts were not made")
        if count == 0:
            return []
        # under a budget that cuts them short all prompts keep some
        order = sorted(
            range(len(jobs)), key=lambda i: sum(jobs[j][1].request is jobs[i][1].request for j in range(i))
        )
        chosen = [jobs[i] for i in sorted(order[:count])]
        pool = Pool(
            run, [job for _, job in chosen], overrides={"num_inference_steps": self.steps},
            batch_size=self.batch_size, draft=True,
        )  # fmt: skip
        return [(wording, job, c) for (wording, job), c in zip(chosen, pool.draw(), strict=True)]

    def _finish(self, run: Run, made: Made, trials: Mapping[int, Sequence[Wording]]) -> None:
        """Hold back the images of wordings that strayed, and draw the best of the others in full."""
        jobs: list[Job] = []
        for request in run.requests:
            mine = [(w, j, c) for w, j, c in made if j.request is request]
            own = trials[request.index][0].faithfulness
            for wording, job, candidate in mine:
                faithful = wording.images[job.seed][1]
                if wording.round and (wording.error or not faithful >= own - self.margin * abs(own)):
                    candidate.held_back = STRAYED
            fit = [(j, c) for _, j, c in mine if c.held_back is None and c.valid]
            if self.finalists == 0:
                for _, candidate in fit:
                    candidate.finished = True
            jobs += [job for job, _ in sorted(fit, key=lambda pair: pair[1].rank)[: self.finalists]]
        if jobs:
            finish(run, Pool(run, jobs, batch_size=self.batch_size))


def _facts(wordings: Sequence[Wording]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": w.prompt,
            "round": w.round,
            "images": len(w.images),
            "score": round(w.score, 4) if w.images else None,
            "faithfulness": round(w.faithfulness, 4) if w.images else None,
            "rejected": w.error,
        }
        for w in wordings
    ]
