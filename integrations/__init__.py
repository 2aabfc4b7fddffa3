"""Adapters to the tools that people already work in; each imports its host when it is first asked for.

>>> from cogguided import integrations
>>> "as_reward" in dir(integrations)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "CardFacts": "hub",
    "CogGuidedBlock": "modular",
    "CogScore": "metrics",
    "RerankBlock": "modular",
    "Reward": "rewards",
    "ScoreCallback": "callback",
    "TRLReward": "rewards",
    "as_reward": "rewards",
    "as_trl_reward": "rewards",
    "cog_score": "metrics",
    "push_to_hub": "hub",
    "save_for_hub": "hub",
    "score_dataset": "datasets",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load an adapter, and with it its host, when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
