"""Scoring more files than fit a call: found one by one, scored in chunks, written as it goes, resumable."""

from .finding import IMAGES, find_images, listed
from .scoring import score_files, table_settings
from .table import FileScore, ScoreTable

__all__ = ["IMAGES", "FileScore", "ScoreTable", "find_images", "listed", "score_files", "table_settings"]
