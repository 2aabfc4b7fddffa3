"""Guidance: how to get more of what a target wants out of a generator."""

from .choosing import choose
from .registry import as_guidance, guidance_from_dict, guidance_to_dict
from .rewriting.rewrite_prompt import RewritePrompt
from .run import Run
from .search import Drafts, FKSteering, Halving, NoiseSearch, RewardGradient, Variations
from .search.best_of_n import BestOfN
from .search.joint import JointSearch
from .search.tournament import Tournament
from .types import Budget, Candidate, Guidance, Job, Noise, Request, Sampler
from .watching import Watch

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
    "Tournament",
    "Variations",
    "Watch",
    "as_guidance",
    "choose",
    "guidance_from_dict",
    "guidance_to_dict",
]
