"""Which model types of transformers' image-text-to-text mapping can be judges? Each is tried, at tiny size.

Each type of tests/scorers/mllm_types is built with random weights, asked in both read-outs, in a batch and alone, and
differentiated; what is refused is told with the sentence of the refusal. Writes a Markdown table. A run that was stopped goes on; delete
out/mllm_families to begin again.

    python benchmarks/mllm_families.py --jobs 2                     # docs/mllm-families.md, in half an hour or less
    python benchmarks/mllm_families.py --only llava qwen --output out/families.md
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "scorers"))

KEPT = ROOT / "out" / "mllm_families"
"""What was found, by type: a run that was stopped goes on."""

HEAD = """# MLLMs that can be judges

"Any image-text-to-text model" measured: the {total} model types in that mapping of transformers {version}, tried on tiny
models with random weights, on a CPU, by [benchmarks/mllm_families.py](../benchmarks/mllm_families.py); what each needs to be
built is in [tests/scorers/mllm_types](../tests/scorers/mllm_types). It says that the mechanics work, not how well a model
judges. The package has no line on any type. A checkpoint needs a chat template, which not all published ones have.

**{built} types could be built; {works} of them work** ({share:.0%}). {others} take no picture with a question at all (proteins,
videos, a robot's state, pictures alone); of the others {rest:.0%} work. {copies} of those that work need more passes, since the
branches of an answer cannot share one (layers with a state, and others that a packed tree does not fit): *copies*, *re-runs*.

- *how*: *packed*: image once, all branches of an answer in shared passes; *one at a time*: the same, without batches, since
  the model itself gives other answers in a batch; *copies*: image once, each branch from a copy of the model's memory;
  *re-runs*: each branch from the start; so too where a question is read as a whole before it is answered (an encoder with a
  decoder, or attention in both directions over the prompt). Found out when a model is loaded, by comparison with plain runs; a
  warning says so
- *expected*, *greedy*: a batch gives what single images give (expected to 1e-4 of the range), and the image matters
- *gradient*: of the expected score with respect to the pixels; not zero, and in a batch that of each image alone

"""


def quiet() -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def measured(name: str) -> dict[str, str]:
    from mllm_types import build, measure

    started = time.perf_counter()
    kept = KEPT / f"{name}.json"
    if kept.is_file():
        found: dict[str, str] = json.loads(kept.read_text("utf-8"))
        return found
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = measure(build(name, Path(folder) / name))
        except AssertionError as error:
            found = {"loads": f"wrong: {error}"}
        print(f"{name:24} {time.perf_counter() - started:6.1f} s  {found.get('read', found['loads'])[:90]}", flush=True)
        found = {key: answer.replace(folder + "/", "").replace(f"tiny {name}: ", "") for key, answer in found.items()}
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found), "utf-8")
    return found


def table(results: dict[str, dict[str, str]]) -> str:
    seen: dict[str, int] = {}
    lines = ["| type | how | expected | greedy | gradient |", "|---|---|---|---|---|"]
    for name, found in results.items():
        if found["loads"] != "yes":
            lines.append(f"| `{name}` | refused [{seen.setdefault(found['loads'], len(seen) + 1)}] | | | |")
            continue
        answers = [
            answer if answer == "yes" else f"[{seen.setdefault(answer, len(seen) + 1)}]"
            for answer in (found["expected"], found["greedy"], found["gradient"])
        ]
        lines.append(f"| `{name}` | {found['read']} | {' | '.join(answers)} |")
    notes = [f"{number}. {' '.join(text.split())[:300]}" for text, number in seen.items()]
    return "\n".join([*lines, "", *notes]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="parts of types' names")
    parser.add_argument("--jobs", type=int, default=1, help="types at once")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "mllm-families.md")
    arguments = parser.parse_args()

    import transformers
    from mllm_types import NAMES, NO_QUESTION, UNBUILT

    parts = arguments.only or [""]
    names = [name for name in NAMES if name not in UNBUILT and any(part in name for part in parts)]
    with ProcessPoolExecutor(arguments.jobs, initializer=quiet) as pool:
        results = dict(zip(names, pool.map(measured, names), strict=True))
    works = [n for n, found in results.items() if found["loads"] == found.get("expected") == found.get("greedy") == "yes"]
    head = HEAD.format(
        total=len(NAMES),
        version=transformers.__version__,
        built=len(results),
        works=len(works),
        share=len(works) / len(results),
        others=len(set(NO_QUESTION) & set(results)),
        rest=len(works) / max(1, len(set(results) - set(NO_QUESTION))),
        copies=sum(results[name]["read"] in ("copies", "re-runs") for name in works),
    )
    left_out = "\n## Not built here\n\n| type | why |\n|---|---|\n"
    left_out += "".join(f"| `{name}` | {why} |\n" for name, why in UNBUILT.items())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(head + table(results) + left_out, "utf-8")
    print(f"{len(works)} of {len(results)} types: {arguments.output}")


if __name__ == "__main__":
    main()
