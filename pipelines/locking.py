"""One call at a time on the components that pipelines share."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from diffusers import DiffusionPipeline

T = TypeVar("T")
_LOCKS: WeakKeyDictionary[torch.nn.Module, threading.RLock] = WeakKeyDictionary()
_GUARD = threading.Lock()


def lock_of(pipe: DiffusionPipeline) -> Any:
    """Return the lock of a pipeline, the same for all that share its first module, such as views of one base.

    A call puts hooks on the pipeline, its scheduler and its denoiser; a second one at the same time would meet them.
    """
    module = next((m for m in pipe.components.values() if isinstance(m, torch.nn.Module)), None)
    if module is None:
        return threading.RLock()
    with _GUARD:
        return _LOCKS.setdefault(module, threading.RLock())


def one_at_a_time(call: Callable[..., T]) -> Callable[..., T]:
    """Let calls from several threads queue; a call from within a call goes on."""

    @functools.wraps(call)
    def locked(self: Any, *args: Any, **kwargs: Any) -> T:
        with lock_of(self):
            return call(self, *args, **kwargs)

    return locked
