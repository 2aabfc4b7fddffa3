"""Losses that teach a model to answer with a score, as pure functions on the logits of supervised tokens.

Only the N tokens of the answers in a batch are looked at, never the whole sequence: `logits` is
(N, vocabulary). What they should be is a `Targets`, made from `targets.Step`.

- ``cross_entropy``: the one true token.
- ``triangular``: the paper's soft labels on digits (arXiv 2511.22805); every digit counts the same.
- ``answers``: a normal distribution over whole answers, projected on the tokens; place value counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..soft_labels import Step

KINDS = ("cross_entropy", "triangular", "answers")
"""Names of the losses on tokens; each can be joined by the term of `expected_value`."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What N supervised tokens of B answers should be; K candidates a token, padded.

    Attributes:
        tokens: (N, K) int64, token ids of the candidates; padding repeats the first one.
        probs: (N, K) float32, what each should get; 0 in the padding.
        values: (N, K) float32 in [0, 1], where in the dimension's range an answer going on so is expected.
        allowed: (N, K) bool, which go on with a valid answer; False in the padding.
        told: (N,) int64, the candidate that the answer goes on with.
        weights: (N,) float32, of each token.
        rows: (N,) int64, which answer a token belongs to.
        places: (N,) int64, the token's place in its answer.
        ends: (B,) float32 in [0, 1], where in the range the answer told lies.
        scores: (B,) float32 in [0, 1], where in the range the human score lies.
    """

    tokens: Tensor
    probs: Tensor
    values: Tensor
    allowed: Tensor
    told: Tensor
    weights: Tensor
    rows: Tensor
    places: Tensor
    ends: Tensor
    scores: Tensor

    @staticmethod
    def stack(
        answers: Sequence[Sequence[Step]],
        ends: Sequence[float],
        scores: Sequence[float],
        ranges: Sequence[tuple[float, float]],
    ) -> Targets:
        """Pad the steps of B answers to tensors; numbers become places in their range.

        >>> from ..soft_labels import one_hot
        >>> targets = Targets.stack([[one_hot(3), one_hot(4)], [one_hot(5)]], [0, 5], [0, 6], [(0, 10)] * 2)
        >>> targets.tokens.tolist(), targets.rows.tolist(), targets.scores.tolist()
        ([[3], [4], [5]], [0, 0, 1], [0.0, 0.6000000238418579])
        """
        steps = [(row, place, step) for row, own in enumerate(answers) for place, step in enumerate(own)]
        width = max(len(step.tokens) for _, _, step in steps)
        tokens = np.zeros((len(steps), width), dtype=np.int64)
        probs, values = np.zeros((2, len(steps), width), dtype=np.float32)
        allowed = np.zeros((len(steps), width), dtype=bool)
        for index, (row, _, step) in enumerate(steps):
            size, (low, high) = len(step.tokens), ranges[row]
            tokens[index] = step.tokens[0]
            tokens[index, :size], probs[index, :size] = step.tokens, step.probs
            values[index, :size] = (step.values - low) / (high - low)
            allowed[index, :size] = True if step.valid is None else step.valid

        def placed(numbers: Sequence[float]) -> Tensor:
            return torch.tensor(
                [(number - low) / (high - low) for number, (low, high) in zip(numbers, ranges, strict=True)],
                dtype=torch.float32,
            )

        return Targets(
            torch.from_numpy(tokens),
            torch.from_numpy(probs),
            torch.from_numpy(values),
            torch.from_numpy(allowed),
            torch.tensor([step.told for _, _, step in steps]),
            torch.tensor([step.weight for _, _, step in steps], dtype=torch.float32),
            torch.tensor([row for row, _, _ in steps]),
            torch.tensor([place for _, place, _ in steps]),
            placed(ends),
            placed(scores),
        )

    def to(self, device: torch.device | str) -> Targets:
        """Return the same targets on `device`."""
        return Targets(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def soft_cross_entropy(logits: Tensor, tokens: Tensor, probs: Tensor) -> Tensor:
    """Cross-entropy (N,), in nats, of logits (N, V) with distributions `probs` (N, K) on `tokens` (N, K).

    The softmax is over the whole vocabulary; it is computed in float32 and never stored.

    >>> logits = torch.tensor([[2.0, 0.0, 0.0]])
    >>> soft = soft_cross_entropy(logits, torch.tensor([[0, 1]]), torch.tensor([[0.75, 0.25]]))
    >>> full = F.cross_entropy(logits, torch.tensor([[0.75, 0.25, 0.0]]), reduction="none")
    >>> torch.equal(soft, full)
    True
    """
    chosen = logits.gather(1, tokens).float()
    total: Tensor = logits.float().logsumexp(dim=1) * probs.sum(dim=1) - (probs * chosen).sum(dim=1)
    return total


def expected_value(logits: Tensor, targets: Targets) -> Tensor:
    """Where in its range (B,) each answer's number is expected to lie, by the model's own next tokens.

    At every token of the answer told, the candidates that were not told would have led to the numbers
    `targets.values`; each counts with the probability of getting there, and so does the number told. With
    the softmax over valid candidates only, as the read-out has it. Differentiable in the logits.

    >>> from ..soft_labels import Step
    >>> halves = Step(np.array([0, 1]), np.array([0.5, 0.5]), np.array([2.0, 8.0]), told=1)
    >>> targets = Targets.stack([[halves]], ends=[8.0], scores=[8.0], ranges=[(0.0, 10.0)])
    >>> expected_value(torch.zeros(1, 3), targets).item()
    0.5
    """
    chosen = logits.gather(1, targets.tokens).float().masked_fill(~targets.allowed, -torch.inf)
    logprobs = chosen.log_softmax(dim=1)
    told = targets.told[:, None]
    others = (logprobs.exp() * targets.values).scatter(1, told, 0.0).sum(dim=1)
    # (answers, places): a place behind an answer's end leads nowhere else, and surely on
    size = (len(targets.ends), len(targets.told))
    stays = logits.new_zeros(size, dtype=torch.float32)
    stays = stays.index_put((targets.rows, targets.places), logprobs.gather(1, told)[:, 0])
    leaves = torch.zeros_like(stays).index_put((targets.rows, targets.places), others)
    reached = stays.cumsum(dim=1)
    before = F.pad(reached, (1, 0))[:, :-1]
    value: Tensor = (before.exp() * leaves).sum(dim=1) + reached[:, -1].exp() * targets.ends
    return value


def answer_loss(
    logits: Tensor,
    targets: Targets,
    num_tokens: Tensor | float | None = None,
    num_answers: float | None = None,
    value_weight: float = 0.0,
) -> Tensor:
    """Loss of B answers: the mean over supervised tokens of weighted `soft_cross_entropy`, and a value term.

    The value term is `value_weight` times the mean over answers of the squared distance between
    `expected_value` and the human score, both as parts of the range.

    Args:
        logits: (N, vocabulary) at the tokens before the supervised ones.
        targets: what they should be.
        num_tokens: what the sum over tokens is divided by; default: N. With gradient accumulation: the number
            in all batches of a step.
        num_answers: what the sum over answers is divided by; default: B.
        value_weight: weight of the value term; 0 leaves it out.

    >>> from ..soft_labels import one_hot
    >>> targets = Targets.stack([[one_hot(0, weight=2.0), one_hot(1)]], [0.0], [0.0], [(0.0, 1.0)])
    >>> round(answer_loss(torch.zeros(2, 10), targets).item() / 2.302585, 4)
    1.5
    """
    losses = soft_cross_entropy(logits, targets.tokens, targets.probs) * targets.weights
    total = losses.sum() / (len(losses) if num_tokens is None else num_tokens)
    if value_weight:
        gaps = (expected_value(logits, targets) - targets.scores) ** 2
        total = total + value_weight * gaps.sum() / (len(gaps) if num_answers is None else num_answers)
    return total
