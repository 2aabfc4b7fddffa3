"""Scorers: what is this image worth to a person?"""

from __future__ import annotations

from .base import DimensionScorer, ImageInput, Scorer, Scores
from .bulk import FileScore, ScoreTable, find_images, score_files
from .dimensions import DIMENSIONS, Dimension, dimension
from .judges import ScorerInfo
from .models.fake import FakeScorer
from .registry import list_scorers, load_scorer, register_scorer, unregister_scorer
from .target import Ensemble, Target, TargetScores, TargetSpec, Term, load_target, parse_weights

__all__ = [
    "DIMENSIONS",
    "Dimension",
    "DimensionScorer",
    "Ensemble",
    "FakeScorer",
    "FileScore",
    "ImageInput",
    "ScoreTable",
    "Scorer",
    "ScorerInfo",
    "Scores",
    "Target",
    "TargetScores",
    "TargetSpec",
    "Term",
    "dimension",
    "find_images",
    "list_scorers",
    "load_scorer",
    "load_target",
    "parse_weights",
    "register_scorer",
    "score_files",
    "unregister_scorer",
]
