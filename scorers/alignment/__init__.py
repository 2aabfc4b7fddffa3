"""Alignment: train a multimodal LLM on human ratings until it sees as people feel."""

from __future__ import annotations

from .config import AlignmentConfig, recipe
from .running import AlignmentResult, align
from .saving import merge

__all__ = ["AlignmentConfig", "AlignmentResult", "align", "merge", "recipe"]
