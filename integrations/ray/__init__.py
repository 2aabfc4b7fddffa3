"""Work on several processes or machines, by Ray: scoring and generating in bulk. See `docs/ray.md`.

Ray is imported when something here is first used; without it there is one clear error.

>>> from cogguided.integrations.ray import Workers
>>> Workers(count=4, gpus=1)
Workers(address='local', count=4, gpus=1)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .cluster import Workers

if TYPE_CHECKING:
    from .generating import RayStream, stream_on_ray
    from .scoring import ScoreStream, score_files_on_ray

_HOME = {
    "RayStream": "generating",
    "ScoreStream": "scoring",
    "score_files_on_ray": "scoring",
    "stream_on_ray": "generating",
}
__all__ = ["RayStream", "ScoreStream", "Workers", "score_files_on_ray", "stream_on_ray"]


def __getattr__(name: str) -> Any:
    """Load what is heavy when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
