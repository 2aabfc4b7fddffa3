"""The judge's parts of `full_size.py`: both read-outs against the official way, batch invariance, 4 bits."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import full_size_models as models
import torch
from full_size_bench import GIB, Bench, free, pictures
from PIL import Image

from cogguided import (
    load_scorer,
)  # fmt: skip
from cogguided.scorers.mllm.branching import Branches
from cogguided.scorers.mllm.prompting import build_prompts


@contextlib.contextmanager
def counted_nodes() -> Iterator[list[int]]:
    """How many tokens each pass after the image's fed, padding included."""
    found: list[int] = []
    extend = Branches.extend

    def counting(self: Any, tokens: Any, parents: Any, keep: Any = None) -> Any:
        found.append(max(map(len, tokens)))
        return extend(self, tokens, parents, keep)

    Branches.extend = counting  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Branches.extend = extend  # type: ignore[method-assign]


def official_way(scorer: Any, images: Sequence[Image.Image]) -> list[str]:
    """Batch 1, a dimension at a time, greedy text of at most 100 tokens."""
    model, said = scorer.model, []
    for image in images:
        for dim in scorer.facts.dimensions.values():
            inputs = {k: v.to(model.device) for k, v in build_prompts(scorer.processor, [image], [dim.question]).items()}
            inputs = {k: v.to(model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
            with torch.inference_mode():
                out = model.generate(**inputs, max_new_tokens=100, do_sample=False)
            said.append(scorer.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return said


def spread(scorer: Any, images: Sequence[Any], batch: int) -> dict[str, float]:
    """Largest difference, in parts of the range, between scores one by one and in batches."""
    found = {}
    scorer.batch_size = 1
    alone = scorer.score_all(images)
    scorer.batch_size = batch
    together = scorer.score_all(images)
    for name, dim in scorer.facts.dimensions.items():
        gap = (alone[name].values - together[name].values).abs().max().item()
        found[name] = gap / (dim.high - dim.low)
    return found


def judge(bench: Bench) -> None:
    """Qwen2.5-VL-7B: both read-outs, all four dimensions, against the official way; 4 bits."""
    scorer = models.judge(bench.device, bench.dtype, bench.tiny)
    sides = [56, 112] if bench.tiny else [512] if bench.quick else [512, 1024]
    batches = [1, 3] if bench.tiny else [1, 8, 32] if bench.quick else [1, 4, 8, 16, 32]
    for side in sides:
        images = pictures(max(batches), side)
        for readout in ("expected", "greedy"):
            for batch in batches:
                with bench.attempt(f"{readout}, {batch} images of {side} x {side}"):
                    scorer.batch_size = batch
                    with counted_nodes() as nodes:
                        done = bench.timed(lambda: scorer.score_readouts(images[:batch], None, [readout]))  # noqa: B023
                    passes = len(nodes) // (len(done["seconds"]) + 1)
                    unread = sum(int((~s.valid).sum()) for s in done["result"][readout].values())
                    bench.row(
                        f"{readout}, {batch} images of {side} x {side}", done,
                        images_per_s=batch / statistics.median(done["seconds"]), passes=passes, tokens=sum(nodes[-passes:]), unread=unread,
                    )  # fmt: skip
        with bench.attempt(f"official way, {side} x {side}"):
            count = 1 if bench.quick or bench.tiny else 2
            done = bench.timed(lambda: official_way(scorer, images[:count]), repeats=2)  # noqa: B023
            bench.row(f"official way: batch 1, a dimension at a time, {side} x {side}", done, images_per_s=count / statistics.median(done["seconds"]), said=done["result"][0])
    scorer = None
    free()
    rest_of_judge(bench, sides)


def invariance(bench: Bench) -> None:
    """Does a score depend on the batch it is in, in bfloat16 and float32? And on the type?"""
    scorer = models.judge(bench.device, bench.dtype, bench.tiny)
    side, count = (56, 4) if bench.tiny else (448, 16 if bench.quick else 32)
    same = pictures(count, side)
    mixed = [image.resize((side + 28 * (k % 3), side)) for k, image in enumerate(same)]
    for kind, images in (("one size", same), ("three sizes", mixed)):
        for batch in [count // 2] if bench.quick or bench.tiny else [8, 32]:
            with bench.attempt(f"batch invariance, {kind}"):
                bench.row(f"{bench.dtype}: {count} images of {kind} one by one and {batch} at once, largest difference in parts of the range", **spread(scorer, images, batch))
    if bench.device == "cuda":
        with bench.attempt("batch invariance, float32"):
            half = {n: s.values for n, s in scorer.score_all(same[:8]).items()}
            scorer.model.float()
            bench.row("torch.float32: 8 images of three sizes, the same", **spread(scorer, mixed[:8], 8))
            exact = scorer.score_all(same[:8])
            gaps = {n: (half[n] - exact[n].values).abs().max().item() / (d.high - d.low) for n, d in scorer.facts.dimensions.items()}
            bench.row("bfloat16 against float32, the same 8 images", **gaps)


def rest_of_judge(bench: Bench, sides: Sequence[int]) -> None:
    """One that is undecided, and one in 4 bits."""
    with bench.attempt("undecided judge"):
        scorer = models.judge(bench.device, bench.dtype, bench.tiny, decided=False)
        for batch in (1, 4):
            with counted_nodes() as nodes:
                done = bench.timed(lambda: scorer.score_all(pictures(batch, sides[0])), repeats=1, warm=False)  # noqa: B023
            bench.row(f"an undecided judge, expected, {batch} images of {sides[0]} x {sides[0]}", done, images_per_s=batch / done["seconds"][0], passes=len(nodes), tokens=sum(nodes))
        scorer = None
    if importlib.util.find_spec("bitsandbytes") and bench.device == "cuda":
        with bench.attempt("4 bits"):
            folder = saved_judge(bench)
            started = time.perf_counter()
            few = load_scorer("mllm", model=str(folder), bits=4)
            loaded = time.perf_counter() - started
            weights = torch.cuda.memory_allocated() / GIB
            few.batch_size = 8
            done = bench.timed(lambda: few.score_all(pictures(8, sides[0])))
            bench.row(f"4 bits, expected, 8 images of {sides[0]} x {sides[0]}", done, images_per_s=8 / statistics.median(done["seconds"]), weights_gib=weights, load_s=loaded)
            del few


def saved_judge(bench: Bench) -> Path:
    """The random 7B as a folder, as a hub checkout lies on a disk."""
    folder = bench.scratch / "judge"
    if not (folder / "config.json").is_file():
        model, processor = models.mllm(bench.device, bench.dtype, bench.tiny)
        models.decide(model, processor)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        del model
        free()
    return folder
