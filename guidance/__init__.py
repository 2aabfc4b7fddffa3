"""Guidance: how to get more of what a target wants out of a generator."""

from .base import Budget, Candidate, Guidance, Job, Noise, Request, Sampler
from .best_of_n import BestOfN
from .choosing import choose
from .joint import JointSearch
from .registry import as_guidance, guidance_from_dict, guidance_to_dict
from .rewriting import RewritePrompt
from .run import Run
from .search import Drafts, FKSteering, Halving, NoiseSearch, RewardGradient

__all__ = [
    "BestOfN",
    "Budget",
    "Candidate",
    "Drafts",
    "FKSteering",
    "Guidance",
    "Halving",
    "Job",
    "JointSearch",
    "Noise",
    "NoiseSearch",
    "Request",
    "RewardGradient",
    "RewritePrompt",
    "Run",
    "Sampler",
    "as_guidance",
    "choose",
    "guidance_from_dict",
    "guidance_to_dict",
]
