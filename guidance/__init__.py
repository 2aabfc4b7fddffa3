"""Guidance: how to get more of what a target wants out of a generator."""

from .base import Budget, Candidate, Guidance, Job, Noise, Request, Sampler
from .best_of_n import BestOfN
from .registry import as_guidance, guidance_from_dict, guidance_to_dict
from .run import Run, choose

__all__ = [
    "BestOfN",
    "Budget",
    "Candidate",
    "Guidance",
    "Job",
    "Noise",
    "Request",
    "Run",
    "Sampler",
    "as_guidance",
    "choose",
    "guidance_from_dict",
    "guidance_to_dict",
]
