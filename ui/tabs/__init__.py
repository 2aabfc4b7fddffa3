"""The tabs as Gradio lays them out; what they do is in the modules of the same names above."""

from . import compare, generate, runs, score

TABS = {"Generate": generate.build, "Compare": compare.build, "Score": score.build, "Runs": runs.build}
"""By name, in the page's order."""
