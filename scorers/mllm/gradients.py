"""The gradient of expected scores with respect to the pixels.

A score is the mean of the numbers v under the model's probabilities p, so its gradient is that of
sum_v p(v) (v - mean) log p(v) with all but log p held fixed (Williams 1992, REINFORCE, here summed in full and not
sampled). log p is a sum over the tokens of the answer. The answers that matter are known when the score is, so one
more pass over them, packed into a tree as in `branching`, holds all of the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from ..._errors import ModelError
from .branching import Branches, Inputs, Reruns, cut_prefix
from .core import FAULTS, Core
from .readout import AnswerSearch

Edges = tuple[list[int], list[int], list[float]]
"""Slots, tokens that follow them, and what their log probabilities weigh."""


def attach_gradient(
    core: Core, images: torch.Tensor, inputs: Inputs, searches: Mapping[str, Sequence[AnswerSearch]]
) -> dict[str, torch.Tensor]:
    """Return zeros by dimension, (B,), whose gradient is that of the expected scores.

    Args:
        core: the model; its weights take no gradient.
        images: (B, 3, H, W) in [0, 1], with a graph.
        inputs: the prompts of the same images, as the model was asked.
        searches: by dimension, the finished search of each image.

    Raises:
        ModelError: the model's processor breaks the graph.
    """
    names = list(searches)
    first = core.questions[names[0]]
    asked = {**inputs, **_pixels(core, images, inputs, core.facts.dimensions[names[0]].question)}
    prefix, lengths = cut_prefix(asked, len(first))
    tokens: list[list[int]] = []
    parents: list[list[int]] = []
    edges: list[list[Edges]] = []
    for row in range(len(images)):
        tokens.append([])
        parents.append([])
        edges.append([_add(core.questions[n], searches[n][row], tokens[row], parents[row]) for n in names])
    with _frozen(core.model):
        branches = (Branches if core.packed else Reruns)(core.model, prefix, lengths)
        logits = branches.extend(tokens, parents)
    if not logits.requires_grad:
        raise ModelError(
            f"{core.facts.name}: {type(core.model).__name__} passes no gradient to the pixels; score without one "
            "(images.detach(), or torch.no_grad())"
        )
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for row, of in enumerate(edges):
        for name, (slots, following, weights) in zip(names, of, strict=True):
            rows = logits[row, slots].float()
            logprobs = rows[range(len(slots)), following] - rows.logsumexp(dim=-1)
            total = (logprobs * torch.tensor(weights, device=logprobs.device)).sum()
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


def _pixels(core: Core, images: torch.Tensor, inputs: Inputs, question: str) -> Inputs:
    """What the processor makes of the pixels: the values that the model was given, with a graph to `images`."""
    try:
        soft = core.prepare(list(images), question)
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
