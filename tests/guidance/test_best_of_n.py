"""Best-of-N and the run beneath it, with a sampler made of plain colours: no diffusion, no weights."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from cogguided import BestOfN, Budget, FakeScorer
from cogguided._errors import GenerationError, InputError, RecordError, UnknownNameError
from cogguided.guidance import Job, Request, Run, as_guidance, guidance_from_dict, guidance_to_dict
from cogguided.guidance.memory import is_out_of_memory
from cogguided.scorers import Scores, load_target


def brightness(prompt, seed):
    return (37 * seed + 11 * len(prompt)) % 251


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self):
        self.now = 0.0

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("cogguided.guidance.run.time", fake)
    return clock


class SlowScorer(FakeScorer):
    """Takes two seconds an image."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def __call__(self, images, prompts=None):
        self.clock.pass_(2 * len(images))
        return super().__call__(images, prompts)


class ColourSampler:
    """Image of prompt and seed: one grey. Counts calls; can run out of memory, be interrupted.

    With a clock it takes three seconds an image.
    """

    def __init__(self, fits=None, interrupt_at=None, clock=None, grey=brightness):
        self.fits, self.interrupt_at, self.clock, self.grey = fits, interrupt_at, clock, grey
        self.nfe = 0
        self.batches = []

    def sample(self, prompts, seeds):
        if self.fits is not None and len(prompts) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.interrupt_at is not None and len(self.batches) == self.interrupt_at:
            raise KeyboardInterrupt
        if self.clock is not None:
            self.clock.pass_(3 * len(prompts))
        self.batches.append(len(prompts))
        self.nfe += 10 * len(prompts)
        return [Image.new("RGB", (2, 2), (self.grey(p, s),) * 3) for p, s in zip(prompts, seeds, strict=True)]


def make_run(sampler=None, prompts=("a cat",), scorer=None, budget=None, seed=0):
    requests = [Request(i, prompt, seed) for i, prompt in enumerate(prompts)]
    target = load_target(scorer or FakeScorer())
    return Run(requests, sampler or ColourSampler(), target, Budget.parse(budget))


def finished(run, guidance):
    guidance(run)
    run.finish()
    return run


def test_the_best_of_consecutive_seeds_wins():
    run = finished(make_run(seed=5), BestOfN(8))
    assert [c.seed for c in run.candidates] == list(range(5, 13))
    best = max(range(5, 13), key=lambda s: brightness("a cat", s))
    assert [c.seed for c in run.candidates if c.chosen] == [best]
    chosen = next(c for c in run.candidates if c.chosen)
    assert chosen.score == chosen.scores["fake"] == pytest.approx(brightness("a cat", best) / 255)
    assert chosen.origin == {"guidance": "best_of_n", "k": best - 5}


def test_a_negative_weight_turns_the_choice_around():
    requests = [Request(0, "a cat", 0)]
    run = finished(Run(requests, ColourSampler(), load_target({FakeScorer(): -1})), BestOfN(8))
    worst = min(range(8), key=lambda s: brightness("a cat", s))
    assert [c.seed for c in run.candidates if c.chosen] == [worst]


def test_keep_returns_the_best_few_per_prompt():
    run = finished(make_run(prompts=("a cat", "a dog!")), BestOfN(6, keep=2))
    for request, prompt in enumerate(("a cat", "a dog!")):
        order = sorted(range(6), key=lambda s: -brightness(prompt, s))
        kept = {c.seed for c in run.candidates if c.chosen and c.request == request}
        assert kept == set(order[:2])


@pytest.mark.parametrize(("batch_size", "batches"), [(None, [8, 2]), (4, [4, 4, 2]), (1, [1] * 10)])
def test_batches(batch_size, batches):
    sampler = ColourSampler()
    run = finished(make_run(sampler), BestOfN(10, batch_size))
    assert sampler.batches == batches
    for candidate in run.candidates:
        assert candidate.batch["seeds"][candidate.batch["index"]] == candidate.seed


def test_prompts_take_turns():
    run = finished(make_run(prompts=("a", "b")), BestOfN(3, batch_size=3))
    assert [(c.prompt, c.seed) for c in run.candidates] == [(p, s) for s in range(3) for p in "ab"]


def test_the_scorer_sees_the_users_prompt():
    seen = []

    class Listening(FakeScorer):
        def __call__(self, images, prompts=None):
            seen.extend(prompts)
            return super().__call__(images, prompts)

    run = make_run(prompts=("a cat",), scorer=Listening())
    run.make([Job(run.requests[0], "a fluffy cat, best quality", 0)])
    assert seen == ["a cat"]
    assert run.candidates[0].prompt == "a fluffy cat, best quality"


def test_ties_are_reported_and_broken_by_seed(caplog):
    run = finished(make_run(ColourSampler(grey=lambda p, s: [9, 200, 3, 200][s])), BestOfN(4))
    assert [c.seed for c in run.candidates if c.chosen] == [1]
    (note,) = run.notes
    assert "2 candidates tie" in note
    assert "seeds 1, 3" in note
    assert note in caplog.text
    assert not finished(make_run(), BestOfN(4)).notes, "different scores are no tie"


def test_out_of_memory_halves_the_batch_and_says_so(caplog):
    sampler = ColourSampler(fits=3)
    run = finished(make_run(sampler), BestOfN(10))
    assert sampler.batches == [2] * 5  # 8 and 4 did not fit
    assert [c.seed for c in run.candidates] == list(range(10))
    assert "out of memory with 8 images at once: going on with 4" in run.notes
    assert "going on with 2" in caplog.text


def test_out_of_memory_with_one_image_is_an_error():
    with pytest.raises(GenerationError, match="single image") as caught:
        BestOfN(4)(make_run(ColourSampler(fits=0)))
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_out_of_memory_in_the_scorer_loses_no_image():
    class Greedy(FakeScorer):
        def __call__(self, images, prompts=None):
            if len(images) > 2:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return super().__call__(images, prompts)

    sampler = ColourSampler()
    run = finished(make_run(sampler, scorer=Greedy()), BestOfN(8))
    assert sampler.batches == [8]
    assert all(c.valid for c in run.candidates)
    assert any("scoring 4 at a time" in note for note in run.notes)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("x")])
def test_other_errors_are_not_taken_for_memory(error):
    assert not is_out_of_memory(error)


class HalfBlind(FakeScorer):
    """Cannot read images brighter than half."""

    def __call__(self, images, prompts=None):
        values = super().__call__(images, prompts).values
        unread = values > 0.5
        errors = ["too bright to read" if bad else None for bad in unread.tolist()]
        return Scores(values.masked_fill(unread, math.nan), errors=errors)


def test_what_could_not_be_scored_never_wins_and_is_counted():
    run = finished(make_run(scorer=HalfBlind()), BestOfN(8))
    invalid = [c for c in run.candidates if not c.valid]
    assert invalid
    assert all(math.isnan(c.score) and "too bright" in c.error and not c.chosen for c in invalid)
    readable = [c for c in run.candidates if c.valid]
    assert max(readable, key=lambda c: c.score).chosen
    assert any(f"{len(invalid)} of 8 candidates have no valid score" in note for note in run.notes)


def test_interrupt_while_sampling_keeps_what_is_there():
    run = make_run(ColourSampler(interrupt_at=2))
    with pytest.raises(KeyboardInterrupt):
        BestOfN(12, batch_size=4)(run)
    run.interrupted = True
    run.finish()
    assert len(run.candidates) == 8
    assert max(run.candidates, key=lambda c: c.score).chosen


def test_interrupt_while_scoring_keeps_the_images():
    class Interrupted(FakeScorer):
        def __call__(self, images, prompts=None):
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().__call__(images, prompts)

    run = make_run(scorer=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        BestOfN(8, batch_size=4)(run)
    run.interrupted = True
    run.finish()
    assert [c.valid for c in run.candidates] == [True] * 4 + [False] * 4
    assert run.candidates[-1].error == "not scored: interrupted"
    assert sum(c.chosen for c in run.candidates) == 1


def test_budget_in_seconds_has_the_scorer_in_it(clock):
    run = make_run(ColourSampler(clock=clock), scorer=SlowScorer(clock), budget=63)
    finished(run, BestOfN(50))
    assert len(run.candidates) == 12  # five seconds each: 1, then 8, then the 3 that still fit
    assert run.seconds == 60
    assert any("budget spent: 38 of 50" in note for note in run.notes)
    assert sum(c.chosen for c in run.candidates) == 1


def test_budget_in_evaluations_counts_the_scorer():
    sampler = ColourSampler()  # 10 evaluations an image, and one more to score it
    run = finished(make_run(sampler, budget="60nfe"), BestOfN(50))
    assert len(run.candidates) == 5
    assert run.nfe == 55


def test_every_prompt_gets_an_image_however_small_the_budget():
    run = finished(make_run(prompts=("a", "b", "c"), budget="1nfe"), BestOfN(4))
    assert [c.prompt for c in run.candidates] == ["a", "b", "c"]
    assert all(c.chosen for c in run.candidates)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [(30, Budget(seconds=30)), ("2.5s", Budget(seconds=2.5)), ("100nfe", Budget(nfe=100)), (None, Budget())],
)
def test_budget_reads(spec, expected):
    assert Budget.parse(spec) == expected


@pytest.mark.parametrize("spec", ["soon", "10 minutes", 0, -1, "0nfe", "", math.nan])
def test_budget_refuses(spec):
    with pytest.raises(InputError, match="budget"):
        Budget.parse(spec)


@pytest.mark.parametrize(
    "arguments", [{"n": 0}, {"n": 2.0}, {"n": True}, {"n": 2, "keep": 3}, {"n": 1, "batch_size": 0}]
)
def test_best_of_n_refuses(arguments):
    with pytest.raises(InputError, match="BestOfN"):
        BestOfN(**arguments)


def test_guidance_by_name():
    assert guidance_from_dict(guidance_to_dict(BestOfN(8, keep=2))) == BestOfN(8, keep=2)
    with pytest.raises(UnknownNameError, match="best_of_n"):
        guidance_from_dict({"name": "best_of_m"})
    with pytest.raises(RecordError, match="best_of_n"):
        guidance_from_dict({"name": "best_of_n", "m": 3})


def test_guidance_is_any_object_with_a_name_and_a_call():
    class Twice:
        name = "twice"

        def __call__(self, run):
            run.make([Job(r, r.prompt, r.seed + k) for k in range(2) for r in run.requests])

    assert len(as_guidance([Twice(), BestOfN(2)])) == 2
    assert len(finished(make_run(), Twice()).candidates) == 2
    with pytest.raises(InputError, match="cannot be saved by name"):
        guidance_to_dict(Twice())
    with pytest.raises(InputError, match="occurs twice"):
        as_guidance([BestOfN(2), BestOfN(3)])
    with pytest.raises(InputError, match=r"such as BestOfN\(8\)"):
        as_guidance(BestOfN)


def test_timings_are_told_apart(clock):
    run = finished(make_run(ColourSampler(clock=clock), scorer=SlowScorer(clock)), BestOfN(4, batch_size=2))
    assert [c.seconds for c in run.candidates] == [{"sample": 3.0, "score": 2.0}] * 4


def test_the_log_is_named(caplog):
    with caplog.at_level(logging.WARNING, logger="cogguided"):
        make_run().note("something")
    assert caplog.record_tuples == [("cogguided", logging.WARNING, "something")]
