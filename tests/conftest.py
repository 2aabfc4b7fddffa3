"""For all tests: no garbage is looked for while modules are imported, and runs that are forked, not started."""

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

gc.disable()  # imports leave none, and looking for it takes a third of their time


def pytest_collection_finish(session):
    gc.freeze()
    gc.enable()


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, -9 if it was killed, what it printed, and the seconds it took."""

    code: int
    said: str
    seconds: float


class Forks:
    """Runs of the package in processes of their own, forked from one that has imported it: see `forking.py`."""

    def __init__(self, folder):
        file = str(Path(__file__).with_name("forking.py"))
        quick = f"import gc, runpy; gc.disable(); runpy.run_path({file!r}, run_name='__main__')"
        self.process = subprocess.Popen(
            [sys.executable, "-c", quick],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, what, log, *, after=None, until=None, processes=1, env=None, modules=()):
        """Run arguments of cogguided (a list) or Python code (a text) to the end, or kill it (see `forking.py`)."""
        job = {"code": what} if isinstance(what, str) else {"argv": [str(a) for a in what]}
        job |= {"log": str(log), "after": after, "until": None if until is None else str(until)}
        job |= {"processes": processes, "env": env or {}, "modules": list(modules)}
        Path(log).write_text("")
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        started = time.monotonic()
        code = int(self.process.stdout.readline())
        return Ended(code, Path(log).read_text("utf-8", "surrogateescape"), time.monotonic() - started)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    made = Forks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()
