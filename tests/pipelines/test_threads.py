"""Threads may share a pipeline: their calls queue, and each gets what it would get alone."""

import copy
import threading

import numpy as np
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, CogGuidedPipeline, FakeScorer, Halving
from cogguided.pipelines.locking import lock_of

SD = {**CALL["sd15"], "num_inference_steps": 2}


def test_two_threads_on_two_views():
    base = tiny_pipeline("sd15")
    views = [CogGuidedPipeline.from_pipe(base, scorer=FakeScorer()) for _ in range(2)]
    steps = [[], BestOfN(2), Halving(2, at=(0.5,)), Halving(3, at=(0.5,))]
    lone = [np.asarray(views[0]("a cat", seed=k, guidance=steps[k % 4], **SD).images[0]) for k in range(16)]
    wrong = []

    def work(view):
        for k in range(16):
            try:
                image = np.asarray(view("a cat", seed=k, guidance=steps[k % 4], **SD).images[0])
                if not np.array_equal(image, lone[k]):
                    wrong.append(k)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(view,)) for view in views]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_locks_are_of_what_is_shared():
    base = tiny_pipeline("sd15")
    first, second = (CogGuidedPipeline.from_pipe(base) for _ in range(2))
    assert lock_of(first) is lock_of(second) is lock_of(base)
    assert lock_of(first) is not lock_of(tiny_pipeline("sd15"))
    assert copy.deepcopy(base.unet) is not base.unet
