"""Publishing on the Hugging Face Hub: model cards with valid metadata, and judges with their agreement."""

from __future__ import annotations

from .cards import CardFacts
from .judges import stage_judge
from .uploading import full_name, upload

__all__ = ["CardFacts", "full_name", "stage_judge", "upload"]
