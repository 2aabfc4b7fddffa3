"""Proposers: who words a prompt anew. A bank of phrases, a chat model, an endpoint, an expanding model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Proposer, Trial, clean_prompt, describe_target, keeps, kept_words
from .endpoint import EndpointProposer
from .phrase_bank import PhraseBank

if TYPE_CHECKING:
    from .chat import ChatProposer
    from .expanding import ExpandingProposer

_HOME = {"ChatProposer": "chat", "ExpandingProposer": "expanding"}  # these import transformers' models: seconds

__all__ = [
    "ChatProposer",
    "EndpointProposer",
    "ExpandingProposer",
    "PhraseBank",
    "Proposer",
    "Trial",
    "clean_prompt",
    "describe_target",
    "keeps",
    "kept_words",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
