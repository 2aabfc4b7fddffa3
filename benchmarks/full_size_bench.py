"""How `full_size.py` measures and tells: a row for each figure, at once on the disk; a part that fails is a row too."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

GIB = 2**30


@dataclass
class Bench:
    """Where things run, how long, and what came of it."""

    device: str
    tiny: bool
    quick: bool
    out: Path
    scratch: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    part: str = ""

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    def sync(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], Any], repeats: int = 3, warm: bool = True) -> dict[str, Any]:
        """Run some work; seconds of each run, peak GiB (None on a CPU), and what the last one gave."""
        if warm:
            work()
        seconds, result = [], None
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(1 if self.quick or self.tiny else repeats):
            self.sync()
            started = time.perf_counter()
            result = work()
            self.sync()
            seconds.append(time.perf_counter() - started)
        peak = torch.cuda.max_memory_allocated() / GIB if self.device == "cuda" else None
        return {"seconds": seconds, "peak_gib": peak, "result": result}

    def row(self, what: str, measured: dict[str, Any] | None = None, **facts: Any) -> None:
        """Tell of one figure and keep it."""
        found: dict[str, Any] = {"part": self.part, "what": what}
        if measured is not None:
            seconds = measured["seconds"]
            found |= {"seconds": statistics.median(seconds), "low": min(seconds), "high": max(seconds), "runs": len(seconds)}
            found["peak_gib"] = measured["peak_gib"]
        found |= facts
        self.rows.append(found)
        print("  " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items() if k != "part"), flush=True)
        self.write()

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        facts = {"machine": machine(self.device), "tiny": self.tiny, "quick": self.quick, "rows": self.rows}
        (self.out / "results.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        (self.out / "results.md").write_text(markdown(facts), encoding="utf-8")

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """What fails inside is a row of its own, and the part goes on."""
        try:
            yield
        except OutOfTime as error:
            if what != self.part:
                raise
            self.row("the rest", error=str(error))
        except Exception as error:
            traceback.print_exc()
            self.row(what, error=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
        free()


class OutOfTime(BaseException):
    """A part took longer than it may; no `except Exception` on the way holds it."""


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def machine(device: str) -> dict[str, str]:
    import diffusers
    import transformers

    found = {"python": platform.python_version(), "torch": torch.__version__, "diffusers": diffusers.__version__}
    found |= {"transformers": transformers.__version__, "device": device}
    if device == "cuda":
        found["card"] = torch.cuda.get_device_name()
        found["memory"] = f"{torch.cuda.get_device_properties(0).total_memory / GIB:.1f} GiB"
    if importlib.util.find_spec("bitsandbytes"):
        found["bitsandbytes"] = importlib.metadata.version("bitsandbytes")
    return found


def markdown(facts: dict[str, Any]) -> str:
    """One table a part."""
    lines = [", ".join(f"{name} {value}" for name, value in facts["machine"].items()), ""]
    if facts["tiny"]:
        lines += ["**Tiny shapes: these figures say that the script runs, and nothing else.**", ""]
    for part in dict.fromkeys(row["part"] for row in facts["rows"]):
        rows = [row for row in facts["rows"] if row["part"] == part]
        extra = list(dict.fromkeys(k for row in rows for k in row if k not in ("part", "what", "seconds", "low", "high", "runs", "peak_gib")))
        lines += [f"### {part}", "", "| " + " | ".join(["", "seconds", "peak GiB", *(e.replace("_", " ") for e in extra)]) + " |"]
        lines.append("|---" * (3 + len(extra)) + "|")
        for row in rows:
            seconds = f"{row['seconds']:.3g}" if "seconds" in row else ""
            if row.get("runs", 1) > 1:
                seconds += f" ({row['low']:.3g} to {row['high']:.3g})"
            peak = f"{row['peak_gib']:.1f}" if row.get("peak_gib") is not None else ""
            rest = [f"{row[e]:.3g}" if isinstance(row.get(e), float) else str(row.get(e, "")) for e in extra]
            lines.append("| " + " | ".join([row["what"], seconds, peak, *rest]) + " |")
        lines.append("")
    return "\n".join(lines)


def pictures(count: int, side: int, seed: int = 0) -> list[Image.Image]:
    """Smooth random pictures, all different."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side)) for _ in range(count)]
