"""Proposers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from itertools import zip_longest
from typing import TYPE_CHECKING

from ...._errors import InputError
from .base import Proposer, Trial
from .endpoint import EndpointProposer
from .phrase_bank import PhraseBank

if TYPE_CHECKING:
    from ...run import Run

PHRASES, SCORER, EXPAND = "phrases", "scorer", "expand"
ENTRY_POINT_GROUP = "cogguided.proposers"
"""Under which other packages bring proposers: what makes one, called without arguments."""


class Several:
    """Proposers that propose in turn, each told what all found.

    >>> both = Several([PhraseBank("embedded"), PhraseBank("general")])
    >>> len(set(both.propose("a face", {"emotional_valence": 1.0}, [], n=4, seed=0)))
    4
    """

    def __init__(self, proposers: Sequence[Proposer]) -> None:
        self.proposers = list(proposers)
        self.name = "+".join(proposer.name for proposer in self.proposers)

    def propose(
        self, prompt: str, target: Mapping[str, float], history: Sequence[Trial], n: int, seed: int
    ) -> list[str]:
        """Return up to n wordings, one of each proposer in turn."""
        columns: list[list[str]] = []
        for proposer in self.proposers:
            known = [*history, *(Trial(text) for column in columns for text in column)]
            columns.append(proposer.propose(prompt, target, known, n, seed))
        rows = zip_longest(*columns)
        return [text for row in rows for text in row if text is not None][:n]


def load_proposer(spec: str | Proposer, run: Run) -> Proposer:
    """Return a proposer of a name, or the one given.

    Args:
        spec: "phrases": the phrase bank that suits the generator; "scorer": the model of the target's MLLM scorer,
            one set of weights for both; "http://host:8000#model": an OpenAI-compatible endpoint; "expand": what the
            embedded generator's own language model makes of a prompt; the name of an installed plug-in; else a
            folder or hub name of a chat model.
            Several, joined by "+", propose in turn.
        run: whose generator and target it is for.

    Raises:
        InputError: "scorer", and no term of the target is scored by an MLLM; or an address without a model.
        ModelError: no such model.
    """
    if not isinstance(spec, str):
        if not isinstance(spec, Proposer):
            raise InputError(f"proposer: expected a name or an object with `name` and `propose`, got {spec!r}")
        return spec
    if "+" in spec and not spec.startswith(("http://", "https://")):
        return Several([load_proposer(part.strip(), run) for part in spec.split("+")])
    if spec == PHRASES:
        return PhraseBank(run.bank)
    if spec == SCORER:
        from ....scorers.mllm.scorer import MLLMScorer
        from .chat import ChatProposer

        scorers = [term.scorer for term in run.target.terms] if run.target else []
        found = next((scorer for scorer in scorers if isinstance(scorer, MLLMScorer)), None)
        if found is None:
            raise InputError(
                "proposer 'scorer': none of the target's terms is scored by an MLLM; give the name of a chat model"
            )
        return ChatProposer.from_scorer(found)
    if spec.startswith(("http://", "https://")):
        url, _, model = spec.partition("#")
        if not model:
            raise InputError(f"proposer {spec!r}: expected address#model, e.g. http://localhost:8000#Qwen/Qwen3-4B")
        return EndpointProposer(url, model)
    if spec == EXPAND:
        if run.expander is None:
            raise InputError(
                "proposer 'expand': this generator has no model that was taught to expand prompts, as the "
                "embedded one has; use 'phrases', 'scorer' or the name of a chat model"
            )
        return run.expander()
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == spec:
            return load_proposer(point.load()(), run)
    from .chat import ChatProposer

    return ChatProposer.from_pretrained(spec)
