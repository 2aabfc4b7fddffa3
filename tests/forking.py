"""A process that has imported what the commands need, and forks one run for each line of its input.

So tests start, kill and multiply runs without paying for the imports each time; `conftest.Forks` talks to it. A line
is JSON:

- `argv` of cogguided, or `code` of Python;
- `log`: the file for what the run prints;
- `after`: seconds until it is killed, or null; `until`: kill it once a file of this pattern is there, or null;
- `processes`: 1, or so many at once, told of each other as `accelerate launch --cpu` tells them;
- `env`: for these runs alone; `modules`: to be imported before forking.

The answer is the run's exit code, -9 if it was killed; of several, the first one that is not 0.
"""

import gc
import glob
import importlib
import json
import os
import signal
import socket
import sys
import time

import torch
from accelerate.state import AcceleratorState
from PIL import Image

from cogguided import FakeScorer
from cogguided._cli import app
from cogguided.scorers import register_scorer

torch.set_num_threads(1)


class Noted(FakeScorer):
    """The fake scorer, slow enough to be killed at work; the files it has scored are lines of $SCORED."""

    def __call__(self, images, prompts=None):
        scores = super().__call__(images, prompts)
        for image in images:
            time.sleep(0.001)
            if "SCORED" in os.environ:
                with open(os.environ["SCORED"], "a") as file:
                    file.write(f"{image}\n")
        return scores


register_scorer("noted", lambda: Noted("noted"))


def run(job, more):
    """Be the run."""
    shown = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(shown, 1)
    os.dup2(shown, 2)
    os.environ.update(job.get("env", {}), **more)
    AcceleratorState._reset_state(reset_partial_state=True)  # what was imported may have asked how many we are
    code = 1
    try:
        if "code" in job:
            exec(compile(job["code"], "<code>", "exec"), {"__name__": "__main__"})
            code = 0
        else:
            app.app(args=job["argv"], prog_name="cogguided")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def launched(count):
    """What `accelerate launch --cpu --num_processes COUNT` puts into the environment of each of its processes."""
    if count == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO",
    }  # fmt: skip
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def ended(children, after, until):
    """Wait for children, or kill them when it is time, or when one has failed; returns the exit code (see above)."""
    deadline = None if after is None else time.monotonic() + after
    left, codes = set(children), []
    while left:
        for child in list(left):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                left.discard(child)
                codes.append(os.waitstatus_to_exitcode(status))
        late = deadline is not None and time.monotonic() >= deadline
        if left and (late or any(codes) or (until is not None and glob.glob(until))):
            for child in left:
                os.kill(child, signal.SIGKILL)  # ours: nobody has waited for it yet
                codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            break
        time.sleep(0.002)
    return next((code for code in codes if code), 0)


def serve():
    """Fork the run of a line, one line at a time."""
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401

    import cogguided.guidance.finetuning
    import cogguided.pipelines
    import cogguided.scorers.benchmark  # noqa: F401

    Image.init()
    gc.freeze()
    gc.enable()

    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        for name in job.get("modules", ()):
            importlib.import_module(name)
        children = []
        for more in launched(job.get("processes", 1)):
            child = os.fork()
            if child == 0:
                run(job, more)
            children.append(child)
        print(ended(children, job["after"], job["until"]), flush=True)
    os._exit(0)


if __name__ == "__main__":
    serve()
