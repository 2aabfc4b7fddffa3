"""RewardGradient: the gradient that comes back through a pipeline, and where it leads."""

import math

import pytest
import torch
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import BestOfN, Budget, CogGuidedPipeline, FakeScorer, RewardGradient, replay
from cogguided._errors import InputError, ModelError
from cogguided.guidance import Noise, Request, Run
from cogguided.pipelines.driving.sampler import PipelineSampler
from cogguided.scorers import load_target

FAMILIES = ("sd15", "sd3", "flux", "qwen_image")


def families():
    return [family for family in FAMILIES if family in CALL]


def sampler_of(family, steps=3):
    pipe = tiny_pipeline(family)
    pipe.set_progress_bar_config(disable=True)
    return PipelineSampler(pipe, type(pipe), {**CALL[family], "num_inference_steps": steps})


def value(images):
    return images.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("until", [None, 0.5])
def test_the_gradient_is_that_of_finite_differences(family, until):
    sampler = sampler_of(family, steps=2)
    rows = sampler.begin(["a cat", "a dog"], [Noise.of(0), Noise.of(1)])
    if until is not None:
        rows = sampler.advance(rows, until)
    values, gradient = sampler.gradient(rows, value)
    latents = sampler.latents(rows)
    assert gradient.shape == latents.shape
    assert gradient.abs().amax() > 0
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    step = 1e-2

    def at(scale):
        return sampler.gradient(sampler.put(rows, latents + scale * direction), value)[0]

    slope = (at(step) - at(-step)) / (2 * step)
    told = (gradient * direction).flatten(1).sum(1)
    assert torch.allclose(slope, told, rtol=0.1, atol=2e-4)
    assert torch.allclose(at(0.0), values, atol=1e-5)


def test_a_row_does_not_feel_its_neighbour():
    sampler = sampler_of("sd15")
    both = sampler.begin(["a cat", "a dog"], [Noise.of(0), Noise.of(1)])
    _, gradient = sampler.gradient(both, value)
    _, alone = sampler.gradient(both.select([1]), value)
    assert torch.allclose(gradient[1], alone[0], atol=1e-5)


def test_the_sampler_is_as_it_was():
    sampler = sampler_of("sd15")
    before = sampler.sample(["a cat"], [0])[0]
    nfe = sampler.nfe
    sampler.gradient(sampler.begin(["a cat"], [Noise.of(0)]), value)
    assert sampler.nfe == nfe + 3 * nfe  # a backward pass counts as two
    assert sampler.sample(["a cat"], [0])[0].tobytes() == before.tobytes()
    assert all(p.grad is None for p in sampler.pipe.unet.parameters())


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("where", ["noise", "latents"])
def test_it_climbs(family, where, tmp_path):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline(family), target=FakeScorer())
    pipe.set_progress_bar_config(disable=True)
    arguments = {**CALL[family], "num_inference_steps": 6}
    plain = pipe("a cat", seed=0, **arguments)
    out = pipe("a cat", guidance=RewardGradient(2, where, iterations=6), seed=0, **arguments)
    assert out.chosen[0].score > plain.chosen[0].score
    folder = out.save(tmp_path)
    assert all(replay(folder, i, pipe).same for i in range(len(out.candidates)))


def test_the_noise_stays_noise():
    sampler = sampler_of("sd15")
    run = Run([Request(0, "a cat", 0)], sampler, load_target(FakeScorer()))
    RewardGradient(1, iterations=8, rate=0.3)(run)
    noise = [entry["noise"][0].latents for entry in sampler.trace if "noise" in entry][-1]
    assert noise is not None
    size = noise.numel()
    assert abs(float(noise.norm()) / math.sqrt(size) - 1) < 0.35


def test_a_scorer_without_a_gradient_is_refused_before_anything_is_drawn():
    sampler = sampler_of("sd15")
    blind = FakeScorer("eyes", differentiable=False)
    run = Run([Request(0, "a cat", 0)], sampler, load_target(blind))
    with pytest.raises(InputError, match="eyes has no gradient"):
        RewardGradient()(run)
    assert sampler.nfe == 0


def test_a_pipeline_that_breaks_the_graph_is_told():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target=FakeScorer())
    pipe.set_progress_bar_config(disable=True)
    decode = pipe.vae.decode
    pipe.vae.decode = lambda latents, **kwargs: decode(latents.detach(), **kwargs)
    for parameter in pipe.vae.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ModelError, match="no gradient comes back"):
        pipe("a cat", guidance=RewardGradient(1), seed=0, **CALL["sd15"])


@pytest.mark.parametrize("where", ["noise", "latents"])
def test_a_budget_is_kept(where):
    pipe = tiny_pipeline("sd15")
    pipe.set_progress_bar_config(disable=True)
    sampler = PipelineSampler(pipe, type(pipe), {**CALL["sd15"], "num_inference_steps": 6})
    sampler.sample(["a cat"], [0])
    limit = 4 * sampler.nfe
    sampler.nfe = 0
    run = Run([Request(0, "a cat", 0)], sampler, load_target(FakeScorer()), Budget(nfe=limit))
    RewardGradient(1, where, iterations=50)(run)
    run.finish()
    assert run.nfe <= limit * 1.3
    assert any(c.finished and c.chosen for c in run.candidates)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"where": "image"}, "unknown RewardGradient: where"), ({"at": (0.5, 0.2)}, "rise"), ({"rate": 2}, "rate")],
)
def test_arguments(arguments, match):
    with pytest.raises(InputError, match=match):
        RewardGradient(**arguments)


@pytest.mark.parametrize("where", ["noise", "latents"])
def test_calls_in_inference_mode_bar_no_later_gradient(where):
    """Scheduler, encodings and scorer are used by both; inside, the sentence says what to do."""
    search = RewardGradient(1, where, iterations=2, at=(0.5,))
    call = {"guidance": search, "seed": 0, **CALL["sd15"]}
    fresh, used = (CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=FakeScorer()) for _ in range(2))
    with torch.inference_mode():
        used("a cat", **{**call, "guidance": [BestOfN(2)]})
        with pytest.raises(InputError, match=r"no gradient inside torch\.inference_mode"):
            used("a cat", **call)
    first, again = fresh("a cat", **call), used("a cat", **call)
    assert [c.score for c in again.candidates] == [c.score for c in first.candidates]
    with torch.no_grad():
        assert used("a cat", **call).images[0].tobytes() == first.images[0].tobytes()
