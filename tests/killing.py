"""A process that has imported what the commands need, and forks one command for each line of its input.

So a test can start and kill many runs without paying for the imports each time. A line is JSON: `argv` of cogguided,
`log` for what it prints, `after` how many seconds to kill it, or null. The answer is its exit code, -9 if killed.
"""

import json
import os
import signal
import sys
import time

import torch
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


def run(job):
    """Be the command."""
    shown = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(shown, 1)
    os.dup2(shown, 2)
    os.environ.update(job.get("env", {}))
    code = 1
    try:
        app.app(args=job["argv"], prog_name="cogguided")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ended(child, after):
    """Wait for a child, or kill it after some seconds; returns its exit code, -9 where it was killed."""
    deadline = None if after is None else time.monotonic() + after
    while deadline is not None:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)  # it is ours: nobody has waited for it yet
            break
        time.sleep(min(0.002, max(0.0, deadline - time.monotonic())))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve():
    """Fork a command a line, one at a time."""
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401

    import cogguided.guidance.finetuning
    import cogguided.pipelines
    import cogguided.scorers.benchmark  # noqa: F401

    Image.init()

    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        print(ended(child, json.loads(line)["after"]), flush=True)
    os._exit(0)


if __name__ == "__main__":
    serve()
