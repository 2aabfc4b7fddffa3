"""The gradient of expected scores with respect to the pixels.

A score is the mean of the numbers v under the model's probabilities p, so its gradient is that of
sum_v p(v) (v - mean) log p(v) with all but log p held fixed (Williams 1992, REINFORCE, here summed in full and not
sampled). log p is a sum over the tokens of the answer. The answers that matter are known when the score is, so one
more pass over them, packed into a tree as in `branching`, holds all of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from ..._errors import ModelError
from .branching import Inputs, cut_prefix
from .core import FAULTS, Core
from .decoding import with_others
from .readout import AnswerSearch

K = TypeVar("K")
Edges = tuple[list[int], list[int], list[float]]
"""Slots, tokens that follow them, and what their log probabilities weigh."""


def attach_gradient(
    core: Core,
    pictures: Sequence[tuple[torch.Tensor, ...]],
    texts: Sequence[str],
    inputs: Inputs,
    questions: Mapping[K, Sequence[Sequence[int]]],
    searches: Mapping[K, Sequence[AnswerSearch]],
) -> dict[K, torch.Tensor]:
    """Return zeros by question, (B,), whose gradient is that of the expected scores.

    Args:
        core: the model; its weights take no gradient.
        pictures: of each prompt, (3, H, W) in [0, 1], with a graph.
        texts: the first question of each prompt.
        inputs: the prompts of the same images, as the model was asked.
        questions: tokens of each question, of each prompt its own.
        searches: the finished searches of each question.

    Raises:
        ModelError: the model's processor breaks the graph.
    """
    asked = {**inputs, **_pixels(core, pictures, texts, inputs)}
    prefix, lengths = cut_prefix(asked, [len(question) for question in next(iter(questions.values()))])
    tokens: list[list[int]] = []
    parents: list[list[int]] = []
    edges: list[list[Edges]] = []
    for row in range(len(pictures)):
        tokens.append([])
        parents.append([])
        edges.append([_add(questions[n][row], of[row], tokens[row], parents[row]) for n, of in searches.items()])
    with _frozen(core.model):
        asked_of = [question for of in questions.values() for question in of]
        branches = core.continuation(prefix, lengths, asked_of, gradients=True)
        logits = branches.extend(tokens, parents)
    if not logits.requires_grad:
        raise ModelError(
            f"{core.facts.name}: {type(core.model).__name__} passes no gradient to the pixels; score without one "
            "(images.detach(), or torch.no_grad())"
        )
    found: dict[K, list[torch.Tensor]] = {name: [] for name in searches}
    for row, of in enumerate(edges):
        for name, (slots, tokens_after, weights) in zip(searches, of, strict=True):
            places, at = torch.tensor(slots, device=logits.device).unique(return_inverse=True)
            rows = logits[row, places].float()
            after = torch.tensor(tokens_after, device=logits.device)
            picked = with_others(rows[at, after.clamp(min=0)] - rows.logsumexp(dim=-1)[at], at, after)
            total = (picked * torch.tensor(weights, device=picked.device)).sum()
            found[name].append(total - total.detach())
    return {name: torch.stack(of) for name, of in found.items()}


def _add(question: Sequence[int], search: AnswerSearch, tokens: list[int], parents: list[int]) -> Edges:
    """Add a question and the answers that its search came down to, to a row of nodes."""
    tree, start = search.tree, len(tokens)
    tokens += question
    parents += [-1, *range(start, start + len(question) - 1)]
    nodes, values, _, _ = search.outcome()
    weights = np.exp(search.logprobs[nodes])
    weights /= weights.sum()
    shares = np.zeros(len(tree.tokens))
    shares[nodes] = weights * (values - weights @ values)
    slots = {0: len(tokens) - 1}
    within = np.zeros(len(tree.tokens), dtype=bool)
    within[nodes] = True
    for node in np.flatnonzero(np.isfinite(search.logprobs))[:0:-1]:  # children before their parents
        if within[node]:
            shares[tree.parents[node]] += shares[node]
            within[tree.parents[node]] = True
    edges: Edges = ([], [], [])
    for node in np.flatnonzero(within)[1:]:
        above = int(tree.parents[node])
        if above not in slots:
            slots[above] = len(tokens)
            tokens.append(int(tree.tokens[above]))
            parents.append(slots[int(tree.parents[above])])
        edges[0].append(slots[above])
        edges[1].append(int(tree.tokens[node]))
        edges[2].append(float(shares[node]))
    return edges


def _pixels(
    core: Core, pictures: Sequence[tuple[torch.Tensor, ...]], texts: Sequence[str], inputs: Inputs
) -> Inputs:
    """What the processor makes of the pixels: the values that the model was given, with a graph to the pictures."""
    try:
        soft = core.prepare(pictures, texts)
    except FAULTS:  # made for pictures only
        soft = {}
    found = {}
    for key, exact in inputs.items():
        made = soft.get(key)
        if made is not None and made.requires_grad:
            if made.shape != exact.shape:
                raise ModelError(f"{core.facts.name}: its processor treats tensors in another way than pictures")
            found[key] = exact.clone() + (made - made.detach())
        else:
            found[key] = exact.clone()
    if not any(tensor.requires_grad for tensor in found.values()):
        raise ModelError(
            f"{core.facts.name}: {type(core.processor).__name__} passes no gradient to the pixels; score without one "
            "(images.detach(), or torch.no_grad())"
        )
    return found


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """The weights take no gradient, inside."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in weights:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in weights:
            parameter.requires_grad_(True)
