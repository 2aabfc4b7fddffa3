"""Searches over the narrow interface of a pipeline, on tiny models of every family."""

import numpy as np
import pytest
import torch
from comparing import pixels
from diffusers import DDIMScheduler
from painter import WORLD, Painter
from painter import run_of as painted
from tiny_diffusion import CALL, FAMILIES, tiny_pipeline

from cogguided import Budget, FakeScorer
from cogguided._errors import InputError
from cogguided.guidance import Noise, Request, Run
from cogguided.guidance.search import Drafts, FKSteering, Halving, NoiseSearch
from cogguided.guidance.search.fk import effective_size, systematic
from cogguided.guidance.search.noise import neighbour
from cogguided.pipelines.driving.sampler import PipelineSampler
from cogguided.scorers import Scores, load_target

STEPS = 6


class Flat(FakeScorer):
    """Likes everything alike."""

    def __call__(self, images, prompts=None):
        scores = super().__call__(images, prompts)
        return Scores(torch.full_like(scores.values, 0.5))


def run_of(pipe, family, prompts=("a cat",), budget=None, scorer=None):
    sampler = PipelineSampler(pipe, type(pipe), {**CALL[family], "num_inference_steps": STEPS})
    requests = [Request(i, prompt, 0) for i, prompt in enumerate(prompts)]
    return Run(requests, sampler, load_target(scorer or FakeScorer()), Budget.parse(budget))


def finished(run):
    return [candidate for candidate in run.candidates if candidate.finished]


def check_survivors(pipe, family):
    run = run_of(pipe, family, ("a cat", "a long dog"))
    Halving(4, at=(0.34, 0.67))(run)
    assert len(run.candidates) == 8
    assert [sum(c.request == r for c in finished(run)) for r in (0, 1)] == [1, 1]
    for survivor in finished(run):
        plain, other = run.sampler.sample([survivor.prompt] * 2, [survivor.seed, survivor.seed + 1])
        assert np.abs(pixels(survivor.image) - pixels(plain)).max() <= 1
        assert np.abs(pixels(survivor.image) - pixels(other)).max() > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_halving_leaves_survivors_as_they_are(family):
    check_survivors(tiny_pipeline(family), family)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_halving_with_either_prediction(kind):
    pipe = tiny_pipeline("sd15")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    check_survivors(pipe, "sd15")


def test_halving_takes_fewer_steps_than_best_of_n():
    run = run_of(tiny_pipeline("qwen_image"), "qwen_image")
    run.sampler.sample(["a cat"], [0])
    one = run.sampler.nfe
    before = run.nfe
    Halving(4, at=(0.34, 0.67))(run)  # 4 rows for 2 steps, 2 for 2, 1 for 2
    assert (run.sampler.nfe - one) / one == pytest.approx((4 * 2 + 2 * 2 + 2) / STEPS)
    assert run.nfe - before == run.sampler.nfe - one + 4 + 2 + 1  # each look is an evaluation too


def test_halving_goes_on_with_the_better_half():
    run = run_of(tiny_pipeline("sd15"), "sd15")
    Halving(4, at=(0.5,))(run)
    looks = [c.origin["looks"][0]["score"] if c.finished else c.score for c in run.candidates]
    ranked = sorted(range(4), key=lambda i: -looks[i])
    assert {i for i, c in enumerate(run.candidates) if c.finished} == set(ranked[:2])


def test_drafts_are_made_in_full_from_the_same_noise():
    run = run_of(tiny_pipeline("sd3"), "sd3")
    Drafts(4, steps=2, full=2)(run)
    assert len(finished(run)) == 2
    drafts = [c for c in run.candidates if not c.finished]
    best = sorted(drafts, key=lambda c: -c.score)[:2]
    assert {c.seed for c in finished(run)} == {c.seed for c in best}
    for candidate in finished(run):
        plain = run.sampler.sample([candidate.prompt], [candidate.seed])[0]
        assert np.abs(pixels(candidate.image) - pixels(plain)).max() <= 1


def test_drafts_may_be_what_is_returned():
    run = run_of(tiny_pipeline("sd3"), "sd3")
    Drafts(4, steps=2, full=0)(run)
    run.finish()
    assert len(finished(run)) == len(run.candidates) == 4
    best = max(c.score for c in run.candidates)
    assert [c.chosen for c in run.candidates] == [c.score == best for c in run.candidates]


@pytest.mark.parametrize("resample", ["adaptive", "always"])
@pytest.mark.parametrize("family", ["sd15", "qwen_image"])
def test_steering_by_a_flat_score_changes_nothing(family, resample):
    """Particle by particle it is the pipeline's own image at that eta: the distribution cannot differ."""
    run = run_of(tiny_pipeline(family), family, scorer=Flat())
    FKSteering(3, at=(0.34, 0.67), resample=resample)(run)
    rows = run.sampler.begin(["a cat"] * 3, [Noise.of(seed) for seed in range(3)])
    plain, _ = run.sampler.decode(run.sampler.advance(rows, 1.0, eta=1.0))
    assert len(finished(run)) == 3
    for candidate, image in zip(run.candidates, plain, strict=True):
        assert np.abs(pixels(candidate.image) - pixels(image)).max() <= 1


def test_steering_follows_the_better_particle():
    run = run_of(tiny_pipeline("sd15"), "sd15")
    FKSteering(4, at=(0.5,), strength=1e6, resample="always")(run)
    (told,) = run.facts["fk"]
    assert len(set(told["parents"])) == 1
    assert len(finished(run)) == 4
    assert len({pixels(c.image).tobytes() for c in finished(run)}) == 4  # copies part by fresh noise


def test_particles_are_weighed_by_what_they_gained_since_the_look_before():
    """Without resampling the gains add up to the score at the last look."""
    run = run_of(tiny_pipeline("sd15"), "sd15")
    FKSteering(4, at=(0.34, 0.67), strength=30.0)(run)
    assert not any("parents" in told for told in run.facts["fk"])
    for look, told in enumerate(run.facts["fk"]):
        scores = torch.tensor([c.origin["looks"][look]["score"] for c in finished(run)])
        assert told["effective"] == pytest.approx(effective_size(30.0 * scores), abs=0.01)
    assert run.facts["fk"][0]["effective"] < 3.99


def test_copies_begin_anew_with_equal_weights():
    """A copy has its parent's score, and so gains nothing at the next look: all weigh the same."""
    run = painted(Painter(WORLD, noise=90))
    FKSteering(4, at=(0.2, 0.4), resample="always")(run)
    first, second = run.facts["fk"]
    assert first["effective"] < 3
    assert first["parents"] != list(range(4))
    assert second["effective"] == 4


def test_systematic_resampling_is_unbiased():
    """Mean offspring over the one random number is N x share; with equal weights everyone has one child."""
    weights = torch.tensor([0.1, 1.2, -0.5, 0.4, -2.0])
    uniforms = (torch.arange(2000) + 0.5) / 2000
    offspring = torch.stack([torch.tensor(systematic(weights, float(u))).bincount(minlength=5) for u in uniforms])
    shares = torch.softmax(weights.double(), 0)
    assert torch.allclose(offspring.double().mean(0), 5 * shares, atol=5e-3)
    assert (offspring - 5 * shares).abs().max() < 1
    assert all(systematic(torch.zeros(7), float(u)) == list(range(7)) for u in uniforms[::100])
    assert effective_size(torch.tensor([0.0, -1e9, -1e9])) == pytest.approx(1)


def test_neighbours_of_a_noise_are_standard_normal():
    noise = Noise.of(0)
    for seed in range(1, 6):
        noise = neighbour(noise, seed, 0.5)
    assert sum(weight**2 for _, weight in noise.mix) == pytest.approx(1)


def test_noise_search_goes_on_from_the_best():
    run = run_of(tiny_pipeline("sd15"), "sd15")
    NoiseSearch(3, 1, rounds=1, radius=0.0)(run)  # so the neighbour is the centre itself
    *start, neighbour_of_best = finished(run)
    best = max(start, key=lambda candidate: candidate.score)
    assert np.array_equal(pixels(neighbour_of_best.image), pixels(best.image))
    assert len({pixels(c.image).tobytes() for c in start}) == 3


def test_noise_search_repeats_itself():
    run = run_of(tiny_pipeline("sd15"), "sd15")
    NoiseSearch(2, 2, rounds=3, patience=1)(run)
    assert len(finished(run)) == 8
    again = run_of(tiny_pipeline("sd15"), "sd15")
    NoiseSearch(2, 2, rounds=3, patience=1)(again)
    assert [c.score for c in run.candidates] == [c.score for c in again.candidates]


@pytest.mark.parametrize("search", [Halving(8), Drafts(8), FKSteering(8), NoiseSearch(4, 4, rounds=3)])
def test_a_budget_is_kept_and_leaves_an_image(search):
    pipe = tiny_pipeline("sd15")
    first = run_of(pipe, "sd15")
    first.sampler.sample(["a cat"], [0])
    limit = 3 * first.nfe
    run = run_of(pipe, "sd15", budget=f"{limit}nfe")
    search(run)
    assert finished(run)
    assert run.nfe <= limit


def test_out_of_memory_halves_the_batch(monkeypatch):
    run = run_of(tiny_pipeline("sd15"), "sd15")
    advance = run.sampler.advance

    def small(rows, *args, **kwargs):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return advance(rows, *args, **kwargs)

    monkeypatch.setattr(run.sampler, "advance", small)
    Halving(4, at=(0.5,))(run)
    assert len(run.candidates) == 4
    assert len(finished(run)) == 2
    assert any("memory" in note for note in run.notes)


@pytest.mark.parametrize("search", [Halving(4), Drafts(4), FKSteering(4), NoiseSearch()])
def test_nothing_to_search_by(search):
    run = run_of(tiny_pipeline("sd15"), "sd15")
    run.target = None
    with pytest.raises(InputError, match="nothing to search by"):
        search(run)
