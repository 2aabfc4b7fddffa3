"""Scoring more files than fit a call: found one by one, scored in chunks, written as it goes, resumable."""

from .finding import PassedOver, find_images, listed, picture_endings
from .scoring import score_files, table_settings
from .table import FileScore, ScoreTable

__all__ = [
    "FileScore",
    "PassedOver",
    "ScoreTable",
    "find_images",
    "listed",
    "picture_endings",
    "score_files",
    "table_settings",
]
