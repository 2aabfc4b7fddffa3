"""How two workers of Ray do against one, and how the service does under load, on this machine.

    python benchmarks/ray_scaling.py                 # both, a few minutes on two cores
    python benchmarks/ray_scaling.py scaling --files 600
    python benchmarks/ray_scaling.py load --seconds 15

Scaling: files scored by the embedded judge, each worker on one core; runs alternate, so that what else the machine does
meets both. The rate is that of the last three quarters, after all models are loaded; beside it stands what the workers'
processor time says, in which other programs hardly count. Load: clients on loopback, each
sending one image after the other; every answer is compared with what the judge says here; who is refused comes again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import httpx2
import numpy as np
import psutil
import torch
from PIL import Image

from cogguided.integrations.ray import Workers, score_files_on_ray
from cogguided.integrations.ray.cluster import import_ray
from cogguided.integrations.serving import Limits, start_service
from cogguided.integrations.serving.tokens import digest
from cogguided.scorers import load_target

SCORER = "memorability"
TOKEN = "a token of the benchmark".replace(" ", "-")
CLIENTS = (1, 8, 64)


def pictures(folder: Path, count: int) -> list[Path]:
    """Write pictures of a few discs each, and return their files."""
    files = []
    y, x = np.mgrid[:64, :64]
    for i in range(count):
        draw = np.random.default_rng(i)
        pixels = np.full((64, 64, 3), draw.integers(0, 255, 3), dtype=np.uint8)
        for _ in range(4):
            centre, radius = draw.integers(0, 64, 2), draw.integers(5, 25)
            pixels[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = draw.integers(0, 255, 3)
        files.append(folder / f"{i:05}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def processor_seconds() -> float:
    """Of the workers, so far."""
    below = psutil.Process().children(recursive=True)
    mine = [process for process in below if "BlockActor" in " ".join(process.cmdline())]
    return sum(sum(process.cpu_times()[:2]) for process in mine)


def rate(files: list[Path], workers: int) -> tuple[float, float, float]:
    """Return files a second in the last three quarters, processor seconds of one of them, and the seconds of all."""
    started = time.monotonic()
    arrived, spent = [], [0.0, 0.0]
    first = len(files) // 4
    for _ in score_files_on_ray(files, SCORER, workers=Workers("auto", workers)):
        arrived.append(time.monotonic())
        if len(arrived) in (first, len(files)):
            spent[len(arrived) == len(files)] = processor_seconds()
    count = len(arrived) - first
    return count / (arrived[-1] - arrived[first - 1]), (spent[1] - spent[0]) / count, arrived[-1] - started


def scaling(files: list[Path], runs: int) -> None:
    found: dict[int, list[float]] = {1: [], 2: []}
    for run in range(runs):
        for workers in (1, 2):
            speed, own, whole = rate(files, workers)
            found[workers].append(speed)
            times = f"{1000 * own:.1f} ms of a processor each, {whole:.0f} s from start to end"
            print(f"run {run}: {workers} workers, {speed:.1f} files/s, {times}", flush=True)
    ratios = [two / one for one, two in zip(found[1], found[2], strict=True)]
    print(f"two against one: {statistics.median(ratios):.2f} (of runs: {', '.join(f'{r:.2f}' for r in ratios)})")


async def client(url: str, bodies: list[bytes], expected: list[float], until: float, seen: list, number: int) -> None:
    """Send images until the time is over; note what came of each: seconds, status, whether the value was right."""
    place = number
    async with httpx2.AsyncClient(timeout=120, trust_env=False) as session:
        while time.monotonic() < until and len(seen) < 5000:
            place = (place + 7) % len(bodies)
            started = time.monotonic()
            headers = {"Authorization": f"Bearer {TOKEN}"}
            reply = await session.post(url + "/score", files={"image": bodies[place]}, headers=headers)
            right = None
            if reply.status_code == 200:
                value = reply.json()["scores"][0][SCORER]["value"]
                right = value is not None and abs(value - expected[place]) < 1e-4
            seen.append((time.monotonic() - started, reply.status_code, right))
            if reply.status_code == 503:
                await asyncio.sleep(float(reply.headers["retry-after"]))


async def crowd(url: str, clients: int, bodies: list[bytes], expected: list[float], seconds: float) -> list:
    seen: list[tuple[float, int, bool | None]] = []
    until = time.monotonic() + seconds
    await asyncio.gather(*(client(url, bodies, expected, until, seen, i) for i in range(clients)))
    return seen


def load(files: list[Path], seconds: float, queue: int) -> None:
    judge = load_target(SCORER)
    expected = judge(files).terms[SCORER].values.tolist()
    bodies = [file.read_bytes() for file in files]
    for batch in (64, 1):
        limits = Limits(queue=queue, batch=batch)
        service = start_service(partial(load_target, SCORER), digest(TOKEN), port=0, limits=limits)
        try:
            asyncio.run(crowd(service.url, 1, bodies, expected, 3))  # warm
            for clients in CLIENTS:
                started = time.monotonic()
                seen = asyncio.run(crowd(service.url, clients, bodies, expected, seconds))
                taken = time.monotonic() - started
                good = sorted(s for s, status, _ in seen if status == 200)
                refused = sum(status == 503 for _, status, _ in seen)
                other = len(seen) - len(good) - refused
                wrong = sum(right is False for _, _, right in seen)
                print(
                    f"batching {'on ' if batch > 1 else 'off'}, {clients:2} clients: {len(good) / taken:6.1f} images/s, "
                    f"median {1000 * statistics.median(good):.0f} ms, 95 % {1000 * good[int(0.95 * len(good))]:.0f} ms, "
                    f"{refused} refused, {other} other errors, {wrong} wrong of {len(good)}",
                    flush=True,
                )
        finally:
            service.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("both", "scaling", "load"), default="both")
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--queue", type=int, default=48)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}")
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray = import_ray()
    ray.init(num_cpus=2, object_store_memory=200 * 2**20, include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = pictures(Path(folder), given.files)
            if given.what in ("both", "scaling"):
                scaling(files, given.runs)
            if given.what in ("both", "load"):
                load(files[:64], given.seconds, given.queue)
    finally:
        ray.shutdown()
    print(f"load average at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
