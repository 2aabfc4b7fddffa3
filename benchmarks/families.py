"""What can cogguided do on which of diffusers' text-to-image pipelines? All of it, on each, at tiny size.

Each class of tests/pipelines/families is built with random weights and taken through every ability; what is refused is
told with the sentence of the refusal. Writes a Markdown table.

    python benchmarks/families.py                                  # docs/families.md
    python benchmarks/families.py --only Flux Sana --output out/families.md
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "pipelines"))

HEAD = """# Families of pipelines

What cogguided does on {count} text-to-image pipelines of diffusers {version}, tried on tiny models with random weights, on
a CPU, by [benchmarks/families.py](../benchmarks/families.py); the builders are in
[tests/pipelines/families](../tests/pipelines/families). It says that the mechanics work, not what is gained. Nothing in
the package knows any of these by name.

- *same image*: without guidance, the base pipeline's, to the pixel
- *best of 3*, *Halving*, *Drafts*: what is chosen is the base's image of that prompt and seed, up to rounding; *one at
  a time* where the base's own call fails on several prompts, or draws otherwise in a batch than alone, which a note says
- *replay*: every kind of record makes its image again, to the pixel
- *save, load*: in plain diffusers and here
- *fine-tuning*, *LoRA out*: a round of DiffusionNFT; the file loads in plain diffusers, or in peft where that has no loader

"""

LEFT_OUT = """
## Left out

| class | why |
|---|---|
| `StableDiffusionPanoramaPipeline` | draws another image of a prompt in a batch than alone, in plain diffusers too; with `batch_size=1` it is the same |
| `StableDiffusionLDM3DPipeline` | fails on its own depth picture with Pillow 13 |
| `StableDiffusionGLIGENPipeline` | does not draw without boxes |
| Amused, AltDiffusion, Cosmos 2, Fibo 2, Ideogram 4, LDM, UniDiffuser, VQ-Diffusion, Versatile Diffusion, Würstchen, Z-Image Omni | can be wrapped; not tried |
| editing by inversion, and the first parts of combined pipelines | not text-to-image; some are known by that only when called |
| pipelines of video and sound | not text-to-image; refused when wrapped |
| pipelines that work on pictures (image to image, inpainting, ControlNet) | guided by whole images: `image=`, `mask_image=`, `control_image=` pass through, one picture for all prompts. Those that begin from a picture (`strength=`) cannot be stopped half-way, so no halving and drafts. Tested: Stable Diffusion's three and Flux image to image |
"""


def measured(name: str) -> tuple[dict[str, str], float]:
    from families import measure

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        found = measure(name, Path(folder))
    return found, time.perf_counter() - started


def short(answer: str, seen: dict[str, int]) -> str:
    """Yes, or the number of a footnote."""
    return answer if answer.startswith("yes") else f"[{seen.setdefault(answer, len(seen) + 1)}]"


def table(results: dict[str, dict[str, str]]) -> str:
    abilities = list(next(iter(results.values())))
    seen: dict[str, int] = {}
    lines = [f"| class | {' | '.join(abilities)} |", "|---" * (len(abilities) + 1) + "|"]
    for name, found in results.items():
        label, _, variant = name.partition(" ")
        answers = " | ".join(short(found[ability], seen) for ability in abilities)
        lines.append(f"| `{label}`{f' ({variant})' if variant else ''} | {answers} |")
    notes = [f"{number}. {text}" for text, number in seen.items()]
    return "\n".join([*lines, "", *notes]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="parts of class names")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "families.md")
    arguments = parser.parse_args()

    import diffusers
    import torch
    import transformers
    from families import FAMILIES

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    results = {}
    for name in sorted(FAMILIES, key=str.casefold):
        if arguments.only and not any(part.casefold() in name.casefold() for part in arguments.only):
            continue
        results[name], seconds = measured(name)
        yes = sum(answer.startswith("yes") for answer in results[name].values())
        print(f"{name:40} {yes} of {len(results[name])}   {seconds:5.1f} s", flush=True)
    text = HEAD.format(version=diffusers.__version__, count=len({name.split()[0] for name in results})) + table(results) + LEFT_OUT
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, "utf-8")
    print(f"{len(results)} classes: {arguments.output}")


if __name__ == "__main__":
    main()
