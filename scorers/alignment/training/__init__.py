"""The training itself: what is minimised or rewarded, and the loops that do it."""
