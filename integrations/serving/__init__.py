"""Judges, and guided generation, as a service over HTTP, on Ray Serve. See `docs/ray.md`.

What a service is made of is imported when it is first used; without the extra there is one clear error.

>>> from cogguided.integrations.serving import Limits
>>> Limits().images
64
"""

from .deployments import Service, start_service
from .limits import Limits

__all__ = ["Limits", "Service", "start_service"]
