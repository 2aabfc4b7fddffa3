"""What every proposer of rewrites works with: trials, words that must stay, and which wordings are new."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ...._errors import InputError

_QUOTED = r"""["“]([^"“”]+)["”]|(?<!\w)['‘]((?:[^'‘’]|(?<=\w)['’](?=\w))+)['’](?!\w)"""
_MARKED = r"\[([^\[\]]+)\]"


@dataclass(frozen=True)
class Trial:
    """What is known of one wording so far.

    Attributes:
        prompt: the wording.
        score: mean of the target over its images, higher is better; NaN if there is none yet.
        count: images that the mean is of.
        kept: False where its images strayed from what the user asked for.
    """

    prompt: str
    score: float = math.nan
    count: int = 0
    kept: bool = True

    @property
    def scored(self) -> bool:
        """Whether there is a score to learn from."""
        return self.count > 0 and math.isfinite(self.score)


@runtime_checkable
class Proposer(Protocol):
    """Anything that words a prompt anew: built in, or any object with a name and this method."""

    @property
    def name(self) -> str:
        """Its name in records."""
        ...

    def propose(
        self, prompt: str, target: Mapping[str, float], history: Sequence[Trial], n: int, seed: int
    ) -> list[str]:
        """Return up to n wordings that differ from the prompt, from the history and from each other.

        Args:
            prompt: as the user typed it; what is in quotes or [brackets] stays in every wording.
            target: signed weight of each term by name.
            history: what was tried before, in any order, the prompt itself too if it has a score.
            n: how many are wanted; fewer may come.
            seed: the same seed and history give the same wordings.
        """
        ...


def plain(text: str) -> str:
    """Return a wording as it is compared: one space between words, case folded.

    >>> plain("  A  Happy\\nface ")
    'a happy face'
    """
    return " ".join(text.split()).casefold()


def holds(text: str, words: str) -> bool:
    """Whether whole words occur in a text, side by side; case and spacing do not count.

    >>> holds("The glossy  Face", "glossy face"), holds("a party", "art")
    (True, False)
    """
    return re.search(rf"(?<!\w){re.escape(plain(words))}(?!\w)", plain(text)) is not None


def kept_words(prompt: str) -> list[str]:
    """Return what the user quoted or put in brackets, in order; apostrophes within words are no quotes.

    >>> kept_words("a dog's sign that says 'DON'T run', with a [red hat] and \\"one shoe\\"")
    ["DON'T run", 'red hat', 'one shoe']
    """
    found = (next(filter(None, m.groups())).strip() for m in re.finditer(f"{_QUOTED}|{_MARKED}", prompt))
    return list(dict.fromkeys(word for word in found if word))


def clean_prompt(prompt: str) -> str:
    """Return the prompt as it is drawn: the brackets that mark words are gone, quotes stay.

    >>> clean_prompt("a [red hat] on a sign that says 'STOP'")
    "a red hat on a sign that says 'STOP'"
    """
    return re.sub(_MARKED, r"\1", prompt)


def keeps(prompt: str, rewrite: str) -> bool:
    """Whether a rewrite still holds every word that the user quoted or marked, in any case.

    >>> keeps("a [red hat]", "a huge red hat"), keeps("a [red hat]", "a hat, red")
    (True, False)
    """
    return all(holds(rewrite, word) for word in kept_words(prompt))


def new_wordings(
    wordings: Iterable[str], prompt: str, history: Sequence[Trial], n: int, without: Iterable[str] = ()
) -> list[str]:
    """Return the first n wordings that are new, differ from each other, and keep what must stay.

    >>> new_wordings(["A  face", "a happy face", "a Happy face", "sad"], "a [face]", [Trial("a sad face")], 4)
    ['a happy face']
    """
    seen = {plain(text) for text in (clean_prompt(prompt), *(trial.prompt for trial in history), *without)}
    found: list[str] = []
    for wording in (" ".join(text.split()) for text in wordings):
        if len(found) >= n:
            break
        if wording and plain(wording) not in seen and keeps(prompt, wording):
            seen.add(plain(wording))
            found.append(wording)
    return found


_MORE_AND_LESS: Mapping[str, tuple[str, str]] = {
    "aesthetics": ("more beautiful", "uglier"),
    "funniness": ("funnier", "more serious"),
    "emotional_valence": ("happier", "sadder"),
    "memorability": ("more memorable", "less memorable"),
    "clip": ("closer to what was asked for", "less literal"),
}


def describe_target(weights: Mapping[str, float]) -> str:
    """Say in words what a target wants, the heaviest term first; a term of weight 0 is not mentioned.

    Raises:
        InputError: no term has a weight.

    >>> describe_target({"emotional_valence": -0.5, "memorability": 1.0})
    'more memorable and sadder'
    >>> describe_target({"aesthetics": 1, "funniness": 1, "warmth": -1})
    'more beautiful, funnier and lower in warmth'
    """
    terms = sorted(((name, w) for name, w in weights.items() if w), key=lambda term: -abs(term[1]))
    if not terms:
        raise InputError(f"target: expected a term with a weight other than 0, got {dict(weights)}")
    words = [
        _MORE_AND_LESS.get(name, (f"higher in {name}", f"lower in {name}"))[weight < 0] for name, weight in terms
    ]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
