"""Search over noise: more of what a target wants for fewer evaluations than best-of-N."""

from .drafts import Drafts
from .fk import FKSteering
from .gradient import RewardGradient
from .halving import Halving
from .noise import NoiseSearch
from .variations import Variations

__all__ = ["Drafts", "FKSteering", "Halving", "NoiseSearch", "RewardGradient", "Variations"]
