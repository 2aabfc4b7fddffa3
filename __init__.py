"""Steer any diffusers text-to-image pipeline by what its images make people feel.

>>> import cogguided
>>> cogguided.FakeScorer().name
'fake'

Importing this costs milliseconds and touches no network: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from ._errors import CogGuidedError
    from .guidance import (
        BestOfN,
        Budget,
        Candidate,
        Drafts,
        FKSteering,
        Halving,
        JointSearch,
        NoiseSearch,
        RewardGradient,
        RewritePrompt,
        Tournament,
        Variations,
        Watch,
    )
    from .guidance.finetuning import FinetuneConfig
    from .guidance.text_encoder import swap_text_encoder
    from .pipelines import CogGuidedPipeline, finetune, replay, run_study, stream
    from .scorers import (
        FakeScorer,
        Scorer,
        Scores,
        Target,
        list_scorers,
        load_scorer,
        register_scorer,
        score_files,
    )

_HOME = {
    "BestOfN": "guidance",
    "Budget": "guidance",
    "Candidate": "guidance",
    "CogGuidedError": "_errors",
    "CogGuidedPipeline": "pipelines",
    "Drafts": "guidance",
    "FKSteering": "guidance",
    "FakeScorer": "scorers",
    "FinetuneConfig": "guidance.finetuning",
    "Halving": "guidance",
    "JointSearch": "guidance",
    "NoiseSearch": "guidance",
    "RewardGradient": "guidance",
    "RewritePrompt": "guidance",
    "Scorer": "scorers",
    "Scores": "scorers",
    "Target": "scorers",
    "Tournament": "guidance",
    "Variations": "guidance",
    "Watch": "guidance",
    "finetune": "pipelines",
    "list_scorers": "scorers",
    "load_scorer": "scorers",
    "register_scorer": "scorers",
    "replay": "pipelines",
    "run_study": "pipelines",
    "score_files": "scorers",
    "stream": "pipelines",
    "swap_text_encoder": "guidance.text_encoder",
}

__all__ = [
    "BestOfN",
    "Budget",
    "Candidate",
    "CogGuidedError",
    "CogGuidedPipeline",
    "Drafts",
    "FKSteering",
    "FakeScorer",
    "FinetuneConfig",
    "Halving",
    "JointSearch",
    "NoiseSearch",
    "RewardGradient",
    "RewritePrompt",
    "Scorer",
    "Scores",
    "Target",
    "Tournament",
    "Variations",
    "Watch",
    "finetune",
    "list_scorers",
    "load_scorer",
    "register_scorer",
    "replay",
    "run_study",
    "score_files",
    "stream",
    "swap_text_encoder",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
