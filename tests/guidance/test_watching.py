"""A watch: what a call makes is seen from another thread, and the call can be stopped from there."""

import threading

import pytest
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer, Watch

STEPS = {**CALL["sd15"], "num_inference_steps": 2}


class Telling(FakeScorer):
    """Does something after its first batch."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def __call__(self, images, prompts=None):
        scores = super().__call__(images, prompts)
        act, self.act = self.act, lambda: None
        act()
        return scores


def call(scorer, n=6):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target=scorer)
    pipe.set_progress_bar_config(disable=True)
    return pipe("a cat", guidance=BestOfN(n, batch_size=2), seed=0, **STEPS)


def test_a_call_is_seen_while_it_runs_and_stopped_from_another_thread():
    watch, seen = Watch(), []

    def look_and_stop():
        other = threading.Thread(target=lambda: (seen.extend(watch.candidates), watch.stop()))
        other.start()
        other.join()

    with watch:
        out = call(Telling(look_and_stop))
    assert len(seen) == 2
    assert out.interrupted
    assert [c.seed for c in out.candidates] == [0, 1]
    assert out.chosen[0].valid
    assert watch.candidates == out.candidates


def test_one_that_is_stopped_before_anything_was_made_gives_nothing():
    watch = Watch()
    watch.stop()
    with watch, pytest.raises(KeyboardInterrupt):
        call(FakeScorer())
    assert watch.candidates == []


def test_a_watch_ends_with_its_context_and_sees_its_own_thread_alone():
    watch = Watch()
    with watch:
        thread = threading.Thread(target=call, args=(FakeScorer(), 2))
        thread.start()
        thread.join()
    call(FakeScorer(), 2)
    assert watch.candidates == []
    assert watch.evaluations == 0
