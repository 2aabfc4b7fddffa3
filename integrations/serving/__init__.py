"""Judges, and guided generation, as a service over HTTP, on Ray Serve. See `docs/ray.md`.

What a service is made of is imported when it is first used; without the extra there is one clear error.

>>> from cogguided.integrations.serving import Limits
>>> Limits().images
64
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .limits import Limits

if TYPE_CHECKING:
    from .deployments import Service, start_service

__all__ = ["Limits", "Service", "start_service"]


def __getattr__(name: str) -> Any:
    """Load what is heavy when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".deployments", __name__), name)
