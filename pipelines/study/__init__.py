"""Two text encoders compared, by scorers and by people."""

from .study import StudyResult, Tally, read_rows, run_study, tally

__all__ = ["StudyResult", "Tally", "read_rows", "run_study", "tally"]
