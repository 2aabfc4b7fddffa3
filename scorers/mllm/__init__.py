"""Any multimodal LLM as a judge: how it is loaded, asked, read out, and differentiated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scorer import MLLMScorer

__all__ = ["MLLMScorer"]


def __getattr__(name: str) -> Any:
    """Load the scorer, and transformers with it, when it is first asked for: parsing needs neither."""
    if name != "MLLMScorer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .scorer import MLLMScorer

    return MLLMScorer
