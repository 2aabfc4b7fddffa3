"""Every text-to-image pipeline of diffusers that can be built without a network, at tiny size."""

from . import known, stable_diffusion, stages  # noqa: F401 - each registers its classes
from .abilities import ABILITIES, YES, measure
from .registry import FAMILIES, Family, build

__all__ = ["ABILITIES", "FAMILIES", "YES", "Family", "build", "measure"]
