"""How any chat model is asked for rewrites, and how its answer is read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from .base import Trial, clean_prompt, describe_target, kept_words, new_wordings

SHOWN = 8  # trials of the history that a model sees
MAX_CHARACTERS = 500  # of a rewrite; a longer line is no prompt

_NUMBERED = re.compile(r"^\s*(?:\(?\d{1,3}\s*[.):]|[-*•–](?=\s))\s*(.+)$")
_PAIRS = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`", "«": "»"}


def instruction(prompt: str, target: Mapping[str, float], history: Sequence[Trial], n: int) -> str:
    """Write what a chat model is asked: the aim in words, what must stay, what was tried, n numbered lines.

    Raises:
        InputError: no term of the target has a weight.

    >>> print(instruction("a [cat]", {"memorability": 1}, [Trial("a cat", 0.5, 4), Trial("a bold cat", 0.7, 4)], 2))
    You word prompts for a text-to-image model.
    Prompt: a cat
    Aim: its pictures should become more memorable, and still show what the prompt asks for.
    These words must stay exactly as they are: "cat"
    Tried so far, with the score of the pictures (higher is better):
    0.700  a bold cat
    0.500  a cat
    Learn from the scores: keep what worked, drop what did not, and try something new.
    Write 2 new wordings of the prompt that differ from each other and from those above. Each is one line of at \
most 40 words and describes one picture. Answer with the numbered list only, from 1. to 2.
    """
    kept = ", ".join(f'"{word}"' for word in kept_words(prompt))
    scored = sorted((t for t in history if t.scored and t.kept), key=lambda t: -t.score)[:SHOWN]
    strayed = [trial for trial in history if not trial.kept][-SHOWN:]
    lines = [
        "You word prompts for a text-to-image model.",
        f"Prompt: {clean_prompt(prompt)}",
        f"Aim: its pictures should become {describe_target(target)}, and still show what the prompt asks for.",
    ]
    if kept:
        lines += [f"These words must stay exactly as they are: {kept}"]
    if scored:
        lines += ["Tried so far, with the score of the pictures (higher is better):"]
        lines += [f"{trial.score:.3f}  {trial.prompt}" for trial in scored]
        lines += ["Learn from the scores: keep what worked, drop what did not, and try something new."]
    if strayed:
        lines += ["Rejected, since the pictures no longer showed what the prompt asks for:"]
        lines += [trial.prompt for trial in strayed]
    lines += [
        f"Write {n} new wordings of the prompt that differ from each other and from those above. Each is one line "
        "of at most 40 words and describes one picture. Answer with the numbered list only, "
        f"from 1. to {n}."
    ]
    return "\n".join(lines)


def parse_rewrites(answer: str) -> list[str]:
    """Read the rewrites out of a chat model's answer, strictly: what is in no list is not taken.

    Lists are numbered or bulleted lines, else a JSON list of texts, else lines that are wholly in quotes.
    Quotes and bold type round a line are stripped; so is what a model thought aloud before it answered. Lines
    without a letter, or over `MAX_CHARACTERS`, are left out.

    >>> parse_rewrites('Sure! Here are two:\\n1. "A happy cat"\\n2) **a cat that says "hi"**')
    ['A happy cat', 'a cat that says "hi"']
    >>> parse_rewrites('```json\\n["a cat", "a dog"]\\n```'), parse_rewrites("- a cat\\n- a dog")
    (['a cat', 'a dog'], ['a cat', 'a dog'])
    >>> parse_rewrites("I cannot help with that.")
    []
    """
    text = re.sub(r"(?s)^.*</think>", "", answer)
    if "<think>" in text:  # cut off before it came to an answer
        return []
    lines = [line.strip() for line in text.splitlines()]
    found = [match[1] for match in map(_NUMBERED.match, lines) if match]
    found = found or _json_texts(text) or [line for line in lines if _unwrapped(line.rstrip(",")) != line.rstrip(",")]
    texts = (_unwrapped(line.rstrip(",") if line[:1] in _PAIRS else line) for line in found)
    return [line for line in texts if len(line) <= MAX_CHARACTERS and re.search(r"[^\W\d_]", line)]


def _json_texts(text: str) -> list[str]:
    """Return the texts of the first to the last bracket, if that is a JSON list of nothing but texts."""
    start, end = text.find("["), text.rfind("]")
    try:
        found = json.loads(text[start : end + 1]) if 0 <= start < end else []
    except (ValueError, RecursionError):
        return []
    texts = isinstance(found, list) and all(isinstance(item, str) for item in found)
    return [" ".join(item.split()) for item in found] if texts else []


def _unwrapped(line: str) -> str:
    """Strip bold type and quotes that go round the whole of a line."""
    text = re.sub(r"^(\*\*|__)(.+)\1$", r"\2", line.strip()).strip()
    close = _PAIRS.get(text[:1])
    inside = text[1:-1]
    whole = close and len(text) > 2 and text.endswith(close) and not {text[0], close} & set(inside)
    return inside.strip() if whole else text


def ask_for_rewrites(
    ask: Callable[[str, int], str],
    prompt: str,
    target: Mapping[str, float],
    history: Sequence[Trial],
    n: int,
    seed: int,
    tries: int,
) -> list[str]:
    """Ask until n new wordings have come, `tries` times at most; `ask(text, seed)` is a model's answer.

    >>> answers = iter(["no idea", "1. a sad cat\\n2. a cat", "1. a dog\\n2. a black cat"])
    >>> ask_for_rewrites(lambda text, seed: next(answers), "a [cat]", {"clip": 1}, [], n=2, seed=0, tries=3)
    ['a sad cat', 'a black cat']
    """
    found: list[str] = []
    for attempt in range(tries):
        if len(found) >= n:
            break
        known = [*history, *map(Trial, found)]
        answer = ask(instruction(prompt, target, known, n - len(found)), (seed + 1_000_003 * attempt) % 2**31)
        found += new_wordings(parse_rewrites(answer), prompt, known, n - len(found))
    return found
