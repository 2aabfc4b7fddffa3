"""Plant one fault at a time in a copy of the package and see whether the tests notice.

    python tests/planted_faults.py                     # every fault of faults.py, a Markdown table
    python tests/planted_faults.py readout test_sft    # those whose file or tests have one of these in their names

A script, run by hand when tests are made quicker or numerics are rewritten: the share caught must not fall. What the
package needs is imported once and every fault is tried in a fork, in a few minutes. In the end the tests that noticed
a fault run without one, as a test that always fails catches nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "out", "build", "dist", "docs", "benchmarks")
EARLY = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # of plugins that came with what is imported before
LIMIT = 900
"""Seconds after which a run of tests is given up."""


def linked(source: str, target: str) -> None:
    """Link a file, or copy it to another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def copied(folder: Path, fault: Fault | None = None) -> Path:
    """Return a copy of the package (links to its files), for `sys.path`, with a fault planted."""
    package = Path(shutil.copytree(ROOT, folder / "cogguided", ignore=LEFT_OUT, symlinks=True, copy_function=linked))
    if fault is not None:
        file = package / fault.file
        text = file.read_text("utf-8")
        assert text.count(fault.old) == 1, f"{fault.file}: {fault.old!r} occurs {text.count(fault.old)} times"
        file.unlink()  # a link: the text itself is the repository's
        file.write_text(text.replace(fault.old, fault.new), "utf-8")
    return package


def import_what_is_needed() -> None:
    """Import what a fork would import by itself, but nothing of ours."""
    gc.disable()
    import datasets
    import diffusers
    import open_clip
    import peft
    import pytest  # noqa: F401
    import scipy.stats
    import torch
    import transformers
    import typer

    for of, names in (
        (transformers, "AutoModelForImageTextToText AutoProcessor Trainer CLIPTextModel T5EncoderModel Qwen3Model"),
        (diffusers, "AutoPipelineForText2Image FluxPipeline StableDiffusionPipeline QwenImagePipeline"),
        (peft, "PeftModel"), (datasets, "Dataset"), (open_clip, "create_model"), (typer, "Typer"), (scipy, "stats"),
    ):  # fmt: skip
        for name in names.split():
            getattr(of, name)
    torch.set_num_threads(1)
    ours = [name for name in sys.modules if name.split(".")[0] == "cogguided"]
    assert not ours, ours
    gc.freeze()


def be_pytest(package: Path, log: Path, runs: Sequence[Sequence[str]]) -> None:
    """Run the tests of a copy, in this fork: the first of several runs that fails, or all; never returns."""
    shown = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(shown, 1)
    os.dup2(shown, 2)
    code = 70
    try:
        signal.alarm(LIMIT)
        os.environ.update(PYTHONPATH=str(package.parent), PYTHONDONTWRITEBYTECODE="1")
        sys.dont_write_bytecode = True
        os.chdir(package)
        sys.path[0] = str(package.parent)  # in place of the folder of this script
        import pytest

        import cogguided

        assert Path(str(cogguided.__file__)).parent == package, f"not the copy is imported, but {cogguided.__file__}"
        for arguments in runs:
            code = int(pytest.main(["-q", "-rfE", "-p", "no:cacheprovider", *EARLY, *arguments]))
            if code != 0:
                break
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def runs_of(fault: Fault) -> list[list[str]]:
    """Arguments of pytest: for the likely test, then for all."""
    files = ["-x", *(f"tests/{name}" for name in fault.tests.split())]
    return [[*files, "-k", fault.first], files] if fault.first else [files]


def tried(faults: Sequence[Fault], jobs: int) -> Iterator[tuple[Fault, str | None]]:
    """Plant each fault in a copy of its own; gives it with the first test that noticed, or None, in order."""
    running: dict[int, tuple[Fault, tempfile.TemporaryDirectory[str]]] = {}
    found: dict[str, str | None] = {}
    left, told = list(faults), 0
    while told < len(faults):
        while left and len(running) < jobs:
            fault, folder = left.pop(0), tempfile.TemporaryDirectory()
            package = copied(Path(folder.name).resolve(), fault)
            child = os.fork()
            if child == 0:
                be_pytest(package, Path(folder.name) / "log", runs_of(fault))
            running[child] = fault, folder
        child, status = os.wait()
        fault, folder = running.pop(child)
        said = (Path(folder.name) / "log").read_text("utf-8", "replace")
        folder.cleanup()
        code = os.waitstatus_to_exitcode(status)
        by = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", said, re.M)  # there may be spaces in it
        if code not in (0, 1) or (code == 1) != (by is not None):
            raise RuntimeError(f"{fault.what}: pytest ended with {code}:\n{said[-3000:]}")
        found[fault.what] = by[1] if by else None
        while told < len(faults) and faults[told].what in found:
            yield faults[told], found[faults[told].what]
            told += 1


def pass_without(tests: Sequence[str]) -> bool:
    """Whether tests pass where no fault is planted; tells those that do not."""
    with tempfile.TemporaryDirectory() as folder:
        package, log = copied(Path(folder).resolve()), Path(folder) / "log"
        child = os.fork()
        if child == 0:
            be_pytest(package, log, [[f"tests/{name}" for name in tests]])
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            print(f"Without a fault they fail too:\n{log.read_text('utf-8', 'replace')[-3000:]}", file=sys.stderr)
    return code == 0


def main() -> int:
    """Try the faults and print the table; 1 if one survived, 2 if a test fails without a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of names of files or tests; none: every fault")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at once")
    asked = parser.parse_args()
    chosen = [f for f in FAULTS if not asked.words or any(w in f"{f.file} {f.tests}" for w in asked.words)]
    os.environ["OMP_NUM_THREADS"] = "1"
    import_what_is_needed()
    print("| file | fault | caught | by |\n|---|---|---|---|", flush=True)
    noticed, began = [], time.monotonic()
    for fault, by in tried(chosen, asked.jobs):
        noticed += [by] if by else []
        print(f"| {fault.file} | {fault.what} | {'yes' if by else '**no**'} | {by or ''} |", flush=True)
    print(f"\n{len(noticed)} of {len(chosen)} caught, in {time.monotonic() - began:.0f} s", flush=True)
    if noticed and not pass_without(sorted(set(noticed))):
        return 2
    return int(len(noticed) < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
