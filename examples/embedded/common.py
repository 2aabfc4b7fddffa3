"""What every training script here shares: a loop limited in minutes that survives a kill, an average of the
weights.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

# Moments of rarely used embedding rows sink into denormals, which CPUs multiply a hundred times slower.
# Threads take
# this setting from the one that starts them, so it comes before any work.
torch.set_flush_denormal(True)

CACHE = Path(os.environ.get("COGGUIDED_EMBEDDED", Path.home() / ".cache" / "cogguided" / "embedded"))
WEIGHTS = Path(__file__).resolve().parents[2] / "pipelines" / "embedded" / "weights"


def rate(progress: float, warmup: float = 0.01, decay: float = 0.4) -> float:
    """Learning-rate factor: a short rise, a plateau, and a cosine fall over the last part of the run."""
    if progress < warmup:
        return max(progress, 1e-4) / warmup
    if progress < 1 - decay:
        return 1.0
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min((progress - 1 + decay) / decay, 1)))


def train(
    name: str,
    model: nn.Module,
    loss: Callable[[int], Tensor],
    minutes: float,
    *,
    lr: float,
    weight_decay: float = 0.01,
    average: float = 0.998,
    decay: float = 0.4,
    every: int = 200,
    snapshot: Callable[[int], None] | None = None,
) -> nn.Module:
    """Minimise `loss(step)` for so many minutes of work; returns the model with its averaged (EMA) weights.

    The state is saved to CACHE/NAME.ckpt once a minute or so, and a run that was killed goes on from there.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    shadow = [p.detach().clone() for p in trained]
    path = CACHE / f"{name}.ckpt"
    step, spent, running = 0, 0.0, None
    if path.exists():
        state = torch.load(path, weights_only=True)
        step, spent = state["step"], state["spent"]
        for parameter, saved in zip(trained, state["model"], strict=True):
            parameter.data.copy_(saved)
        shadow = state["shadow"]
        optimizer.load_state_dict(state["optimizer"])
        print(f"{name}: going on from step {step}, {spent / 60:.1f} of {minutes} minutes", flush=True)
    saved_at = spent
    model.train()
    while spent < 60 * minutes:
        start = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = lr * rate(spent / (60 * minutes), decay=decay)
        value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(trained, 1.0)
        if not torch.isfinite(norm):
            raise RuntimeError(f"{name}: the gradient is not finite at step {step}; lower the learning rate")
        optimizer.step()
        step += 1
        torch._foreach_lerp_(shadow, [p.data for p in trained], 1 - min(average, step / (step + 10)))
        running = value.item() if running is None else 0.99 * running + 0.01 * value.item()
        spent += time.monotonic() - start
        if step % every == 0:
            print(f"{name}: step {step}  {spent / 60:.1f} min  loss {running:.4f}", flush=True)
            if snapshot is not None:
                snapshot(step)
        if spent - saved_at > 90 or spent >= 60 * minutes:
            saved_at = spent
            weights = [p.detach() for p in trained]
            state = {"step": step, "spent": spent, "model": weights, "shadow": shadow}
            torch.save({**state, "optimizer": optimizer.state_dict()}, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    for parameter, averaged in zip(trained, shadow, strict=True):
        parameter.data.copy_(averaged)
    return model.eval()
