"""What is done when nothing else is said: the command line's help reads it here, without loading torch."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = Path(__file__).resolve().parent / "pipelines" / "embedded" / "weights"
"""Folder of the model that ships with the package."""

AUTO = "auto"
SEARCHES = (AUTO, "best_of_n", "joint", "drafts", "halving", "fk", "noise", "gradient", "variations", "tournament")
"""Names that come with the package, as `registry.GUIDANCE` has them."""
DEFAULT_N = {"joint": 12}
OTHERWISE_N = 16
"""Candidates per prompt."""
DRAFT_STEPS = 4
"""Denoising steps of a draft."""
FEW_STEPS, FEW_STEPS_N, FEW_STEPS_REWRITES = 5, 19, 6
"""Where a model draws as well in a few steps: how many, of how many candidates, of how many other wordings."""

MIN_MASS = 0.1
"""Below this probability of valid answers an expected score is not valid."""
MAX_NEW_TOKENS = 100
"""Longest greedy answer, as in the official code; a well-formed one ends after about ten tokens."""
