"""Time and memory of everything at the size people use it: a 7B judge, SDXL, Flux.1-dev, Qwen-Image. Needs a CUDA GPU.

    python benchmarks/full_size.py --out out/full_size              # all parts; 12 minutes on an H100
    python benchmarks/full_size.py --quick                          # fewer sizes and steps, 4 minutes
    python benchmarks/full_size.py --part judge --part sdxl         # some of them
    python benchmarks/full_size.py --device cpu --tiny              # that it runs: same classes, tiny shapes, no figures of use

Models have the public ones' shapes and random weights, made on the device (see `full_size_models.py`): they take the time and
memory of real ones, and draw noise. Nothing is said of quality. Each figure is a median over `repeats` after one unmeasured
call, with the lowest and highest beside it; peak memory is torch's own count of what was allocated at once, of this process
alone. A row is written as soon as it is there (results.json, results.md), a part that fails says why and the next goes on.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import json
import logging
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import alignment_step
import full_size_models as models
import numpy as np
import torch
from full_size_bench import GIB, Bench, OutOfTime, free, pictures
from full_size_judge import invariance, judge, saved_judge
from PIL import Image

from cogguided import (
    BestOfN,
    CogGuidedPipeline,
    Drafts,
    FinetuneConfig,
    Halving,
    JointSearch,
    finetune,
    load_scorer,
    swap_text_encoder,
)  # fmt: skip
from cogguided.scorers import load_target
from cogguided.scorers.alignment import AlignmentConfig, align

TARGET = {"memorability": 1.0, "emotional_valence": 0.5}

# ---------------------------------------------------------------------- 1. generators

CALLS = {
    "sdxl": {"height": 1024, "width": 1024, "num_inference_steps": 20},
    "flux": {"height": 1024, "width": 1024, "num_inference_steps": 8},
    "qwen_image": {"height": 768, "width": 768, "num_inference_steps": 6, "negative_prompt": " ", "true_cfg_scale": 4.0},
}


def call_of(bench: Bench, name: str) -> dict[str, Any]:
    call = dict(CALLS[name])
    if bench.tiny:
        call |= {"height": 64 if name == "sdxl" else 32, "width": 64 if name == "sdxl" else 32, "num_inference_steps": 4}
    elif bench.quick:
        call["num_inference_steps"] = 8 if name == "sdxl" else 4
    return call


def largest_gap(first: Image.Image, second: Image.Image) -> int:
    return int(np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int)).max())


def generator(bench: Bench, name: str) -> None:
    """Overhead at N = 1, each search with the 7B judge beside it, compiled, offloaded, in tiles."""
    base = getattr(models, name)(bench.device, bench.dtype, bench.tiny)
    pipe, call = CogGuidedPipeline.from_pipe(base), call_of(bench, name)
    prompt, steps = models.PROMPTS[0], call["num_inference_steps"]
    one = f"one image, {call['height']} x {call['width']}, {steps} steps"

    def bare(seed: int = 0) -> Image.Image:
        return base(prompt, generator=torch.Generator("cpu").manual_seed(seed), **call).images[0]

    def ours(seed: int = 0) -> Image.Image:
        return pipe(prompt, seed=seed, **call).images[0]

    with bench.attempt("N = 1"):
        bare(), ours()
        pairs = []
        for k in range(2 if bench.quick or bench.tiny else 4):
            order = [bare, ours] if k % 2 else [ours, bare]
            took = {work: bench.timed(lambda: work(k), 1, warm=False)["seconds"][0] for work in order}  # noqa: B023
            pairs.append(took[ours] / took[bare])
        alone = bench.timed(bare, 1, warm=False)
        bench.row(f"{one}, the base alone", alone)
        wrapped = bench.timed(ours, 1, warm=False)
        gap = largest_gap(alone["result"], wrapped["result"])
        bench.row(f"{one}, wrapped", wrapped, ratio=statistics.median(pairs), ratio_low=min(pairs), ratio_high=max(pairs), pixel_gap=gap)

    with bench.attempt("searches"):
        scorer = models.judge(bench.device, bench.dtype, bench.tiny)
        faith = models.clip(bench.device, bench.tiny)
        target = load_target(TARGET, scorer=scorer)
        draft = max(2, steps // 4)
        scorer.score_all(pictures(4, 512 if not bench.tiny else 56))  # what a first call costs is not a search's
        searches = {
            "best of 8": BestOfN(8, batch_size=4),
            f"drafts: 8 of {draft} steps, 2 in full": Drafts(8, steps=draft, full=2, batch_size=4),
            "halving: 8 at 0.25 and 0.5": Halving(8, at=(0.25, 0.5), batch_size=4),
            f"joint: 8 of {draft} steps, 3 wordings, 2 in full": JointSearch(8, rewrites=3, steps=draft, full=2, faithfulness=faith, batch_size=4),
        }
        for what, guidance in searches.items():
            with bench.attempt(what):
                done = bench.timed(lambda: pipe(prompt, target=target, guidance=guidance, seed=0, **call), repeats=1, warm=False)  # noqa: B023
                out = done["result"]
                share = sum(c.seconds.get("score", 0.0) for c in out.candidates) / done["seconds"][-1]
                bench.row(what, done, candidates=len(out.candidates), scorer_share=share, nfe=out.nfe, invalid=sum(not c.valid for c in out.candidates))
        scorer = target = faith = None
    free()
    whole = bare()
    with bench.attempt("VAE tiling"):
        base.vae.enable_tiling()
        bench.row(f"{one}, VAE in tiles", bench.timed(ours, 1), pixel_gap=largest_gap(whole, ours()))
        base.vae.disable_tiling()
    if bench.device == "cuda" and not bench.quick:
        denoiser = base.transformer if name != "sdxl" else base.unet
        with bench.attempt("compiled"):
            denoiser.compile_repeated_blocks()
            first = bench.timed(ours, 1, warm=False)
            bench.row(f"{one}, compiled blocks, the first call", first)
            bench.row(f"{one}, compiled blocks", bench.timed(ours, 1), pixel_gap=largest_gap(whole, ours()))
            out = pipe(prompt, guidance=Halving(2, at=(0.5,)), target="fake", seed=0, **call)
            survivor = next(c for c in out.candidates if c.finished)
            bench.row("compiled blocks, halving: its survivor and its plain image", pixel_gap=largest_gap(survivor.image, ours(survivor.seed)))
            for module in denoiser.modules():
                module._compiled_call_impl = None
    if bench.device == "cuda" and (name == "sdxl" or (name == "flux" and not bench.quick)):
        with bench.attempt("model offload"):
            base.to("cpu")
            free()
            base.enable_model_cpu_offload()
            bench.row(f"{one}, enable_model_cpu_offload", bench.timed(ours, 1), pixel_gap=largest_gap(whole, ours()))
            base.remove_all_hooks()
    with bench.attempt("group offload"):
        if bench.device == "cuda" and name == "sdxl" and not bench.quick:
            base.to("cpu")
            free()
            base.enable_group_offload(onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True)
            bench.row(f"{one}, enable_group_offload by leaves with a stream", bench.timed(ours, 1), pixel_gap=largest_gap(whole, ours()))


# ---------------------------------------------------------------------- 2. alignment


def alignment(bench: Bench) -> None:
    """Two steps of the paper's recipe on the 7B; and the loss alone, ours against the paper's way."""
    folder = bench.scratch / "ratings"
    folder.mkdir(exist_ok=True)
    batch, side = (8, 56) if bench.tiny else (32 if bench.quick else 128, 512)
    with (folder / "ratings.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "dimension", "score"])
        for k, image in enumerate(pictures(batch, side)):
            image.save(folder / f"{k}.png")
            writer.writerow([f"{k}.png", "memorability", f"{(k % 100) / 100:.3f}"])
    for kind, micro in (("the paper's", 2 if bench.tiny else 8),):
        with bench.attempt(kind):
            if bench.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            config = AlignmentConfig(max_steps=1 if bench.quick or bench.tiny else 2, batch_size=batch, micro_batch=micro, save_every=None, rank=4 if bench.tiny else 64)
            done = align(saved_judge(bench), folder / "ratings.csv", bench.scratch / "aligned", config, images=folder, overwrite=True)
            peak = torch.cuda.max_memory_allocated() / GIB if bench.device == "cuda" else None
            each = done.seconds / done.steps
            losses = [h["loss"] for h in done.history if "loss" in h]
            bench.row(
                f"{kind} recipe: LoRA {config.rank}, tower and projector in full, batch {batch} as {batch // micro} x {micro}, {side} x {side}",
                {"seconds": [each], "peak_gib": peak}, steps=done.steps, loss=losses[-1] if losses else float("nan"),
            )  # fmt: skip
    free()
    shape = {"batch": 4, "tokens": 64, "vocab": 1000, "hidden": 32} if bench.tiny else {"batch": 4, "tokens": 1024, "vocab": 152064, "hidden": 3584}
    args = SimpleNamespace(**shape, device=bench.device, dtype=str(bench.dtype).removeprefix("torch."), repeats=3)
    medians = {}
    for way in ("official", "ours"):
        with bench.attempt(f"loss, {way}"):
            if bench.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            found: Any = alignment_step.measure(way, args)
            medians[way] = statistics.median(found["seconds"])
            memory = {"peak_gib": found["bytes"] / GIB if bench.device == "cuda" else None}
            ratio = {"of_official": medians["ours"] / medians["official"]} if len(medians) == 2 else {}
            bench.row(f"loss of {shape['batch']} x {shape['tokens']} tokens, vocabulary {shape['vocab']}, {way}", {"seconds": found["seconds"], **memory}, loss=found["loss"], **ratio)
            free()


# ---------------------------------------------------------------------- 3. fine-tuning


def round_of(bench: Bench, name: str, limit: float | None) -> None:
    """A round of `finetune` with --low-memory."""
    base = getattr(models, name)(bench.device, bench.dtype, bench.tiny)
    call = call_of(bench, name)
    if not bench.tiny:
        call |= {"num_inference_steps": 4 if bench.quick else 8}
    few = bench.device == "cuda" and importlib.util.find_spec("bitsandbytes") is not None
    scorer = load_scorer("mllm", model=str(saved_judge(bench)), bits=4) if few else models.judge(bench.device, bench.dtype, bench.tiny)
    target = load_target({"memorability": 1.0}, scorer=scorer.with_dimension("memorability"))
    if bench.device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (limit * GIB / total) if limit else 1.0))
        torch.cuda.reset_peak_memory_stats()
    config = FinetuneConfig(
        rounds=1, prompts_per_round=2, images_per_prompt=2, batch_size=2, timesteps=2, updates=1, evaluate_every=1,
        images_per_evaluation=2, low_memory=True, precision=str(bench.dtype).removeprefix("torch."), rank=4 if bench.tiny else 32,
    )  # fmt: skip
    bench.sync()
    started = time.perf_counter()
    try:
        finetune(
            base, target, list(models.PROMPTS[:4]), bench.scratch / f"finetuned_{name}", config, evaluation=list(models.PROMPTS[4:]),
            faithfulness=models.clip(bench.device, bench.tiny), overwrite=True, progress=False, **call,
        )  # fmt: skip
        bench.sync()
        checkpoints = sorted((bench.scratch / f"finetuned_{name}" / "checkpoints").rglob("state.json"))
        durations = [row["duration"] for row in json.loads(checkpoints[-1].read_text())["history"]] if checkpoints else []
        peak = torch.cuda.max_memory_allocated() / GIB if bench.device == "cuda" else None
        reserved = torch.cuda.max_memory_reserved() / GIB if bench.device == "cuda" else None
        bench.row(
            f"{name}, --low-memory, {call['height']} x {call['width']}, 4 images of {call['num_inference_steps']} steps learned at 2 levels, and two evaluations of 4 images"
            + (f", process held to {limit:g} GiB" if limit else "") + (", judge in 4 bits" if few else ""),
            {"seconds": [time.perf_counter() - started], "peak_gib": peak}, round_s=durations[0] if durations else "", reserved_gib=reserved,
        )  # fmt: skip
    finally:
        if bench.device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)


# ---------------------------------------------------------------------- 4. the text encoder


@torch.no_grad()
def swap(bench: Bench) -> None:
    """A 7B in the place of Qwen-Image's text encoder: to the bit at 0, shared where equal, undone to the bit."""
    scorer = models.judge(bench.device, bench.dtype, bench.tiny)
    encoder, _ = models.mllm(bench.device, bench.dtype, bench.tiny, seed=1)
    pipe = CogGuidedPipeline.from_pipe(models.qwen_image(bench.device, bench.dtype, bench.tiny, encoder, generator_tiny=True))

    def encoded() -> torch.Tensor:
        return pipe.encode_prompt(models.PROMPTS[0])[0].clone()

    def held() -> float:
        return torch.cuda.memory_allocated() / GIB if bench.device == "cuda" else float("nan")

    before, memory = encoded(), held()
    started = time.perf_counter()
    swapped = swap_text_encoder(pipe, scorer, strength=1.0)
    bench.sync()
    bench.row("swap of all weights", {"seconds": [time.perf_counter() - started], "peak_gib": None}, held_before=memory, held_after=held(), changed=not torch.equal(before, encoded()))
    for strength in (0.0, 0.5, 1.0):
        def change(strength: float = strength) -> None:
            swapped.strength = strength
        done = bench.timed(change, warm=False)
        bench.row(f"strength {strength:g}", done, held=held(), same_to_the_bit=torch.equal(before, encoded()))
    swapped.unswap()
    bench.row("undone", held=held(), same_to_the_bit=torch.equal(before, encoded()))


# ---------------------------------------------------------------------- 5. tests


def tests(bench: Bench) -> None:
    """The tests marked `gpu`."""
    if bench.device != "cuda":
        bench.row("pytest -m gpu", result="needs CUDA: not run")
        return
    root = Path(__file__).resolve().parent.parent
    files = ["tests/test_gpu.py", "tests/pipelines/test_passing_through.py"]
    done = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "-q", *files], cwd=root, capture_output=True, text=True, check=False)
    (bench.out / "tests.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    bench.row("pytest -m gpu", result=done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:])


PARTS: dict[str, Callable[[Bench], None]] = {
    "judge": judge,
    "invariance": invariance,
    "sdxl": lambda bench: generator(bench, "sdxl"),
    "flux": lambda bench: generator(bench, "flux"),
    "qwen_image": lambda bench: generator(bench, "qwen_image"),
    "alignment": alignment,
    "finetune_sdxl": lambda bench: round_of(bench, "sdxl", 23.5),
    "finetune_flux": lambda bench: round_of(bench, "flux", None),
    "swap": swap,
    "tests": tests,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this one; may be given again")
    parser.add_argument("--quick", action="store_true", help="one run of everything, fewer sizes and steps")
    parser.add_argument("--tiny", action="store_true", help="the same classes at tiny shapes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cuda", "cpu"))
    parser.add_argument("--limit", type=int, default=0, help="seconds after which a part is left for the next; 0: none")
    parser.add_argument("--out", type=Path, default=Path("out/full_size"))
    args = parser.parse_args(argv)
    if args.device == "cpu" and not args.tiny:
        parser.error("without a GPU: --device cpu --tiny")
    def too_long(*_: Any) -> None:
        raise OutOfTime(f"more than --limit {args.limit} s")

    signal.signal(signal.SIGALRM, too_long)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("cogguided").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="full_size") as scratch:
        bench = Bench(args.device, args.tiny, args.quick, args.out, Path(scratch))
        for part in args.part or PARTS:
            bench.part = part
            started = time.perf_counter()
            print(f"{part}:", flush=True)
            signal.alarm(args.limit)
            with bench.attempt(part):
                PARTS[part](bench)
            signal.alarm(0)
            free()
            print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)
    print(f"{args.out / 'results.md'}\n")
    return int(any("error" in row for row in bench.rows))


if __name__ == "__main__":
    sys.exit(main())
