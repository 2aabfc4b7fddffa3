"""CogIP-Bench: how far a scorer's sense of images is from people's."""

from __future__ import annotations

from .data import Rating, pick_stratified, read_ratings

__all__ = ["Rating", "pick_stratified", "read_ratings"]
