"""A proposer that lets a language model expand a short prompt into what it stands for: "sad cat" → "crying cat".

The base MLLM of the embedded model was taught to: "sad cat" → "glossy crying cat: animal, face, sad, tear".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...._errors import InputError
from .base import Trial, clean_prompt, holds, new_wordings, plain
from .phrase_bank import STYLES
from .sampling import sample_texts

TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""The sentence that diffusers' QwenImagePipeline wraps every prompt in, and that the model was taught with."""
SMALL_WORDS = frozenset(["a", "an", "the", "of", "and", "with", "in", "on", "at", "to"])
"""They say nothing about what is meant."""


@dataclass(frozen=True)
class Expansion:
    """What a model wrote about a prompt: a style, a name, and keywords."""

    style: str
    name: str
    keywords: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Name and keywords, to look words up in."""
        return ", ".join((self.name, *self.keywords))


def parse_expansion(text: str) -> Expansion | None:
    """Read "style name: keyword, keyword"; None if there is no name of one to five words.

    >>> parse_expansion("glossy crying cat: animal, sad")
    Expansion(style='glossy', name='crying cat', keywords=('animal', 'sad'))
    >>> parse_expansion("flat heart with 143, emotion") is None
    True
    """
    head, _, tail = " ".join(text.split()).partition(":")
    style, _, name = head.partition(" ")
    if not re.fullmatch(r"[^\W\d_][\w'’-]*(?: [^\W\d_][\w'’-]*){0,4}", name):
        return None
    return Expansion(style, name, tuple(filter(None, (word.strip() for word in tail.split(",")))))


def is_about(prompt: str, expansion: Expansion) -> bool:
    """Whether every word of a prompt that means something is in an expansion's name or keywords.

    >>> is_about("a sad cat", Expansion("flat", "crying cat", ("sad",)))
    True
    >>> is_about("a sad cat", Expansion("flat", "upside-down face", ("sad",)))
    False
    """
    words = [word for word in re.findall(r"[\w'’-]+", plain(prompt)) if word not in SMALL_WORDS]
    return bool(words) and all(holds(expansion.text, word) for word in words)


class ExpandingProposer:
    """Sample expansions of the prompt, keep those that are about it, propose their names, oftenest first.

    The target is not looked at: the scores choose. Where the history has a scored wording, the best one in
    the styles that it does not name goes first. A prompt that names a style keeps it.

    Args:
        model: a language model that writes "style name: keywords" after the template; used as it is.
        tokenizer: its tokenizer.
        template: where the prompt goes, as "{}".
        styles: those that the generator draws in; a prompt names no other.
        samples: expansions to sample at once.
        temperature: above 0.
        top_p: share of the probability that is sampled from.
        tries: how often to sample at most, when too few are new.

    Executed examples are in ``tests/guidance/test_proposers.py``.
    """

    name: ClassVar[str] = "expanding"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: str = TEMPLATE,
        styles: Sequence[str] = STYLES,
        samples: int = 32,
        temperature: float = 0.7,
        top_p: float = 0.9,
        tries: int = 2,
    ) -> None:
        """Check the arguments.

        Raises:
            InputError: an argument out of range, or a template without one "{}".
        """
        if template.count("{}") != 1:
            raise InputError(f"ExpandingProposer: the template needs one '{{}}' for the prompt, got {template!r}")
        if not (samples > 0 and temperature > 0 and 0 < top_p <= 1 and tries > 0):
            raise InputError(
                "ExpandingProposer: expected samples > 0, temperature > 0, 0 < top_p <= 1 and tries > 0, got "
                f"{samples}, {temperature}, {top_p} and {tries}"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.styles = tuple(styles)
        self.samples = samples
        self.temperature = temperature
        self.top_p = top_p
        self.tries = tries

    def propose(
        self, prompt: str, target: Mapping[str, float], history: Sequence[Trial], n: int, seed: int
    ) -> list[str]:
        """Return up to n wordings; none where the model has nothing to say about the prompt."""
        asked, styles = self._split(clean_prompt(prompt))
        refined = list(self._refined(clean_prompt(prompt), history))
        found = new_wordings(refined, prompt, history, n)
        known: Counter[Expansion] = Counter()
        for attempt in range(self.tries):
            if len(found) >= n:
                break
            texts = self.expand(asked, (seed + 1_000_003 * attempt) % 2**31)
            known.update(e for e in map(parse_expansion, texts) if e is not None and is_about(asked, e))
            found += new_wordings(
                self._wordings(asked, styles, known), prompt, history, n - len(found), without=found
            )
        return found

    def expand(self, prompt: str, seed: int) -> list[str]:
        """Return what the model writes about a prompt, `samples` times; torch's random state is left as it was."""
        return sample_texts(
            self.model, self.tokenizer, self.template.replace("{}", prompt), seed, self.samples,
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=32,
        )  # fmt: skip

    def _split(self, prompt: str) -> tuple[str, tuple[str, ...]]:
        """Return the prompt without its styles, and those."""
        named = tuple(style for style in self.styles if holds(prompt, style))
        words = [word for word in prompt.split() if plain(word) not in named]
        return " ".join(words), named

    def _refined(self, prompt: str, history: Sequence[Trial]) -> Iterator[str]:
        """Yield the best wording so far in each style, if it and the prompt name none."""
        best = max((t for t in history if t.scored and t.kept), key=lambda t: t.score, default=None)
        if best is not None and not any(holds(t, style) for t in (prompt, best.prompt) for style in self.styles):
            bare = re.sub(r"(?i)^(an?|the) ", "", clean_prompt(best.prompt))
            yield from (f"{style} {bare}" for style in self.styles)

    def _wordings(self, asked: str, styles: Sequence[str], known: Counter[Expansion]) -> Iterator[str]:
        """Yield the names, oftenest first, in the prompt's styles; then in the styles that the model gave."""
        names: Counter[str] = Counter()
        for expansion, count in known.items():
            names[expansion.name] += count
        same = re.sub(r"(?i)^(an?|the) ", "", asked)
        order = [name for name, _ in names.most_common() if plain(name) != plain(same)]
        yield from (" ".join((*styles, name)) for name in order)
        if not styles:
            yield from (f"{e.style} {e.name}" for e, _ in known.most_common() if e.style in self.styles)
