"""How long from `cogguided ui` to the first image? Offline, the embedded model, everything by the page's own requests.

Starts the command, waits until the page answers, presses Generate at once, as nobody could, and notes when the first
candidate is there. Processor time is the server's own, which what else the machine does moves less than the clock.

    python benchmarks/ui_start.py                     # 3 starts; the first reads what the later ones find in memory
    python benchmarks/ui_start.py --runs 1 --limit 10 # exit code 1 if the first image took longer
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PATIENCE = 600.0
"""Seconds that a start may take."""


def fetch(address: str, data: Any = None) -> Any:
    """Open an address, with JSON to send or without."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=PATIENCE)


def processor_seconds(pid: int) -> float:
    """Processor time of a process and its ended children, where /proc tells it; NaN elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def address_of(process: subprocess.Popen[str], log: Path) -> str:
    """Return where the page is, once it says so.

    Raises:
        RuntimeError: the command ended.
    """
    while process.poll() is None:
        told = log.read_text("utf-8").partition("cogguided ui: ")[2].split()
        if told:
            return told[0].rstrip("/")
        time.sleep(0.02)
    raise RuntimeError(log.read_text("utf-8"))


def press_generate(address: str) -> None:
    """Press Generate with a prompt and all else as it stands, and return when the first candidate is shown.

    Raises:
        RuntimeError: the work ended without one.
    """
    with fetch(f"{address}/config") as answer:
        config = json.load(answer)
    parts = {part["id"]: part["props"] for part in config["components"]}
    press = next(d for d in config["dependencies"] if d["api_name"] == "make")
    values = [parts[i].get("value") for i in press["inputs"]]
    place = next(n for n, i in enumerate(press["inputs"]) if parts[i].get("elem_id") == "gen-prompt")
    values[place] = "a face"
    sent = {"data": values, "fn_index": press["id"], "session_hash": "benchmark", "trigger_id": None}
    fetch(f"{address}/gradio_api/queue/join", sent).close()
    with fetch(f"{address}/gradio_api/queue/data?session_hash=benchmark") as stream:
        told = b""
        for told in stream:
            if b"cg-tile" in told:
                return
            if b"process_completed" in told or b"close_stream" in told:
                break
    raise RuntimeError(told.decode())


def start(folder: Path) -> dict[str, float]:
    """Start the page once; returns seconds by what happened, from the start of the process."""
    log = folder / "log.txt"
    command = [sys.executable, "-m", "cogguided", "ui", "--out", "out", "--device", "cpu"]
    begun = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, text=True)
    try:
        address = address_of(process, log)
        fetch(address).close()
        found = {"page": time.monotonic() - begun, "page, processor": processor_seconds(process.pid)}
        press_generate(address)
        found |= {"first image": time.monotonic() - begun, "first image, processor": processor_seconds(process.pid)}
        return found
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    """Start it a few times and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--limit", type=float, help="seconds to the first image: exit code 1 if all starts took longer")
    arguments = parser.parse_args()
    runs = []
    for run in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(start(Path(folder)))
        load = os.getloadavg()[0]
        print(f"start {run + 1}, load {load:.1f} on {os.cpu_count()} processors: ", end="")
        print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in runs[-1].items()), flush=True)
    for name in runs[0]:
        found = [run[name] for run in runs]
        print(f"{name}: {statistics.median(found):.1f} s [{min(found):.1f}, {max(found):.1f}]")
    if arguments.limit is not None and min(run["first image"] for run in runs) > arguments.limit:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
