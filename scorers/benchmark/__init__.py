"""CogIP-Bench: how far a scorer's sense of images is from people's."""

from __future__ import annotations

from ..ratings.reading import Rating, pick_stratified, read_ratings
from .metrics import METRICS, Estimate, Judged, compare, evaluate, judged
from .references import COGIP_TRAIN, REFERENCES, TrainFigures, reference, train_figures
from .report import write_report
from .results import build_results, compare_runs
from .run import score_items

__all__ = [
    "COGIP_TRAIN",
    "METRICS",
    "REFERENCES",
    "Estimate",
    "Judged",
    "Rating",
    "TrainFigures",
    "build_results",
    "compare",
    "compare_runs",
    "evaluate",
    "judged",
    "pick_stratified",
    "read_ratings",
    "reference",
    "score_items",
    "train_figures",
    "write_report",
]
