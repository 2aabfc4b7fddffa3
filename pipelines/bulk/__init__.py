"""Many prompts: made in groups, each written as soon as it is done, and freed."""

from .folder import KEEP, RunFolder
from .streaming import GROUP, Stream, stream

__all__ = ["GROUP", "KEEP", "RunFolder", "Stream", "stream"]
