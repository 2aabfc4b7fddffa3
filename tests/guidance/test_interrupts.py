"""Ctrl-C, an error and memory that runs out, in the middle of every search: nothing that was made is lost."""

import pytest
import torch
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import (
    BestOfN,
    CogGuidedPipeline,
    Drafts,
    FakeScorer,
    FKSteering,
    Halving,
    NoiseSearch,
    RewardGradient,
    RewritePrompt,
    Variations,
    replay,
)
from cogguided._errors import GenerationError

STEPS = {**CALL["sd15"], "num_inference_steps": 4}
GUIDANCE = [
    BestOfN(6, batch_size=2),
    Drafts(6, steps=2, batch_size=2),
    Halving(6, at=(0.34, 0.67), batch_size=2),
    FKSteering(6, at=(0.34, 0.67), batch_size=2),
    NoiseSearch(2, 2, rounds=2, batch_size=2),
    RewardGradient(4, iterations=3, batch_size=2),
    Variations(6, batch_size=2),
    RewritePrompt(3, images=2, faithfulness=FakeScorer("faithful"), batch_size=2),
    [RewritePrompt(3, images=2, steps=2, faithfulness=FakeScorer("faithful"), batch_size=2), Halving(4, at=(0.5,))],
]


def name(guidance):
    return "+".join(step.name for step in guidance) if isinstance(guidance, list) else guidance.name


class Breaking(FakeScorer):
    """Raises at its n-th batch of images."""

    def __init__(self, error, at):
        super().__init__()
        self.error, self.at, self.turns = error, at, 0

    def __call__(self, images, prompts=None):
        self.turns += not isinstance(images, torch.Tensor)
        if self.turns == self.at:
            raise self.error
        return super().__call__(images, prompts)


def pipe_of(scorer):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target=scorer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe, guidance):
    return pipe("a cat", guidance=guidance, seed=0, **STEPS)


@pytest.mark.parametrize("guidance", GUIDANCE, ids=name)
def test_ctrl_c(guidance, tmp_path):
    scorer = Breaking(KeyboardInterrupt(), at=2)
    pipe = pipe_of(scorer)
    out = call(pipe, guidance)
    assert out.interrupted
    assert len(out.candidates) == 4  # two were scored, two were drawn
    assert sum(c.valid for c in out.candidates) == 2
    assert len(out.images) == 1
    folder = out.save(tmp_path)
    assert replay(folder, 0, pipe).same


@pytest.mark.parametrize("guidance", GUIDANCE, ids=name)
def test_an_error_takes_the_candidates_along(guidance):
    pipe = pipe_of(Breaking(ValueError("the scorer fell over"), at=2))
    with pytest.raises(GenerationError, match="the scorer fell over") as caught:
        call(pipe, guidance)
    assert len(caught.value.output.candidates) == 4


@pytest.mark.parametrize("guidance", GUIDANCE, ids=name)
def test_memory_that_runs_out_makes_smaller_batches(guidance):
    pipe = pipe_of(Breaking(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), at=1))
    out = call(pipe, guidance)
    whole = call(pipe_of(FakeScorer()), guidance)
    assert any("out of memory" in note for note in out.notes)
    assert len(out.candidates) == len(whole.candidates)
    assert out.scores[0]["fake"] == pytest.approx(whole.scores[0]["fake"], abs=1e-3)


@pytest.mark.parametrize("guidance", [GUIDANCE[3], GUIDANCE[4], GUIDANCE[-1]], ids=name)
def test_the_same_call_gives_the_same_images(guidance):
    one, two = (call(pipe_of(FakeScorer()), guidance) for _ in range(2))
    assert [c.image.tobytes() for c in one.candidates] == [c.image.tobytes() for c in two.candidates]
    assert [c.chosen for c in one.candidates] == [c.chosen for c in two.candidates]


SEARCHES = [step for step in GUIDANCE if not isinstance(step, list | RewritePrompt)]


@pytest.mark.parametrize("search", SEARCHES, ids=name)
def test_every_search_goes_on_from_other_wordings_within_one_budget(search):
    rewrite = RewritePrompt(2, images=2, faithfulness=FakeScorer("faithful"), confidence=0.5, margin=1.0)
    free = call(pipe_of(FakeScorer()), [rewrite, search])
    (told,) = free.facts["guidance"]["rewrite"]["requests"]
    later = [c for c in free.candidates if c.origin["guidance"] == search.name]
    assert {c.prompt for c in later} == set(told["chosen"])
    assert min(c.seed for c in later) >= 2  # those of the rewriting are used up
    pipe = pipe_of(FakeScorer())
    limit = free.nfe // 2
    out = pipe(
        "a cat",
        guidance=[rewrite, search],
        seed=0,
        budget=f"{limit}nfe",
        **STEPS,
    )
    assert out.nfe <= limit
    assert out.chosen[0].finished
