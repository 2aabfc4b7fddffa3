"""Peak memory of bulk work against its length: it should be flat.

    python benchmarks/bulk.py                                  # fake generator and scorer: 100 to 10,000 prompts, 1k to 100k files
    python benchmarks/bulk.py --model embedded --prompts 16,160 --files 100,1000

Every length runs in a process of its own, whose peak resident memory is what the kernel says (ru_maxrss). Prompts are
made into a folder, five steps, best of two, groups of eight, the chosen images kept; files lie in one folder, which is the worst
case, and their scores go to JSON lines. The fake generator paints a plain colour, so that length costs no hours; the
embedded model is the truth at lengths that one can wait for. "flat" is the largest peak over the smallest.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINDS = ("prompts", "files")


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def painter():
    """A pipeline that paints each image in one colour, from its generator."""
    import numpy as np
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import BaseOutput
    from PIL import Image

    class Nothing(torch.nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

    class Painter(DiffusionPipeline):
        def __init__(self, unet: torch.nn.Module):
            super().__init__()
            self.register_modules(unet=unet)

        def __call__(self, prompt: str | list = "", num_inference_steps: int = 1, generator: list | None = None):
            colours = [torch.randint(256, (3,), generator=g).tolist() for g in generator]
            images = [Image.fromarray(np.full((64, 64, 3), colour, np.uint8)) for colour in colours]
            return BaseOutput(images=images)

    return Painter(Nothing())


def make_prompts(model, count, folder):
    from cogguided import BestOfN, CogGuidedPipeline, stream

    if model == "fake":
        pipe = CogGuidedPipeline.from_pipe(painter(), target="fake")
    else:
        pipe = CogGuidedPipeline.from_pretrained(model, target="emotional_valence")
    pipe.set_progress_bar_config(disable=True)
    things = ("cat", "dog", "face", "heart", "tree", "lemon", "ghost", "moon")
    prompts = (f"a {things[i % 8]}, number {i}" for i in range(count))
    guidance = BestOfN(2)
    outputs = stream(
        pipe, prompts, folder / "many", guidance=guidance, seed=0, keep_candidates="chosen", num_inference_steps=5
    )
    return sum(len(output.images) for output in outputs)


def score_all(model, count, folder):
    from PIL import Image

    from cogguided import score_files
    from cogguided.scorers import find_images

    images = folder / "images"
    images.mkdir()
    first = images / "0000000.png"
    Image.new("RGB", (64, 64), (200, 120, 40)).save(first)
    for i in range(1, count):
        copy = images / f"{i:07}.png"
        if i % 10_000:
            os.link(first, copy)  # a file has so many names at most
        else:
            copy.write_bytes(first.read_bytes())
            first = copy
    scorer = "fake" if model == "fake" else "emotional_valence"
    return sum(score.valid for score in score_files(find_images([images]), scorer, out=folder / "scores.jsonl"))


def child(kind, model, count):
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        made = (make_prompts if kind == "prompts" else score_all)(model, count, Path(folder))
        seconds = time.perf_counter() - began
    assert made == count, (made, count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"peak": peak, "seconds": seconds}))


def measure(kind, model, count):
    command = [sys.executable, __file__, "--child", kind, "--model", model, f"--{kind}", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fake", help="fake, or embedded")
    parser.add_argument("--prompts", type=numbers, default=[100, 1000, 10_000])
    parser.add_argument("--files", type=numbers, default=[1000, 10_000, 100_000])
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.model, getattr(args, args.child)[0])
        return
    for kind in KINDS:
        counts = getattr(args, kind)
        peaks = []
        for count in counts:
            found = measure(kind, args.model, count)
            peaks.append(found["peak"])
            each = 1000 * found["seconds"] / count
            print(f"{args.model:9} {count:7} {kind:8} {found['peak']:8.0f} MiB   {each:8.2f} ms each", flush=True)
        if peaks:
            print(f"{args.model:9} {kind}: flat within {100 * (max(peaks) / min(peaks) - 1):.1f} %", flush=True)


if __name__ == "__main__":
    main()
