"""What only a GPU shows: moves between devices, half precision, offloading, memory that runs out, compiled denoisers.

    pytest -m gpu

Tiny random models throughout: they say that the paths are right, `benchmarks/full_size.py` what they cost.
"""

import gc

import numpy as np
import pytest
import torch
from comparing import pixels
from tiny_diffusion import CALL, FAMILIES, tiny_pipeline
from tiny_mllm import build

from cogguided import (
    BestOfN,
    CogGuidedPipeline,
    Drafts,
    FakeScorer,
    FinetuneConfig,
    Halving,
    finetune,
    load_scorer,
    replay,
    swap_text_encoder,
)
from cogguided.scorers import load_target
from cogguided.scorers.mllm.branching import unrounded_head

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # libraries of other people meet new releases of torch and CUDA here; the default run is where warnings are errors
    pytest.mark.filterwarnings("default"),
]
SD = {**CALL["sd15"], "num_inference_steps": 4}
GUIDANCE = {
    "best_of_n": BestOfN(3, batch_size=2),
    "halving": Halving(3, at=(0.5,), batch_size=2),
    "drafts": Drafts(3, steps=2, batch_size=2),
}


@pytest.fixture(autouse=True)
def exact_and_tidy():
    """Float32 is float32, and a test starts with the memory free."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()


def gap(first, second):
    return int(np.abs(pixels(first) - pixels(second)).max())


def finished(out):
    """The candidates that were drawn to the end in full."""
    return [c for c in out.candidates if c.finished]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cpu_seed_gives_the_cpu_image(family):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline(family))
    on_cpu = pipe("a cat", seed=3, **CALL[family]).images[0]
    on_gpu = pipe.to(DEVICE)("a cat", seed=3, **CALL[family]).images[0]
    assert gap(on_cpu, on_gpu) <= 4
    back = pipe.to("cpu")("a cat", seed=3, **CALL[family]).images[0]
    assert gap(on_cpu, back) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision(family, dtype):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline(family).to(DEVICE, dtype), scorer=FakeScorer())
    call = {**CALL[family], "num_inference_steps": 4}
    for guidance in GUIDANCE.values():
        out = pipe("a cat", guidance=guidance, seed=0, **call)
        assert all(c.valid for c in out.candidates), [c.error for c in out.candidates]
        assert pixels(out.images[0]).std() > 2
    survivor = finished(pipe("a cat", guidance=GUIDANCE["halving"], seed=0, **call))[0]
    plain = pipe("a cat", seed=survivor.seed, **call).images[0]
    assert gap(survivor.image, plain) <= 3  # another batch, in half precision


def test_a_generator_on_the_gpu():
    base = tiny_pipeline("sd15").to(DEVICE)
    pipe = CogGuidedPipeline.from_pipe(base)
    expected = base("a cat", generator=torch.Generator(DEVICE).manual_seed(7), **SD).images[0]
    out = pipe("a cat", generator=torch.Generator(DEVICE).manual_seed(7), **SD)
    assert gap(out.images[0], expected) == 0
    assert out.candidates[0].seed is None, "a seed stands for a generator on the CPU"


@pytest.mark.parametrize("name", list(GUIDANCE))
@pytest.mark.parametrize(
    "method", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload"]
)
def test_offloading(method, name):
    plain = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15").to(DEVICE), scorer=FakeScorer())
    expected = plain("a cat", guidance=GUIDANCE[name], seed=0, **SD)
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=FakeScorer())
    more = {"onload_device": torch.device(DEVICE), "offload_type": "leaf_level"} if "group" in method else {}
    getattr(pipe, method)(**more)
    out = pipe("a cat", guidance=GUIDANCE[name], seed=0, **SD)
    assert [c.seed for c in out.candidates] == [c.seed for c in expected.candidates]
    assert max(gap(a.image, b.image) for a, b in zip(out.candidates, expected.candidates, strict=True)) <= 1


def test_memory_that_runs_out_halves_the_batch():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15").to(DEVICE), scorer=FakeScorer())
    call = {**SD, "height": 256, "width": 256, "num_inference_steps": 1}
    pipe("a cat", guidance=BestOfN(4, batch_size=4), seed=0, **call)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    expected = pipe("a cat", guidance=BestOfN(4, batch_size=4), seed=0, **call)
    limit = 1.5 * torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        out = pipe("a cat", guidance=BestOfN(32, batch_size=32), seed=0, **call)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(out.candidates) == 32
    assert any("out of memory" in note for note in out.notes), out.notes
    assert max(gap(a.image, b.image) for a, b in zip(out.candidates, expected.candidates, strict=False)) <= 1


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_denoiser(mode):
    """Hooks go on counting, and tensors kept between legs are not those a CUDA graph writes to again."""
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15").to(DEVICE), scorer=FakeScorer())
    expected = {name: pipe("a cat", guidance=g, seed=0, **SD) for name, g in GUIDANCE.items()}
    pipe.unet.compile(mode=mode)
    for name, guidance in GUIDANCE.items():
        out = pipe("a cat", guidance=guidance, seed=0, **SD)
        assert out.nfe == expected[name].nfe
        pairs = zip(out.candidates, expected[name].candidates, strict=True)
        assert max(gap(a.image, b.image) for a, b in pairs) <= 2


def test_replay(tmp_path):
    CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target="fake").save_pretrained(tmp_path / "model")
    pipe = CogGuidedPipeline.from_pretrained(tmp_path / "model").to(DEVICE)
    pipe.set_progress_bar_config(disable=True)
    out = pipe("a cat", guidance=GUIDANCE["halving"], seed=0, **SD)
    out.save(tmp_path / "out")
    again = replay(tmp_path / "out" / "candidates.json", 0)
    assert gap(again.image, out.candidates[0].image) <= 1


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "smolvlm"])
def test_the_judge(family, tmp_path):
    """The GPU's float32 is the CPU's; in bfloat16 a score does not leave its neighbourhood."""
    folder = build(family, tmp_path)
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.random((3, 64, 64), dtype=np.float32)) for _ in range(6)]
    batch = torch.stack(images)
    on_cpu = load_scorer("mllm", model=str(folder), device="cpu").score_all(batch)
    scorer = load_scorer("mllm", model=str(folder), device=DEVICE, dtype=torch.float32)
    on_gpu = scorer.score_all(batch)
    for name, scores in on_gpu.items():
        low, high = scorer.facts.dimensions[name].low, scorer.facts.dimensions[name].high
        mass = scores.mass if scores.mass is not None else torch.ones(6)
        readable = scores.valid & on_cpu[name].valid
        assert torch.equal(scores.valid.cpu(), on_cpu[name].valid) or bool((mass < 0.11).any())
        difference = (scores.values.cpu() - on_cpu[name].values)[readable.cpu()].abs()
        assert not len(difference) or difference.max() <= 1e-3 * (high - low)


def test_logits_of_a_half_precision_judge_are_not_rounded(tmp_path):
    scorer = load_scorer("mllm", model=str(build("qwen2_5_vl", tmp_path)), device=DEVICE, dtype=torch.bfloat16)
    head = scorer.model.get_output_embeddings()
    hidden = torch.randn(2, 3, head.in_features, device=DEVICE, dtype=torch.bfloat16)
    exact = hidden.float() @ head.weight.float().T
    with torch.inference_mode():
        with unrounded_head(scorer.model):
            logits = head(hidden)
        rounded = head(hidden)
    assert (logits.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    assert (logits - exact).abs().max() < 1e-3 * exact.abs().max() < (rounded.float() - exact).abs().max() * 10


def test_a_gradient_through_the_judge(tmp_path):
    folder = build("qwen2_5_vl", tmp_path)
    scorer = load_scorer("mllm", model=str(folder), device=DEVICE, dtype=torch.float32, min_mass=0.0)
    images = torch.rand(2, 3, 64, 64, device=DEVICE, requires_grad=True)
    scorer(images).values.sum().backward()
    assert images.grad is not None
    assert bool(images.grad.isfinite().all())


def test_a_scorer_follows_the_pipeline(tmp_path):
    judge = {"memorability": {"model": str(build("qwen2_5_vl", tmp_path)), "min_mass": 0.0}}
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), scorer=judge)
    pipe("a cat", target="memorability", seed=0, **SD)
    pipe.to(DEVICE)
    (scorer,) = {id(s): s for s in pipe._loaded_scorers.values()}.values()
    assert scorer.model.device.type == DEVICE
    pipe("a cat", target="memorability", guidance=BestOfN(2), seed=0, **SD)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("low_memory", [False, True])
def test_a_round_of_fine_tuning(precision, low_memory, tmp_path):
    config = FinetuneConfig(
        rounds=1, prompts_per_round=2, images_per_prompt=2, timesteps=2, updates=1, rank=2, images_per_evaluation=2,
        evaluate_every=1, precision=precision, low_memory=low_memory,
    )  # fmt: skip
    pipe = tiny_pipeline("sd15").to(DEVICE)
    result = finetune(
        pipe, load_target(FakeScorer()), ["a cat", "a dog", "a cow"], tmp_path / "run", config,
        evaluation=["a hen", "a fox"], faithfulness=None, progress=False, **SD,
    )  # fmt: skip
    assert result.rounds == 1
    pipe = tiny_pipeline("sd15").to(DEVICE)
    pipe.load_lora_weights(result.folder)
    assert pixels(pipe("a cat", generator=torch.Generator().manual_seed(0), **SD).images[0]).std() > 2


def test_a_swapped_text_encoder():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("qwen_image").to(DEVICE))
    other = tiny_pipeline("qwen_image", seed=1).text_encoder.to(DEVICE)
    before = pipe("a cat", seed=0, **CALL["qwen_image"]).images[0]
    with swap_text_encoder(pipe, other, strength=1.0) as swap:
        assert gap(pipe("a cat", seed=0, **CALL["qwen_image"]).images[0], before) > 0
        swap.strength = 0.0
        assert gap(pipe("a cat", seed=0, **CALL["qwen_image"]).images[0], before) == 0
    assert gap(pipe("a cat", seed=0, **CALL["qwen_image"]).images[0], before) == 0
