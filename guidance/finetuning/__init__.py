"""Fine-tuning a generator by reward: the losses, the loop they share, and the panel that watches it."""

from .base import Learner
from .config import METHODS, FinetuneConfig, recipe
from .objectives.losses import denoising_error, dpo_loss, nft_loss, weighted_loss
from .panel import Alarm, Evaluation

__all__ = [
    "METHODS",
    "Alarm",
    "Evaluation",
    "FinetuneConfig",
    "Learner",
    "denoising_error",
    "dpo_loss",
    "nft_loss",
    "recipe",
    "weighted_loss",
]
