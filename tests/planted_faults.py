"""Plant one fault at a time in a copy of the package and see whether the tests notice.

    python tests/planted_faults.py                     # every fault, a Markdown table
    python tests/planted_faults.py readout test_sft    # those whose file or tests have one of these in their names

A script, run by hand when tests are made quicker or numerics are rewritten: the share caught must not fall. First the
tests run without a fault, as a test that always fails catches nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "out", "build", "dist", "docs", "benchmarks")


@dataclass(frozen=True)
class Fault:
    """What is planted: `new` in place of `old`, which occurs once in `file`; and who should notice."""

    what: str
    file: str
    old: str
    new: str
    tests: str
    """Test files, one space between, beneath tests/."""


SFT = "scorers/alignment/test_sft.py scorers/alignment/test_parts.py"
FAULTS = (
    # ------------------------------------------------------------------ scorers: how an answer is read
    Fault(
        "the spread leaves out what is within a branch", "scorers/mllm/readout.py",
        "(values - mean) ** 2 + within)", "(values - mean) ** 2)", "scorers/test_readout.py",
    ),
    Fault(
        "unfollowed branches have no width", "scorers/mllm/readout.py",
        "variances[open_] = within.mean()", "variances[open_] = 0.0", "scorers/test_readout.py",
    ),
    Fault(
        "followed branches have the mean's width", "scorers/mllm/readout.py",
        "variances[np.searchsorted(nodes, followed)] = within", "pass", "scorers/test_readout.py",
    ),
    Fault(
        "all that begins as a number counts as one", "scorers/mllm/readout.py",
        "* weights.sum()) * continued", "* weights.sum())", "scorers/test_readout.py",
    ),
    Fault(
        "half of min_mass is enough", "scorers/mllm/answers.py",
        "reading.mass < min_mass:", "reading.mass < min_mass / 2:",
        "scorers/test_mllm.py scorers/test_readout.py",
    ),
    Fault(
        "one NaN makes a whole batch NaN", "scorers/target.py",
        "total = term.weight * unit if", "unit = unit + 0 * unit.sum()\n            total = term.weight * unit if",
        "scorers/test_ensemble.py",
    ),
    Fault(
        "a gradient without its baseline", "scorers/mllm/gradients.py",
        "(values - weights @ values)", "values", "scorers/test_gradients.py",
    ),
    Fault(
        "a sliding window sees one token more", "scorers/mllm/branching.py",
        "< text_config.sliding_window", "<= text_config.sliding_window", "scorers/test_branching.py",
    ),
    Fault(
        "answers begin one position late", "scorers/mllm/branching.py",
        "planes[:, row, :n].max() + 1", "planes[:, row, :n].max() + 2", "scorers/test_branching.py",
    ),
    Fault(
        "CLIP's pictures are not brought to unit length", "scorers/models/clip.py",
        "encode_image(stacked, normalize=True)", "encode_image(stacked, normalize=False)", "scorers/test_clip.py",
    ),
    Fault(
        "Kendall's tau forgets ties of one side", "scorers/benchmark/metrics.py",
        "np.sqrt(untied_x * untied_y)", "np.sqrt(untied_x * untied_x)", "scorers/test_benchmark_metrics.py",
    ),
    Fault(
        "a comparison takes what the first alone has read", "scorers/benchmark/metrics.py",
        "both = first.read & second.read", "both = first.read", "scorers/test_benchmark_metrics.py",
    ),
    # ------------------------------------------------------------------ scorers: alignment
    Fault(
        "the learning rate is a step ahead", "scorers/alignment/training/trainer.py",
        "(step + 0.5)", "(step + 1.5)", f"{SFT} scorers/alignment/test_running.py",
    ),
    Fault(
        "the cosine begins with the warm-up", "scorers/alignment/training/callbacks.py",
        "(progress - warmup) / (1 - warmup)", "progress", f"{SFT} scorers/alignment/test_running.py",
    ),
    Fault(
        "a resumed alignment forgets the minutes already spent", "scorers/alignment/training/callbacks.py",
        '"attributes": {"spent": self.seconds()}', '"attributes": {"spent": 0.0}',
        f"{SFT} scorers/alignment/test_running.py",
    ),
    Fault(
        "vectors decay too", "scorers/alignment/training/trainer.py",
        "config.weight_decay if decays else 0.0", "config.weight_decay", SFT,
    ),
    Fault(
        "a soft digit has too much of the truth", "scorers/alignment/soft_labels.py",
        "soft[digit] += 1 - eta", "soft[digit] += 1", "scorers/alignment/test_losses.py",
    ),
    Fault(
        "a normal distribution too narrow", "scorers/alignment/soft_labels.py",
        "logs = -0.5 *", "logs = -1.0 *", "scorers/alignment/test_losses.py",
    ),
    Fault(
        "the expected value counts a place before it is reached", "scorers/alignment/training/losses.py",
        "(before.exp() * leaves)", "(reached.exp() * leaves)", "scorers/alignment/test_losses.py",
    ),
    Fault(
        "the value term is shared by the batch at hand", "scorers/alignment/training/losses.py",
        "(len(gaps) if num_answers is None else num_answers)", "len(gaps)",
        f"scorers/alignment/test_losses.py {SFT}",
    ),
    Fault(
        "a reward by the highest value, not the range", "scorers/alignment/training/rewards.py",
        "/ (dim.high - dim.low)", "/ dim.high", "scorers/alignment/test_grpo.py",
    ),
    # ------------------------------------------------------------------ guidance
    Fault(
        "the spread counts prompts with one image", "guidance/finetuning/objectives/advantages.py",
        "counted.sum().clamp_min(1)).sqrt()\n    return", "read.sum().clamp_min(1)).sqrt()\n    return",
        "guidance/finetuning/test_losses.py",
    ),
    Fault(
        "the negative model is on the wrong side", "guidance/finetuning/objectives/losses.py",
        "(1 + beta) * old - beta * output", "(1 - beta) * old + beta * output",
        "guidance/finetuning/test_losses.py",
    ),
    Fault(
        "the worse image's reference is forgotten", "guidance/finetuning/objectives/losses.py",
        "- (worse - reference_worse)", "- (worse - reference_better)", "guidance/finetuning/test_losses.py",
    ),
    Fault(
        "a resumed fine-tuning forgets the minutes already spent", "guidance/finetuning/loop.py",
        "self.state, tensors = found", "self.state, tensors = found\n        self.state.seconds = 0.0",
        "pipelines/test_finetuning.py",
    ),
    Fault(
        "the alarm knows no tolerance", "guidance/finetuning/panel.py",
        "high < -self.tolerances[name]", "high < 0", "guidance/finetuning/test_panel.py",
    ),
    Fault(
        "particles are weighed by their whole score at every look", "guidance/search/fk.py",
        "log_weights + now - before", "log_weights + now", "guidance/test_search.py",
    ),
    Fault(
        "a neighbour's noise is too small", "guidance/search/noise.py",
        "math.sqrt(1 - radius**2)", "1 - radius", "guidance/test_search.py",
    ),
    Fault(
        "noise is driven off its length", "guidance/search/gradient.py",
        "((size - 1) / length**2 - 1)", "(1 - (size - 1) / length**2)", "guidance/test_gradient.py",
    ),
    Fault(
        "different is what differs on average", "guidance/choosing.py",
        "apart[:, taken].amin(1)", "apart[:, taken].mean(1)", "guidance/test_choosing.py",
    ),
    # ------------------------------------------------------------------ pipelines
    Fault(
        "fresh noise at the wrong level", "pipelines/driving/diffusion.py",
        "kept = alpha * next_sigma / max(next_alpha * sigma, 1e-12)", "kept = next_sigma / max(sigma, 1e-12)",
        "pipelines/test_trajectories.py",
    ),
    Fault(
        "velocities of scaled latents are too long", "pipelines/driving/diffusion.py",
        "found: torch.Tensor = (alpha * noise - sigma * clean) / length",
        "found: torch.Tensor = alpha * noise - sigma * clean", "pipelines/test_learner.py",
    ),
    Fault(
        "a mix of noises is its first one, weighted", "pipelines/driving/trajectories.py",
        "noise.mix[min(part, len(noise.mix) - 1)][0]", "noise.mix[0][0]",
        "pipelines/test_trajectories.py pipelines/test_record.py guidance/test_search.py",
    ),
    Fault(
        "latents that are gone on with are scaled twice", "pipelines/driving/trajectories.py",
        "latents = latents / start.scale", "pass", "pipelines/test_driving.py",
    ),
    Fault(
        "the untrained model is the trained one", "pipelines/driving/learner.py",
        "layer.enable_adapters(False)", "layer.enable_adapters(True)", "pipelines/test_learner.py",
    ),
    Fault(
        "a study's difference has its sign turned", "pipelines/study/study.py",
        "paired_difference(by_arm[\"original\"][name], by_arm[arm][name])",
        "paired_difference(by_arm[arm][name], by_arm[\"original\"][name])", "pipelines/test_study.py",
    ),
    Fault(
        "votes of several people count as several pairs", "pipelines/study/study.py",
        "binomtest(round(wins / votes * len(pairs)), len(pairs))", "binomtest(wins, votes)",
        "pipelines/test_study.py",
    ),
    # ------------------------------------------------------------------ integrations
    Fault(
        "an adapter on the Hub is taken for a plain model", "scorers/mllm/checkpoints.py",
        "if adapter is None and hub_file(model, ADAPTER_FILE) is not None:",
        "if adapter is None and (Path(model) / ADAPTER_FILE).is_file():", "integrations/test_hub.py",
    ),
    Fault(
        "a published model's questions stay behind", "scorers/publishing/judges.py",
        "    facts.write(target)\n", "", "integrations/test_hub.py",
    ),
    Fault(
        "folders of one's machine are published", "scorers/publishing/judges.py",
        "(ADAPTER_FILE, FACTS_FILE, RECORD)", "(ADAPTER_FILE, FACTS_FILE)", "integrations/test_hub.py",
    ),
    Fault(
        "the figures of another judge are published", "scorers/publishing/judges.py",
        "and of and digest not in of", "and not of", "integrations/test_hub.py",
    ),
    Fault(
        "intervals lack their upper end", "scorers/publishing/cards.py",
        "[round(end, 6) for end in interval]", "[round(interval[0], 6)] * 2", "integrations/test_hub.py",
    ),
    Fault(
        "the Hub is not asked about the card", "scorers/publishing/uploading.py",
        "card.validate()", "pass", "integrations/test_hub.py",
    ),
    Fault(
        "a text that a person wrote is overwritten", "scorers/publishing/uploading.py",
        "if MARK in before.content", "if True", "integrations/test_hub.py",
    ),
    Fault(
        "a LoRA's change is its value after", "pipelines/publishing.py",
        "interval(saved.values[name] - before.values[name])", "interval(saved.values[name])",
        "integrations/test_hub.py",
    ),
    Fault(
        "a saved block forgets its target", "integrations/modular.py",
        '"target": target, "n": self.n', '"target": "fake", "n": self.n', "integrations/test_modular.py",
    ),
    Fault(
        "a judge is copied with its block", "integrations/modular.py",
        "memo[id(self.target)], memo[id(self._target_given)] = self.target, self._target_given", "pass",
        "integrations/test_modular.py",
    ),
    Fault(
        "back-ends without a kernel are said to work", "_cli/info.py",
        'return f"has no kernel for {device}"', "return None", "pipelines/test_attention.py",
    ),
)  # fmt: skip


def copied(folder: Path) -> Path:
    """Return a copy of the package, for `PYTHONPATH=folder`."""
    return Path(shutil.copytree(ROOT, folder / "cogguided", ignore=LEFT_OUT, symlinks=True))


def pytest_in(package: Path, tests: list[str], *options: str) -> tuple[int, str]:
    """Run test files of a copy; returns the exit status and what was printed."""
    paths = {**os.environ, "PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *options]
    command += [f"tests/{name}" for name in tests]
    done = subprocess.run(command, cwd=package, env=paths, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def tried(fault: Fault) -> str | None:
    """Plant a fault in a copy; returns the first test that notices, or None."""
    with tempfile.TemporaryDirectory() as folder:
        package = copied(Path(folder))
        file = package / fault.file
        text = file.read_text("utf-8")
        assert text.count(fault.old) == 1, f"{fault.file}: {fault.old!r} occurs {text.count(fault.old)} times"
        file.write_text(text.replace(fault.old, fault.new), "utf-8")
        code, said = pytest_in(package, fault.tests.split(), "-x")
    if code == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", said, re.M)
    if code != 1 or found is None:
        raise RuntimeError(f"{fault.what}: pytest ended with {code}:\n{said[-3000:]}")
    return found[1]


def main() -> int:
    """Try the faults and print the table; 1 if one survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of names of files or tests; none: every fault")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at once")
    parser.add_argument("--trust", action="store_true", help="do not run the tests without a fault first")
    asked = parser.parse_args()
    chosen = [f for f in FAULTS if not asked.words or any(w in f"{f.file} {f.tests}" for w in asked.words)]
    with tempfile.TemporaryDirectory() as folder:
        package = copied(Path(folder))
        where = subprocess.run(
            [sys.executable, "-c", "import cogguided; print(cogguided.__file__)"],
            cwd=folder, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        assert Path(where).resolve().parent == package.resolve(), f"the copy is not what is imported, but {where}"
        if not asked.trust:
            code, said = pytest_in(package, sorted({name for f in chosen for name in f.tests.split()}))
            if code:
                print(f"Without a fault the tests already fail:\n{said[-3000:]}", file=sys.stderr)
                return 2
    print("| file | fault | caught | by |\n|---|---|---|---|", flush=True)
    caught, began = 0, time.monotonic()
    with ThreadPoolExecutor(asked.jobs) as pool:
        for fault, by in zip(chosen, pool.map(tried, chosen), strict=True):
            caught += by is not None
            print(f"| {fault.file} | {fault.what} | {'yes' if by else '**no**'} | {by or ''} |", flush=True)
    print(f"\n{caught} of {len(chosen)} caught, in {time.monotonic() - began:.0f} s")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
