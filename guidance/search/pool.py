"""Candidates that grow together: taken some steps, looked at, sorted out, and finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..run import DEFAULT_BATCH_SIZE
from ..types import Candidate, Job, Noise, Rows

if TYPE_CHECKING:
    from ..run import Run


class Pool:
    """Rows of a run between noise and picture, all at the same step, each on its way to be a candidate.

    A row has one candidate: made when it is first looked at, as a draft, and replaced in place when it is finished,
    so that whatever ends a run early leaves the latest image of each. Nothing is computed before `advance`.

    Args:
        run: whose budget, target and memory it works within.
        jobs: one per row.
        noise: of each row; default: what a plain call draws from the job's seed.
        overrides: arguments of the pipeline's call for these rows, such as fewer steps.
        batch_size: rows at once; None: 8, and half as many each time memory runs out.
        draft: the finished images are drafts too: `overrides` made them cheaper than the user's call.
    """

    def __init__(
        self,
        run: Run,
        jobs: Sequence[Job],
        noise: Sequence[Noise] | None = None,
        overrides: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        draft: bool = False,
    ) -> None:
        self.run = run
        self.jobs = list(jobs)
        self.batch_size = batch_size
        self.draft = draft
        self.candidates: list[Candidate | None] = [None] * len(self.jobs)
        start = noise or [Noise.of(job.seed) for job in self.jobs]
        self.rows: Any = run.sampler.begin([job.prompt for job in self.jobs], start, overrides)

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def progress(self) -> float:
        """Part of the steps taken, 0 to 1."""
        rows: Rows = self.rows
        return rows.done / rows.steps if rows.steps else 0.0

    def select(self, rows: Sequence[int]) -> Pool:
        """Return a pool of some of the rows, in that order; a row taken twice becomes two candidates."""
        part = object.__new__(Pool)
        part.__dict__.update(self.__dict__)
        index = list(rows)
        part.jobs = [self.jobs[i] for i in index]
        part.candidates = [self.candidates[i] if index.index(i) == k else None for k, i in enumerate(index)]
        part.rows = self.rows.select(index)
        return part

    def advance(self, until: float, eta: float = 0.0, seeds: Sequence[int] | None = None) -> None:
        """Take the steps up to a part of the trajectory (see `Sampler.advance`); none if it lies behind."""
        if self.rows.steps and self.rows.done >= max(1, round(until * self.rows.steps)):
            return

        def work(index: Sequence[int]) -> Any:
            fresh = None if seeds is None else [seeds[i] for i in index]
            return self.run.sampler.advance(self.rows.select(index), until, eta, fresh)

        before, nfe, seconds = self.progress, self.run.nfe, self.run.seconds
        parts = self.run.in_batches(len(self), self.batch_size, work)
        self.rows = self.run.sampler.join(parts)
        self.run.rates.learn(
            "drafts" if self.draft else "steps",
            (self.progress - before) * len(self),
            self.run.seconds - seconds,
            self.run.nfe - nfe,
        )

    def look(self) -> list[Candidate]:
        """Decode and score every row, finished or half-way; returns its candidates.

        The candidates' prompts, seeds and origins are the jobs'; `origin["steps"]` is how much of the trajectory
        was behind, and `origin["looks"]` the scores that a row had on the way.
        """
        whole = self.progress == 1.0
        seconds, nfe = self.run.seconds, self.run.nfe

        def work(index: Sequence[int]) -> list[Candidate]:
            started = self.run.seconds
            images, places = self.run.sampler.decode(self.rows.select(index), not whole, self.draft)
            seen = self.run.seconds
            made = [self._see(i, image, place) for i, image, place in zip(index, images, places, strict=True)]
            self.run.keep_track(made)  # before scoring: an interrupt must not lose them
            self.run.score(made)
            for candidate in made:
                candidate.finished = whole and not self.draft
                candidate.seconds["sample"] = candidate.seconds.get("sample", 0.0) + (seen - started) / len(made)
                candidate.seconds["score"] = candidate.seconds.get("score", 0.0) + (self.run.seconds - seen) / len(
                    made
                )
            return made

        parts = self.run.in_batches(len(self), self.batch_size, work)
        self.run.rates.learn("looks", len(self), self.run.seconds - seconds, self.run.nfe - nfe)
        return [candidate for part in parts for candidate in part]

    def draw(self) -> list[Candidate]:
        """Take every row to the end and look at it, batch by batch: what is made is seen, and kept, early."""
        size = self.batch_size or DEFAULT_BATCH_SIZE
        parts = [self.select(range(start, min(start + size, len(self)))) for start in range(0, len(self), size)]
        found: list[Candidate] = []
        for part in parts:
            part.advance(1.0)
            made = part.look()
            self.candidates[len(found) : len(found) + len(made)] = made
            found += made
        self.rows = self.run.sampler.join([part.rows for part in parts])
        return found

    def _see(self, row: int, image: Any, place: dict[str, Any]) -> Candidate:
        """Put a row's latest image into its candidate."""
        job, old = self.jobs[row], self.candidates[row]
        made = old or Candidate(image, job.prompt, job.seed, job.request.index, origin=dict(job.origin))
        if old is not None:
            made.origin.setdefault("looks", []).append(
                {"steps": made.origin["steps"], "score": None if made.score != made.score else made.score}
            )
        made.image, made.batch, made.finished = image, place, False
        made.origin["steps"] = round(self.progress, 4)
        self.run.unscored(made)
        self.candidates[row] = made
        return made

    def best(self, count: int, scores: Callable[[Candidate], float] | None = None) -> Pool:
        """Return a pool of the `count` best rows of each request, as last looked at; those not valid come last."""
        key = scores or (lambda candidate: candidate.score)
        chosen: list[int] = []
        for request in {job.request.index: None for job in self.jobs}:
            mine = [i for i, job in enumerate(self.jobs) if job.request.index == request]
            ranked = sorted(mine, key=lambda i: _rank(self.candidates[i], key))
            chosen += ranked[:count]
        return self.select(sorted(chosen))


def _rank(candidate: Candidate | None, key: Callable[[Candidate], float]) -> tuple[bool, float]:
    if candidate is None or not candidate.valid:
        return True, 0.0
    return False, -key(candidate)
