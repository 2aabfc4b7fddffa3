"""Any family's denoiser asked through its pipeline's own call, trained by LoRA, and saved for plain diffusers."""

import logging

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from peft import PeftModel
from tiny_diffusion import CALL, FAMILIES, tiny_pipeline

from cogguided import CogGuidedError, FakeScorer, FinetuneConfig, finetune
from cogguided.pipelines.driving.denoising import Question, asked
from cogguided.pipelines.driving.diffusion import noised
from cogguided.pipelines.driving.learner import PipelineLearner

PROMPTS = ["a cat", "a dog", "a red car", "a tree"]
SETTINGS = {
    "rounds": 2, "prompts_per_round": 2, "images_per_prompt": 2, "timesteps": 2, "updates": 1, "rank": 2,
    "learning_rate": 0.05, "warmup": 0, "images_per_evaluation": 2, "patience": 0, "save": "last",
}  # fmt: skip


def learner(pipe, family, **changes):
    return PipelineLearner(pipe, type(pipe), CALL[family], 2, None, FinetuneConfig().target_modules, **changes)


def draw(pipe, family, seed=5):
    image = pipe("a cat", generator=torch.Generator().manual_seed(seed), **CALL[family]).images[0]
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_rounds_move_the_adapter_alone_and_plain_diffusers_loads_it(family, tmp_path, caplog):
    pipe = tiny_pipeline(family)
    before = {n: {k: p.clone() for k, p in m.named_parameters()} for n, m in modules(pipe).items()}
    plain = draw(pipe, family)
    method = {"sd15": "dpo", "flux": "rwr", "sd3": "drtune", "pixart_sigma": "drtune"}.get(family, "nft")
    config = FinetuneConfig(method=method, guided=family in ("sdxl", "sana", "qwen_image"), **SETTINGS)
    result = finetune(
        pipe, FakeScorer(), PROMPTS, tmp_path, config, faithfulness=None, progress=False, **CALL[family],
    )  # fmt: skip
    assert (result.rounds, result.stopped, len(result.evaluations)) == (2, "rounds", 2)
    for name, module in modules(pipe).items():
        for key, parameter in module.named_parameters():
            origin = key.replace(".base_layer", "")
            if "cogguided" not in key:
                assert torch.equal(parameter, before[name][origin]), f"{name}.{key} moved"
    trained = {k: p for m in modules(pipe).values() for k, p in m.named_parameters() if "lora_B" in k}
    assert trained
    assert np.mean([bool(p.any()) for p in trained.values()]) > 0.7, "most adapters moved"

    fresh = tiny_pipeline(family)
    with caplog.at_level(logging.ERROR):
        if hasattr(fresh, "load_lora_weights"):
            fresh.load_lora_weights(str(tmp_path))
        else:
            PeftModel.from_pretrained(fresh.transformer, tmp_path)
    loaded = draw(fresh, family)
    assert np.abs(loaded - plain).max() > 0
    assert np.abs(loaded - draw(pipe, family)).max() <= 1


def modules(pipe):
    return {n: m for n, m in pipe.components.items() if isinstance(m, torch.nn.Module)}


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_what_the_sampler_would_hear(family, guided):
    """Latents that sampling passes through, asked about again, give the very output that the scheduler got."""
    pipe = tiny_pipeline(family)
    subject = learner(pipe, family, guided=guided)
    heard = []
    scheduler = pipe.scheduler
    original = scheduler.step

    def step(output, timestep, sample, *args, **kwargs):
        heard.append((output.clone(), sample.clone()))
        return original(output, timestep, sample, *args, **kwargs)

    scheduler.step = step
    arguments = subject._asking.arguments
    pipe("a cat", generator=torch.Generator().manual_seed(1), **arguments)
    del scheduler.step
    for place, (output, sample) in enumerate(heard):
        question = Question(place, sample)
        subject._ask(["a cat"], question, None)
        assert torch.allclose(question.output, output, atol=1e-5), place


@pytest.mark.parametrize("family", FAMILIES)
def test_drawing_with_a_graph(family):
    """The images are those that sampling gives, and the gradient of a step is that of finite differences."""
    pipe = tiny_pipeline(family)
    subject, seeds = learner(pipe, family), [3, 4]
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in subject.parameters.items():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    images, distance = subject.draw(PROMPTS[:2], seeds, {2}, 3, compare=True)
    assert all(p.grad is None for p in subject.parameters.values())
    assert float(distance.detach()) > 0
    sampled, _ = subject.sample(PROMPTS[:2], seeds, 3)
    for image, tensor in zip(sampled, images.detach(), strict=True):
        assert np.abs(np.asarray(image) / 255.0 - tensor.permute(1, 2, 0).numpy()).max() < 0.005
    weights = [p for n, p in subject.parameters.items() if "lora_B" in n]
    images, _ = subject.draw(PROMPTS[:2], seeds, {0}, 1)
    # the last block's text stream of some families reaches nothing
    ways = torch.autograd.grad(images.double().mean(), weights, allow_unused=True, materialize_grads=True)
    length = torch.sqrt(sum(way.pow(2).sum() for way in ways))
    found = []
    for move in (0.02, -0.02):
        with torch.no_grad():
            for weight, way in zip(weights, ways, strict=True):
                weight.add_(way / length, alpha=move)
            found.append(float(subject.draw(PROMPTS[:2], seeds, {0}, 1)[0].detach().double().mean()))
            for weight, way in zip(weights, ways, strict=True):
                weight.sub_(way / length, alpha=move)
    assert (found[0] - found[1]) / 0.04 == pytest.approx(float(length), rel=0.1)


def test_a_guided_answer_has_the_guidance_in_it():
    pipe = tiny_pipeline("sd15")
    subject, plain = learner(pipe, "sd15", guided=True), CALL["sd15"]
    assert plain.get("guidance_scale", 7.5) > 1
    clean, noise = torch.randn(2, 1, 4, 8, 8)
    output, _ = subject.predict(["a cat"], clean, noise, 1)
    subject._asking.arguments = subject._without_guidance(dict(plain))
    assert (subject.predict(["a cat"], clean, noise, 1)[0] - output).abs().max() > 1e-4
    output.sum().backward()
    assert all(p.grad is not None for p in subject.parameters.values())


@pytest.mark.parametrize("make", [DDIMScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_targets_agree_with_the_schedulers_own_formulas(make, kind):
    pipe = tiny_pipeline("sd15")
    pipe.scheduler = make.from_config(pipe.scheduler.config, prediction_type=kind)
    subject = learner(pipe, "sd15")
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 8, 8)
    _, target = subject.predict(["a cat"], clean, noise, 1)
    scheduler = make.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(2)
    if make is DDIMScheduler:
        when = scheduler.timesteps[1:2]
        expected = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, when)
    else:
        sigma = scheduler.sigmas[1]
        # Karras' x = clean + sigma noise, brought to unit variance: v = (noise - sigma clean) / sqrt(1 + sigma^2)
        expected = noise if kind == "epsilon" else (noise - sigma * clean) / (1 + sigma**2).sqrt()
    assert torch.allclose(target, expected, atol=1e-5)


def test_noised_latents_match_flow_matching():
    clean, noise = torch.ones(1, 2), torch.full((1, 2), 3.0)
    assert torch.allclose(noised(clean, noise, (0.75, 0.25)), torch.full((1, 2), 1.5))


def test_the_reference_is_the_base_model():
    pipe = tiny_pipeline("sd3")
    plain = draw(pipe, "sd3")
    subject = learner(pipe, "sd3")
    with torch.no_grad():
        for parameter in subject.parameters.values():
            parameter.add_(torch.randn_like(parameter))
    assert np.abs(draw(pipe, "sd3") - plain).max() > 0
    with subject.reference():
        assert np.array_equal(draw(pipe, "sd3"), plain)


def test_predictions_do_not_depend_on_the_batch():
    pipe = tiny_pipeline("sd3")
    subject = learner(pipe, "sd3")
    clean, noise = torch.randn(2, 3, 4, 8, 8)
    together, _ = subject.predict(["a cat"] * 3, clean, noise, 1)
    alone, _ = subject.predict(["a cat"], clean[1:2], noise[1:2], 1)
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_the_scheduler_and_pipeline_are_left_as_they_were():
    pipe = tiny_pipeline("flux")
    before = dict(vars(pipe.scheduler))
    with asked(pipe, Question()):
        pipe("a cat", **CALL["flux"])
    assert vars(pipe.scheduler) == before
    assert "prepare_latents" not in vars(pipe)


def test_an_adapter_that_is_there_is_an_error():
    pipe = tiny_pipeline("sana")
    learner(pipe, "sana")
    with pytest.raises(CogGuidedError, match="fuse_lora"):
        learner(pipe, "sana")


def test_layers_that_are_not_there_are_an_error():
    pipe = tiny_pipeline("sana")
    with pytest.raises(CogGuidedError, match="no LoRA on SanaTransformer2DModel"):
        PipelineLearner(pipe, type(pipe), CALL["sana"], 2, None, ["nothing_of_that_name"])
