"""Ask a model several questions about each image of a batch, all on one shared prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch

from .answer_tree import OTHER, AnswerTree, Ints
from .readout import AnswerSearch

K = TypeVar("K")

MOST_LOGITS = 2**28
"""So many logits at most are made in one pass: 1 GiB in float32. An undecided judge of a large vocabulary asks for
the children of hundreds of nodes a row, which would be tens of GiB; it takes more passes."""


class Continuation(Protocol):
    """What `Branches` and `Reruns` have in common."""

    @property
    def num_slots(self) -> int:
        """How many nodes each row has."""
        ...

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary."""
        ...

    def extend(
        self,
        tokens: Sequence[Sequence[int]],
        parents: Sequence[Sequence[int]],
        keep: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Add nodes and return the logits (B, N, vocabulary) that follow them."""
        ...


@dataclass
class _Walk:
    row: int
    search: AnswerSearch
    slots: Ints  # slot of each node that was fed


def search_answers(
    branches: Continuation,
    questions: Mapping[K, Sequence[Sequence[int]]],
    trees: Mapping[K, AnswerTree],
) -> dict[K, list[AnswerSearch]]:
    """Search every question's answers for every row; by question, the finished search of each row.

    `questions` has the tokens of each question, of each row its own. The first pass holds the questions and all
    labels, each later one the next tokens of the branches that still matter: four to six passes over some fifty
    tokens for a model that answers as asked. Answers of a word alone are read in the first.

    An executed example is in ``tests/scorers/test_gradients.py``.
    """
    num_rows = len(next(iter(questions.values())))
    walks: list[_Walk] = []
    first: list[tuple[_Walk, Ints]] = []
    tokens: list[list[int]] = [[] for _ in range(num_rows)]
    parents: list[list[int]] = [[] for _ in range(num_rows)]
    keep: list[int] = []
    for name, asked in questions.items():
        end = _lay(asked, tokens, parents)
        tree = trees[name]
        nodes = AnswerSearch(tree).next_nodes()
        slots = np.full(len(tree.tokens), end)
        for node in nodes[1:]:  # node 0, the empty answer, is the question's last token
            slots[node] = len(tokens[0])
            for row in range(num_rows):
                parents[row].append(int(slots[tree.parents[node]]))
                tokens[row].append(int(tree.tokens[node]))
        keep.extend(int(slot) for slot in slots[nodes])
        for row in range(num_rows):
            walks.append(_Walk(row, AnswerSearch(tree), slots.copy()))
            first.append((walks[-1], nodes))
    logits = branches.extend(tokens, parents, keep)
    place = {slot: index for index, slot in enumerate(keep)}
    _update(first, logits, place)
    while _advance(branches, walks, num_rows):
        pass
    return {name: [w.search for w in walks[i * num_rows :][:num_rows]] for i, name in enumerate(questions)}


def _lay(
    asked: Sequence[Sequence[int]], tokens: Sequence[list[int]], parents: Sequence[list[int]], base: int = 0
) -> int:
    """Add a question to every row's nodes so that it ends at the same one, whose slot is returned.

    In front of shorter questions there are nodes that nobody sees. `base` is the first row's slot.
    """
    longest, start = max(map(len, asked)), base + len(tokens[0])
    for row, question in enumerate(asked):
        gap = longest - len(question)
        tokens[row].extend([0] * gap)
        tokens[row].extend(question)
        parents[row].extend([-1] * (gap + 1))
        parents[row].extend(range(start + gap, start + longest - 1))
    return start + longest - 1


def _advance(branches: Continuation, walks: Sequence[_Walk], num_rows: int) -> bool:
    base = branches.num_slots
    per_walk = max(1, MOST_LOGITS // (branches.num_tokens * len(walks)))
    tokens: list[list[int]] = [[] for _ in range(num_rows)]
    parents: list[list[int]] = [[] for _ in range(num_rows)]
    fed: list[tuple[_Walk, Ints]] = []
    for walk in walks:
        nodes = walk.search.next_nodes()[:per_walk]  # parents first, so the others can follow in the next pass
        if not len(nodes):
            continue
        tree = walk.search.tree
        walk.slots = np.pad(walk.slots, (0, len(tree.tokens) - len(walk.slots)))
        for node in nodes:
            walk.slots[node] = base + len(tokens[walk.row])
            tokens[walk.row].append(int(tree.tokens[node]))
            parents[walk.row].append(int(walk.slots[tree.parents[node]]))
        fed.append((walk, nodes))
    if fed:
        width = max(map(len, tokens))
        logits = branches.extend(tokens, parents)
        _update(fed, logits, {base + index: index for index in range(width)})
    return bool(fed)


def _update(fed: Sequence[tuple[_Walk, Ints]], logits: torch.Tensor, place: Mapping[int, int]) -> None:
    """Hand every walk the log probabilities of its nodes' children: all in one gather, and one copy to the CPU."""
    rows, columns, tokens = [], [], []
    for walk, nodes in fed:
        parents, children = walk.search.children(nodes)
        at = np.array([place[int(slot)] for slot in walk.slots[nodes]])
        columns.append(at[parents])
        rows.append(np.full(len(parents), walk.row))
        tokens.append(walk.search.tree.tokens[children])
    row, column, token = (torch.from_numpy(np.concatenate(of)).to(logits.device) for of in (rows, columns, tokens))
    sums = torch.stack([of.float().logsumexp(dim=-1) for of in logits])
    picked = logits[row, column, token.clamp(min=0)].float() - sums[row, column]
    found = with_others(picked, row * logits.shape[1] + column, token).double().cpu().numpy()
    ends = np.cumsum([len(of) for of in tokens])
    for (walk, nodes), part in zip(fed, np.split(found, ends[:-1]), strict=True):
        walk.search.update(nodes, part)


def with_others(logprobs: torch.Tensor, groups: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Put in log probabilities (E,) of `OTHER`: what the other tokens (E,) of its group (E,) leave. Graphs are kept.

    >>> with_others(torch.tensor([0.3, 0.0]).log(), torch.tensor([0, 0]), torch.tensor([1, -1])).exp()
    tensor([0.3000, 0.7000])
    """
    rest = tokens == OTHER
    if not bool(rest.any()):
        return logprobs
    told = torch.zeros(int(groups.max()) + 1, dtype=logprobs.dtype, device=logprobs.device)
    told = told.index_add(0, groups[~rest], logprobs[~rest].exp())
    return torch.where(rest, torch.log1p(-told[groups].clamp(max=1 - 1e-7)), logprobs)


def read_greedy(
    branches: Continuation,
    questions: Mapping[K, Sequence[Sequence[int]]],
    stop: frozenset[int],
    max_new_tokens: int,
) -> list[dict[K, list[int]]]:
    """Answer every question of every row with the likeliest next token, up to a stop token (left out).

    Other questions may have been asked of the same branches before.

    An executed example is in ``tests/scorers/test_decoding.py``.
    """
    base, num_rows = branches.num_slots, len(next(iter(questions.values())))
    tokens: list[list[int]] = [[] for _ in range(num_rows)]
    parents: list[list[int]] = [[] for _ in range(num_rows)]
    ends = [_lay(asked, tokens, parents, base) - base for asked in questions.values()]
    logits = branches.extend(tokens, parents, ends)
    answers: list[list[list[int]]] = [[[] for _ in questions] for _ in range(num_rows)]
    done = [[False] * len(questions) for _ in range(num_rows)]
    slots = [[base + end for end in ends] for _ in range(num_rows)]
    for _ in range(max_new_tokens):
        # one node a question and step; a finished one repeats a token that nobody reads
        chosen: list[list[int]] = logits.argmax(dim=-1).tolist()
        for row in range(num_rows):
            for index, token in enumerate(chosen[row]):
                done[row][index] |= token in stop
                if not done[row][index]:
                    answers[row][index].append(token)
        if all(map(all, done)):
            break
        base = branches.num_slots
        logits = branches.extend(chosen, slots)
        slots = [list(range(base, base + len(questions))) for _ in range(num_rows)]
    return [dict(zip(questions, row_answers, strict=True)) for row_answers in answers]
