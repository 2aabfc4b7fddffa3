"""Model types of transformers' image-text-to-text mapping that can be built without a network, at tiny size."""

from .shrinking import NAMES, build
from .table import NO_QUESTION, REFUSED, UNBUILT
from .trying import YES, measure

__all__ = ["NAMES", "NO_QUESTION", "REFUSED", "UNBUILT", "YES", "build", "measure"]
