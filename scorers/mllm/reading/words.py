"""Answers of one word: which there are of a dimension, how they are spelled, and their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...dimensions import Dimension
from ..answer_tree import AnswerTree, answer_tree, word_tree

ANSWERS = {"yes_no": ("Yes", "No"), "pairwise": ("First", "Second")}
"""The two answers of a read-out, the one that counts first."""


def spellings(word: str) -> list[str]:
    """Ways to write a word whose case does not matter: as given, in small and in capital letters, with a capital.

    >>> spellings("yes")
    ['yes', 'YES', 'Yes']
    """
    return list(dict.fromkeys([word, word.lower(), word.upper(), word[:1].upper() + word[1:].lower()]))


def answers(dim: Dimension, readout: str) -> list[str]:
    """Names of the answers to a dimension's question, in the order of `AnswerTree.labels`.

    >>> from ...dimensions import dimension
    >>> answers(dimension("memorability"), "pairwise"), answers(dimension("emotional_valence"), "expected")
    (['First', 'Second'], ['negative', 'neutral', 'positive'])
    """
    if readout in ANSWERS:
        return list(dim.words or ANSWERS[readout])
    return [word for word, _ in dim.weighed] if readout == "levels" else list(dim.labels)


def tree_of(encode: Callable[[list[str]], list[list[int]]], dim: Dimension, readout: str) -> AnswerTree:
    """Write out the answers that a read-out weighs.

    Raises:
        ModelError: the tokenizer makes nothing of an answer, or the same of two.

    >>> from ...dimensions import dimension
    >>> spell = lambda texts: [[ord(character) for character in text] for text in texts]
    >>> tree = tree_of(spell, dimension("memorability"), "pairwise")
    >>> tree.values[tree.ends].tolist()
    [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    """
    if readout == "levels":
        return word_tree(encode, [spellings(word) for word, _ in dim.weighed], [value for _, value in dim.weighed])
    if readout in ANSWERS:
        return word_tree(encode, [spellings(word) for word in answers(dim, readout)], [1.0, 0.0])
    return answer_tree(encode, dim)


def weigh(logprobs: torch.Tensor, values: Sequence[float] | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (B,) and spread (B,) of values (K,) under log probabilities (B, K), scaled to a sum of one.

    The mean keeps its graph. Q-Align, Wu et al. 2023, arXiv 2312.17090.

    >>> weigh(torch.tensor([[0.1, 0.1]]).log(), [1.0, 5.0])
    (tensor([3.]), tensor([2.]))
    """
    shares = logprobs.softmax(dim=-1)
    levels = torch.as_tensor(values, dtype=shares.dtype, device=shares.device)
    mean = shares @ levels
    spread = (shares * (levels - mean[:, None]) ** 2).sum(dim=-1).clamp(min=0).sqrt()
    return mean, spread.detach()
