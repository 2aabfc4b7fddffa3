"""One call from inside: candidates are made and scored in batches, within a budget, and none is ever lost."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from PIL import Image

from .._errors import BatchError, GenerationError, InputError
from ..scorers import Scorer, Target, TargetScores, load_scorer
from .choosing import ImageEncoder, choose, keep_different, mean_distance, ties
from .memory import free_memory, is_out_of_memory
from .rates import Arm, Rates
from .rewriting.proposers.base import Proposer
from .types import REJECTED, Budget, Candidate, Interrupted, Job, Request, Sampler
from .watching import check_stopped, follow

logger = logging.getLogger("cogguided")

DEFAULT_BATCH_SIZE = 8
NOT_SCORED = "not scored: interrupted"
T = TypeVar("T")


class Run:
    """One call: makes and scores candidates within a budget, and keeps all it made whatever happens.

    Args:
        requests: what the user asked for.
        sampler: makes the images.
        target: scores them, against the user's own prompt; None: nothing is scored.
        budget: when to stop; one image per request is always made.
        progress: `progress(total=...)` is a context manager giving a bar with `update` and `set_postfix`.
        load: gives a scorer by name, such as "clip".
        bank: phrases that suit the generator (see `proposers.PhraseBank`).
        expander: gives what the generator's own language model makes of a prompt, if it was taught to.
        diversity: how much the images that are kept should differ, where several are (see `keep_different`).

    Attributes:
        candidates: all that were made, in that order.
        notes: what the user should know: memory, ties, scores that could not be read.
        keep: how many images to return per request.
        arms: by request, the wordings to draw from; the user's own unless a rewriting put others there.
        rates: what work has cost so far.
        facts: what a guidance has to tell of itself in the record, by its name.
        last: whether no further guidance follows the one that is running.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        sampler: Sampler,
        target: Target | None = None,
        budget: Budget | None = None,
        progress: Callable[..., AbstractContextManager[Any]] | None = None,
        load: Callable[[str], Scorer] = load_scorer,
        bank: str = "general",
        expander: Callable[[], Proposer] | None = None,
        diversity: float = 0.0,
    ) -> None:
        self.requests = list(requests)
        self.sampler = sampler
        self.target = target
        self.budget = budget or Budget()
        self.candidates: list[Candidate] = []
        self.notes: list[str] = []
        self.keep = 1
        self.arms: dict[int, list[Arm]] = {request.index: [Arm(request.prompt)] for request in self.requests}
        self.rates = Rates()
        self.facts: dict[str, Any] = {}
        self.interrupted = False
        self.load = load
        self.bank = bank
        self.expander = expander
        self.diversity = diversity
        self.last = True
        self._progress = progress
        self._fits: int | None = None  # largest batch that memory allows, once that is known
        self._last_cost: Budget | None = None  # of one image, in the latest batch
        self._scored = 0
        self._started = time.perf_counter()
        follow(self)

    @property
    def seconds(self) -> float:
        """Wall-clock since the run began."""
        return time.perf_counter() - self._started

    @property
    def nfe(self) -> int:
        """Network evaluations so far, as `Budget.nfe` counts them."""
        return self.sampler.nfe + self._scored

    def note(self, text: str) -> None:
        """Tell the user something, once: in the log now and in the output's notes."""
        if text not in self.notes:
            self.notes.append(text)
            logger.warning(text)

    def jobs(self, n: int, guidance: str, first: int = 0) -> list[Job]:
        """Return `n` jobs for each request, spread evenly over its wordings, seeds counting up from its own.

        The first seed of every wording comes before the second of any, and of every prompt likewise.
        """
        found = []
        for k in range(first, first + n):
            for request in self.requests:
                arms = self.arms[request.index]
                arm = arms[k % len(arms)]
                origin = {"guidance": guidance, "k": k, **arm.origin}
                seed = request.seed + arm.used + k // len(arms)
                found.append(Job(request, arm.prompt, seed, origin))
        return found

    def affordable(self, count: int, reserve: Mapping[str, float] | None = None, **units: float) -> int:
        """Return how many of `count` rows per request the rest of the budget allows, each taking so much work.

        Args:
            count: rows wanted per request.
            reserve: work per request that is to come afterwards and is put by.
            **units: work a row, as in `Rates`.
        """
        left = self._left(self.budget.seconds, self.seconds), self._left(self.budget.nfe, self.nfe)
        later = self.rates.cost(**(reserve or {}))
        for rest, each, kept in zip(left, self.rates.cost(**units), later, strict=True):
            if each > 0 and math.isfinite(rest):
                count = min(count, max(0, int((rest / len(self.requests) - kept) / each)))
        return count

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return self.budget != Budget()

    def bar(self, total: int, what: str = "") -> AbstractContextManager[Any]:
        """Return a progress bar, or nothing where none is wanted."""
        if self._progress is None:
            return nullcontext()
        shown: Any = self._progress(total=total)
        shown.set_description(what)
        bar: AbstractContextManager[Any] = shown
        return bar

    def in_batches(self, count: int, batch_size: int | None, work: Callable[[Sequence[int]], T]) -> list[T]:
        """Do `work` on rows 0 to count - 1, in batches as large as memory allows; returns what each gave.

        Raises:
            GenerationError: memory does not hold a single row.
        """
        done: list[T] = []
        start = 0
        while start < count:
            size = min(count - start, batch_size or DEFAULT_BATCH_SIZE, self._fits or count)
            try:
                done.append(work(range(start, start + size)))
            except (MemoryError, RuntimeError, BatchError) as error:
                if not self._smaller(size, error):
                    raise
                continue
            start += size
        return done

    def keep_track(self, candidates: Sequence[Candidate]) -> None:
        """Take candidates into the run's own list, those that are not there yet."""
        known = {id(candidate) for candidate in self.candidates}
        self.candidates += [c for c in candidates if id(c) not in known]

    def unscored(self, candidate: Candidate) -> None:
        """Mark a candidate whose image is new as one that no score is known of."""
        candidate.score, candidate.scores, candidate.stds = math.nan, {}, {}
        candidate.valid = self.target is None
        candidate.error = None if self.target is None else NOT_SCORED

    def spend(self, looks: int) -> None:
        """Count evaluations of a scorer that were not made by `score`."""
        self._scored += looks

    def make(self, jobs: Sequence[Job], batch_size: int | None = None, score: bool = True) -> list[Candidate]:
        """Sample and score jobs in order, in batches, until all are done or the budget ends; or sample them alone.

        Whole images alone, one call of the pipeline a batch, so it works with pipelines that cannot be stopped
        half-way; that is why there is `search.pool.Pool` beside it, which can do more and needs more.

        Before each batch its time is estimated from the one before, and it is made smaller or left out if
        it would not fit. When memory runs out, the batch is halved.

        Raises:
            GenerationError: memory does not hold a single image.
        """
        waiting = deque(jobs)
        before = len(self.candidates)
        bar = self._progress(total=len(jobs)) if self._progress else nullcontext()
        with bar as shown:
            while waiting:
                size = self._next_size(len(waiting), batch_size or DEFAULT_BATCH_SIZE)
                if size == 0:
                    self.note(f"budget spent: {len(waiting)} of {len(jobs)} candidates were not made")
                    break
                batch = [waiting.popleft() for _ in range(size)]
                if not self._make_batch(batch, score):
                    waiting.extendleft(reversed(batch))
                elif shown is not None:
                    shown.update(size)
                    best = max((c.score for c in self.candidates if c.valid), default=math.nan)
                    if math.isfinite(best):
                        shown.set_postfix(best=f"{best:.3f}")
        return self.candidates[before:]

    def _next_size(self, waiting: int, batch_size: int) -> int:
        size = min(waiting, batch_size, self._fits or waiting)
        owed = max(0, len(self.requests) - len(self.candidates))
        if self.budget == Budget():
            return size
        if self._last_cost is None:
            return min(size, owed or 1)  # a small first batch, to see what an image costs
        for left, each in (
            (self._left(self.budget.seconds, self.seconds), self._last_cost.seconds),
            (self._left(self.budget.nfe, self.nfe), self._last_cost.nfe),
        ):
            if each:
                size = min(size, max(0, int(min(left / each, size))))
        return max(size, min(owed, batch_size, self._fits or owed))

    @staticmethod
    def _left(limit: float | None, spent: float) -> float:
        return math.inf if limit is None else limit - spent

    def _make_batch(self, batch: Sequence[Job], score: bool = True) -> bool:
        """Sample and score; False if memory did not hold the batch and a smaller one should be tried."""
        seconds, nfe = self.seconds, self.nfe
        try:
            images = self.sampler.sample([job.prompt for job in batch], [job.seed for job in batch])
        except Interrupted as stopped:
            for job, image in zip(batch, stopped.images, strict=True):
                self.candidates.append(self._candidate(job, image, batch))
                self.candidates[-1].finished = False
            raise
        except (MemoryError, RuntimeError, BatchError) as error:
            if not self._smaller(len(batch), error):
                raise
            return False
        sampled = self.seconds
        made = [self._candidate(job, image, batch) for job, image in zip(batch, images, strict=True)]
        self.candidates += made  # before scoring: an interrupt must not lose them
        if score:
            self.score(made)
        for candidate in made:
            candidate.seconds["sample"] = (sampled - seconds) / len(batch)
            candidate.seconds["score"] = (self.seconds - sampled) / len(batch)
        cost = ((self.seconds - seconds) / len(batch), (self.nfe - nfe) / len(batch))
        self._last_cost = Budget(cost[0] or None, cost[1] or None)
        return True

    def _candidate(self, job: Job, image: Image.Image, batch: Sequence[Job]) -> Candidate:
        return Candidate(
            image,
            job.prompt,
            job.seed,
            job.request.index,
            valid=self.target is None,
            error=None if self.target is None else NOT_SCORED,
            origin=dict(job.origin),
            batch={
                "prompts": [mate.prompt for mate in batch],
                "seeds": [mate.seed for mate in batch],
                "index": next(i for i, mate in enumerate(batch) if mate is job),
            },
        )

    def _smaller(self, size: int, error: BaseException) -> bool:
        """Whether an error is one of the batch's size; later ones are smaller then."""
        if isinstance(error, BatchError):
            self._fits = 1
            self.note(str(error))
            return True
        if is_out_of_memory(error):
            self._halve(size, error)
            return True
        return False

    def _halve(self, size: int, error: BaseException) -> None:
        if size == 1:
            raise GenerationError(
                "out of memory with a single image: make it smaller (height=, width=), use a smaller dtype, "
                "or offload (pipe.enable_model_cpu_offload())"
            ) from error
        self._fits = size // 2
        self.note(f"out of memory with {size} images at once: going on with {self._fits}")
        free_memory()

    def score(self, candidates: Sequence[Candidate]) -> None:
        """Score candidates by the target, against the user's own prompts; halves when memory runs out."""
        check_stopped()
        rejected = [c for c in candidates if REJECTED in c.image.info]
        for candidate in rejected:
            candidate.error = str(candidate.image.info[REJECTED])
            candidate.valid = self.target is None
            self.note(f"seed {candidate.seed}: {candidate.error}")
        if rejected:
            candidates = [c for c in candidates if REJECTED not in c.image.info]
        if self.target is None or not candidates:
            return
        try:
            prompts = [self.requests[c.request].prompt for c in candidates]
            result = self.target([c.image for c in candidates], prompts)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or len(candidates) == 1:
                raise
            middle = len(candidates) // 2
            self.note(f"out of memory scoring {len(candidates)} images at once: scoring {middle} at a time")
            free_memory()
            self.score(candidates[:middle])
            self.score(candidates[middle:])
            return
        self._scored += len(candidates) * len(result.terms)
        write_scores(candidates, result)

    def finish(self) -> None:
        """Mark the chosen of each request and report ties and scores that could not be read."""
        for request in self.requests:
            mine = [c for c in self.candidates if c.request == request.index]
            invalid = [c for c in mine if not c.valid]
            if invalid:
                self.note(
                    f"'{request.prompt}': {len(invalid)} of {len(mine)} candidates have no valid score "
                    f"and cannot win ({invalid[0].error})"
                )
            chosen = self._choose(mine)
            if not chosen and self.interrupted:
                chosen = mine[: self.keep]  # nothing was scored yet: what there is, first seed first
            for candidate in chosen:
                candidate.chosen = True
            tied = ties(mine, chosen) if self.keep == 1 or not self.diversity else []
            if tied:
                seeds = ", ".join(str(c.seed) for c in tied)
                self.note(
                    f"'{request.prompt}': {len(tied)} candidates tie at {tied[0].score:.4f} "
                    f"(seeds {seeds}): the first made was taken"
                )

    def _choose(self, mine: Sequence[Candidate]) -> list[Candidate]:
        """The candidates of one request to return; where several are, they should differ."""
        eligible = choose(mine, len(mine))
        finished = [c for c in eligible if c.finished]
        if not self.diversity or min(self.keep, len(finished)) < 2 or not math.isfinite(finished[0].score):
            return eligible[: self.keep]
        encoder = self.load("clip")
        if not isinstance(encoder, ImageEncoder):
            raise InputError(
                f"diversity: the scorer {encoder.name!r} has no encode_images, so images cannot be told apart by it; "
                "pass diversity=0"
            )
        features = encoder.encode_images([c.image for c in finished])
        rows = keep_different([c.score for c in finished], features, self.keep, self.diversity)
        request = finished[0].request
        told = self.facts.setdefault("diversity", {"weight": self.diversity, "requests": []})
        told["requests"].append(
            {
                "request": request,
                "mean_distance": mean_distance(features[rows]),
                "mean_distance_of_the_best": mean_distance(features[: self.keep]),
                "of_all": mean_distance(features),
            }
        )
        return [finished[row] for row in rows]


def write_scores(candidates: Sequence[Candidate], result: TargetScores) -> None:
    """Copy what a target said of B images into their B candidates.

    >>> from ..scorers import FakeScorer, load_target
    >>> candidate = Candidate(Image.new("RGB", (2, 2), "white"), "snow", seed=0)
    >>> write_scores([candidate], load_target(FakeScorer())([candidate.image]))
    >>> candidate.score, candidate.scores
    (1.0, {'fake': 1.0})
    """
    totals = result.total.detach().tolist()
    terms = {
        name: (s.values.detach().tolist(), None if s.std is None else s.std.detach().tolist())
        for name, s in result.terms.items()
    }
    for i, candidate in enumerate(candidates):
        candidate.score = totals[i]
        candidate.scores = {name: values[i] for name, (values, _) in terms.items()}
        candidate.stds = {name: stds[i] for name, (_, stds) in terms.items() if stds is not None}
        candidate.error = result.errors[i]
        candidate.valid = math.isfinite(totals[i])
