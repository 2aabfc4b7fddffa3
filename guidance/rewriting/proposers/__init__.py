"""Proposers: who words a prompt anew. A bank of phrases, a chat model, an endpoint, an expanding model."""

from .base import Proposer, Trial, clean_prompt, describe_target, keeps, kept_words
from .chat import ChatProposer
from .endpoint import EndpointProposer
from .expanding import ExpandingProposer
from .phrase_bank import PhraseBank

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
