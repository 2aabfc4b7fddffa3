"""A proposer that needs no model: a bandit over modifiers, which learns which of them work."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...._errors import InputError, unknown_name
from .base import Trial, clean_prompt, holds, keeps, plain

Bank = Mapping[str, tuple[str, str]]
"""By dimension: modifiers for more and for less of it, parted by "|"."""

GENERAL: Bank = {
    "aesthetics": (
        "bathed in warm light|in soft golden hour light|elegant composition|rich harmonious colors|"
        "with a softly blurred background|delicate detail|bathed in morning mist|in luminous pastel tones|"
        "graceful flowing lines|with gentle light and shadow|as a fine art photograph|lush and radiant",
        "under harsh flat light|cluttered and messy|in muddy colors|badly cropped|dull and faded|"
        "in a dirty back alley|grainy and out of focus|with clashing colors|stained and crumpled|"
        "lit by a cold fluorescent tube",
    ),
    "funniness": (
        "with a goofy grin|wearing a tiny party hat|caught in an absurd situation|with googly eyes|"
        "making a silly face|slipping on a banana peel|looking comically surprised|wearing oversized glasses|"
        "as a playful cartoon|in a ridiculous costume|photobombed by a curious duck|with a fake mustache",
        "in a solemn mood|formal and dignified|stern and serious|as a sober documentary photograph|"
        "plain and matter-of-fact|in quiet contemplation|austere and still|as a scientific illustration",
    ),
    "emotional_valence": (
        "full of joy|smiling warmly|on a bright sunny day|surrounded by flowers|in cheerful colors|"
        "peaceful and content|celebrating with confetti|under a clear blue sky|cozy and inviting|"
        "playful and carefree|filled with love|with a gentle rainbow",
        "full of sorrow|with tears in the eyes|alone in the rain|in gloomy colors|abandoned and forlorn|"
        "under a stormy sky|frightened in the dark|weary and hopeless|in a bleak gray landscape|"
        "among withered flowers|broken and lost|cold and lonely",
    ),
    "memorability": (
        "in striking close-up|looking straight at the viewer|with one vivid red accent|"
        "against a plain bright background|in an unexpected place|bold and graphic|at an enormous scale|"
        "with strong contrast|a single strange detail|in surreal colors|lit by one dramatic spotlight|"
        "larger than life",
        "seen from far away|in an ordinary setting|blending into the background|in muted gray tones|"
        "half hidden in haze|among many others like it|small in a wide landscape|plain and generic",
    ),
    "clip": ("", ""),
}  # fmt: skip

EMBEDDED: Bank = {
    "aesthetics": ("love|party|cool|hot|cheerful|laughing", "cold|calm|tired|sad|bored"),
    "funniness": ("funny|silly|joking|laughing|laugh|wink|party|grin", "calm|bored|tired|sleepy|nervous|sad"),
    "emotional_valence": (
        "happy|smiling|love|cool|laughing|cheerful|party|romance|excited|kiss",
        "sad|crying|angry|mad|scared|sick|disappointed|upset|worried|tears",
    ),
    "memorability": ("shocked|evil|party|hot|cold|crying|surprised|sick", "happy|smile|calm|smiling|sad"),
    "clip": ("", ""),
}
"""Moods of the embedded model's world, as its captions put them before `MOODY`."""
MOODY = ("face", "cat", "smiley", "emoji")
"""What has a mood in the embedded model's world."""
STYLES = ("glossy", "flat")
"""Styles of the embedded generator."""

BANKS: Mapping[str, Bank] = {"general": GENERAL, "embedded": EMBEDDED}
NEVER = ("clip",)  # dimensions that no phrase can help
NOISE = 2.0  # spread of one image's score, over that of the wordings' means


@dataclass(frozen=True)
class PhraseBank:
    """Put modifiers to a prompt; a Thompson-sampling bandit chooses them.

    A wording's score is taken as the prompt's own plus the effect of each modifier that it holds; an effect
    is drawn from its posterior given the history, and the modifier with the highest draw is used, or, every
    second time, the best of those that proved good, with another one (linear Thompson sampling, Agrawal and
    Goyal 2013, arXiv:1209.3352).

    A term of the target that no phrases were written for, such as a scorer of your own, is tried with all of
    them; "clip" has none, since it asks for the user's own words.

    Args:
        bank: "general", short phrases behind the prompt, or "embedded", moods and styles before its noun.
        most: modifiers in one wording at most.

    >>> bank = PhraseBank("embedded")
    >>> bank.propose("a face", {"emotional_valence": 1.0}, [], n=3, seed=0)
    ['a party face', 'a kiss face', 'a happy face']
    >>> history = [Trial("a face", 0.4, 4), Trial("a happy face", 0.9, 4), Trial("a love face", 0.3, 4)]
    >>> bank.propose("a face", {"emotional_valence": 1.0}, history, n=2, seed=0)
    ['a flat happy face', 'a kiss face']
    """

    bank: str = "general"
    most: int = 2
    name: ClassVar[str] = "phrase_bank"

    def __post_init__(self) -> None:
        if self.bank not in BANKS:
            raise unknown_name("phrase bank", self.bank, BANKS)
        if self.most < 1:
            raise InputError(f"PhraseBank: most must be at least 1, got {self.most}")

    def propose(
        self, prompt: str, target: Mapping[str, float], history: Sequence[Trial], n: int, seed: int
    ) -> list[str]:
        """Return up to n wordings; none where the bank has no modifier for the target."""
        base = clean_prompt(prompt)
        arms = self.modifiers(base, target)
        if not arms or n < 1:
            return []
        mean, cov = effects(list(arms), np.array(list(arms.values())), history)
        tried = [any(holds(trial.prompt, arm) for trial in history if trial.scored) for arm in arms]
        proven = {arm for arm, known, value in zip(arms, tried, mean, strict=True) if known and value > 0}
        draws = np.random.default_rng(seed % 2**63).multivariate_normal(mean, cov, n, method="cholesky")
        seen = {plain(text) for text in (base, *(trial.prompt for trial in history))}
        found: list[str] = []
        for turn, draw in enumerate(draws):
            sets = self._sets(dict(zip(arms, draw.tolist(), strict=True)), proven, start_proven=turn % 2 == 0)
            texts = (self.word(prompt, sorted(chosen, key=list(arms).index)) for chosen in sets)
            wording = next((t for t in texts if plain(t) not in seen and keeps(prompt, t)), None)
            if wording is None:  # no draw can find another
                break
            seen.add(plain(wording))
            found.append(wording)
        return found

    def modifiers(self, prompt: str, target: Mapping[str, float]) -> dict[str, float]:
        """Return the modifiers for a target which the prompt does not hold yet, and how much each counts.

        >>> list(PhraseBank("embedded").modifiers("a cold flat face", {"aesthetics": -2}))
        ['calm', 'tired', 'sad', 'bored']
        """
        bank = BANKS[self.bank]
        heaviest = max(map(abs, target.values()), default=0.0)
        found: dict[str, float] = {}
        for dimension, weight in target.items():
            if dimension in NEVER or not weight:
                continue
            if self.bank == "embedded" and not any(holds(prompt, noun) for noun in MOODY):
                found[STYLES[0]] = found[STYLES[1]] = 1.0  # a bird in a mood is none that it can draw
                continue
            texts = [bank[dimension][weight < 0]] if dimension in bank else sum(bank.values(), ())
            for phrase in (phrase for text in texts for phrase in text.split("|") if phrase):
                found[phrase] = max(found.get(phrase, 0.0), abs(weight) / heaviest)
        if self.bank == "embedded" and found and not any(holds(prompt, style) for style in STYLES):
            found |= dict.fromkeys(STYLES, 1.0)
        return {phrase: weight for phrase, weight in found.items() if not holds(prompt, phrase)}

    def _sets(
        self, draw: Mapping[str, float], proven: Collection[str], start_proven: bool
    ) -> Iterator[Sequence[str]]:
        """Yield every set of modifiers that goes together, the most promising first.

        That is: the best draw with those that proved good, alone, with any others; then the next best.
        """
        order = sorted(draw, key=lambda arm: -draw[arm])
        good = [arm for arm in order if arm in proven and draw[arm] > 0]
        for first in dict.fromkeys([*(good[:1] if start_proven else []), *order]):
            together = [first]
            for arm in good:
                if len(together) < self.most and self._fits([*together, arm]):
                    together.append(arm)
            yield together
            others = [arm for arm in order if arm != first]
            for size in range(self.most):
                yield from ([first, *rest] for rest in combinations(others, size) if self._fits([first, *rest]))

    def _fits(self, chosen: Sequence[str]) -> bool:
        """Whether modifiers go together: the embedded model's captions have one mood and one style."""
        styles = sum(arm in STYLES for arm in chosen)
        distinct = len(set(chosen)) == len(chosen)
        return distinct and (self.bank != "embedded" or max(styles, len(chosen) - styles) <= 1)

    def word(self, prompt: str, modifiers: Sequence[str]) -> str:
        """Put modifiers to a prompt.

        >>> PhraseBank().word("A dog runs.", ["full of joy"])
        'A dog runs, full of joy'
        >>> PhraseBank("embedded").word("a glossy animal", ["happy"])
        'a glossy happy animal'
        """
        base = clean_prompt(prompt)
        if self.bank == "general":
            return ", ".join((base.rstrip(" .,;"), *modifiers))
        return put_before(base, sorted(modifiers, key=lambda word: word not in STYLES))


def put_before(prompt: str, words: Sequence[str]) -> str:
    """Put words behind a prompt's article and style, before what they describe; the article fits again.

    >>> put_before("An animal", ["happy"]), put_before("a glossy cat", ["angry"]), put_before("cat", ["sad"])
    ('A happy animal', 'a glossy angry cat', 'sad cat')
    """
    match = re.match(rf"(?i)((?:an?|the)\s+)?((?:(?:{'|'.join(STYLES)})\s+)*)", prompt)
    head = match[0] if match else ""
    text = " ".join((head.strip(), *words, prompt[len(head) :].strip())).strip()
    return re.sub(r"(?i)^(a)n?(?= ([a-z]))", lambda m: m[1] + ("n" if m[2].casefold() in "aeiou" else ""), text)


def effects(
    modifiers: Sequence[str], weights: NDArray[np.float64], history: Sequence[Trial]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean (M,) and covariance (M, M) of what each of M modifiers adds to a score, given the history.

    Bayesian linear regression of the trials' scores on which modifiers they hold, with an intercept: effects
    have a normal prior round 0 whose spread is that of the scores times the modifier's weight, an image has
    `NOISE` times the scores' spread. A wording that strayed from what was asked for counts as the worst seen.

    >>> history = [Trial("a face", 0.4, 4), Trial("a happy face", 0.8, 4)]
    >>> mean, cov = effects(["happy", "sad"], np.ones(2), history)
    >>> mean.round(2).tolist(), (np.diag(cov) / cov[1, 1]).round(2).tolist()
    ([0.13, 0.0], [0.66, 1.0])
    """
    seen = [trial for trial in history if trial.scored or not trial.kept]
    worst = min((trial.score for trial in seen if trial.scored), default=0.0)
    scores = np.array([trial.score if trial.scored and trial.kept else worst for trial in seen])
    gains = scores - scores.mean() if seen else scores
    spread = float(np.sqrt(np.mean(gains**2))) if gains.any() else 1.0
    held = np.array([[1.0, *(holds(trial.prompt, word) for word in modifiers)] for trial in seen])
    held = held.reshape(-1, len(modifiers) + 1)
    scaled = held * np.array([max(1, trial.count) / NOISE**2 for trial in seen]).reshape(-1, 1)
    prior = np.diag(np.concatenate([[0.1], weights**-2.0]))
    cov = np.linalg.inv(prior + held.T @ scaled)
    return (cov @ scaled.T @ gains)[1:], spread**2 * cov[1:, 1:]
