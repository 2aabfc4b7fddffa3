"""Text-to-image pipelines of diffusers that can be built without a network, at tiny size."""

from . import flux, known, language, pixels, stable_diffusion, stages, transformers  # noqa: F401 - each registers its classes
from .abilities import ABILITIES, ONE, YES, measure
from .registry import FAMILIES, Family, build

__all__ = ["ABILITIES", "FAMILIES", "ONE", "YES", "Family", "build", "measure"]
