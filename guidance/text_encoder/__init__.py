"""An aligned model in the place of a pipeline's own text encoder."""

from .swap import ACTIVE, Swap, check_strength, swap_text_encoder

__all__ = ["ACTIVE", "Swap", "check_strength", "swap_text_encoder"]
