"""From next-token distributions to a score: the tree of valid answers, and its mean.

A valid answer is a label of the dimension, a space, and a number of its range with three decimals
("medium 5.577"); label and number need not agree, since the number alone is the score. The *expected*
read-out is the mean of the model's own distribution over these answers. The mean of a judge's distribution
beats its mode in most published comparisons and has no ties (Wang et al. 2025, arXiv 2503.03064; Q-Align,
Wu et al. 2023, arXiv 2312.17090, does it for level names).

All answers are written out by the model's own tokenizer and merged to a tree of tokens, so "10.000", the
minus sign and tokens of several digits need no special case. Where what is left to say moves the number by
less than a thousandth of the range, the tree is cut: with single digits, the third decimal of a 0-to-10 scale
is taken to be there and is not looked at. Where the digits before it were not sure to be followed by more of
a number, that would skew the weights, and the tree is followed to its leaves.

Of branches whose answers lie within a hundredth of the range, first the likeliest few are followed. How far their
means are from their middles tells how far those of the others are: if that is so much alike that the mean cannot be
out by more than a thousandth of the range, the others are left there; if not, all are followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .._errors import ModelError
from .dimensions import Dimension
from .parsing import parse_answer as parse_answer

RESOLUTION = 1e-3
"""Branches are followed until their answers lie within this part of the range of their middle."""
CUT = 5e-4
"""Branches that together hold less than this part of the captured mass are left out."""
ALIKE = 1e-2
"""Branches whose answers lie within this part of the range of their middle may be judged by a few of them."""
FEW = 8
"""How many of those."""
SURE = 0.99
"""The tree may be cut if numbers begun went on as numbers with this probability."""
MAX_NODES = 512
"""Nodes that one search feeds in one pass."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class AnswerTree:
    """Every valid answer of a dimension as a tree of tokens; node 0 is the empty answer.

    Nodes are in breadth-first order: the children of node n are ``first[n] : last[n]``, none for an end.

    Attributes:
        tokens: (nodes,) token id, -1 at the root.
        parents: (nodes,) parent, -1 at the root.
        first: (nodes,) first child.
        last: (nodes,) one past the last child.
        values: (nodes,) middle of the answers beneath.
        labels: (nodes,) index of the label at the ends of the tree, -1 where it is still open.
        opened: (nodes,) whether a digit or sign of the number is known.
        root: the tree as linked nodes.
        cut_height: how many tokens short of an answer's end the tree is cut, 0 for not at all.
        stems: (nodes,) the branch that the node is or grows on, of those known to within `ALIKE`; -1 above them.
        single: (nodes,) whether only one number is beneath.
    """

    tokens: Ints
    parents: Ints
    first: Ints
    last: Ints
    values: Floats
    labels: Ints
    opened: Bools
    root: _Node
    cut_height: int
    stems: Ints
    single: Bools

    @cached_property
    def full(self) -> AnswerTree:
        """The same tree down to its leaves; the nodes of this one come first and keep their places."""
        return _flatten(self.root, self.cut_height, 0, to_leaves=True) if self.cut_height else self

    @cached_property
    def ends(self) -> Bools:
        """(nodes,) whether the tree ends there."""
        ends: Bools = self.first == self.last
        return ends

    @cached_property
    def branches(self) -> Bools:
        """(nodes,) whether it is a branch that is known to within `ALIKE`."""
        branches: Bools = self.stems == np.arange(len(self.stems))
        return branches

    @cached_property
    def open_branches(self) -> Bools:
        """(nodes,) whether it is such a branch and there is more to know of it."""
        open_branches: Bools = self.branches & ~self.ends & ~self.single
        return open_branches

    @cached_property
    def outward(self) -> Floats:
        """(nodes,) 1, or -1 for negative numbers."""
        return np.where(self.values < 0, -1.0, 1.0)

    @property
    def range(self) -> float:
        """From the lowest number to the highest."""
        return self.root.high - self.root.low


def answer_tree(encode: Callable[[list[str]], list[list[int]]], dim: Dimension) -> AnswerTree:
    """Write out all valid answers with a tokenizer and merge them to a tree.

    Args:
        encode: token ids of each text, without special tokens.
        dim: labels and range.

    Raises:
        ModelError: the tokenizer writes two different answers in the same way.

    >>> from .dimensions import dimension
    >>> spell = lambda texts: [[ord(character) for character in text] for text in texts]
    >>> tree = answer_tree(spell, dimension("memorability"))
    >>> [chr(token) for token in tree.tokens[tree.first[0] : tree.last[0]]]
    ['v', 'l', 'm', 'h']
    """
    numbers = [_Number(text, float(text)) for text in dim.numbers()]
    root = _Node(numbers[0].value, numbers[-1].value)
    heads = encode(list(dim.labels))
    tails = _shared_tails(encode, dim, heads)
    if tails is not None:  # the usual case: each number is written alike after every label
        number_root = _Node(numbers[0].value, numbers[-1].value)
        for number, tail in zip(numbers, tails, strict=True):
            _insert(number_root, tail, number, -1)
        for label, head in enumerate(heads):
            _graft(root, head, number_root, label)
    else:
        for label, word in enumerate(dim.labels):
            for number, tokens in zip(numbers, encode([f"{word} {n.text}" for n in numbers]), strict=True):
                _insert(root, tokens, number, label)
    span = dim.high - dim.low
    cut_height, stem_height = _cut_heights(root, (RESOLUTION * span, ALIKE * span))
    return _flatten(root, cut_height, stem_height)


@dataclass(frozen=True)
class _Number:
    text: str
    value: float


@dataclass
class _Node:
    low: float  # lowest number beneath
    high: float
    label: int = -1  # the label of all answers beneath; -1: open, or that of the node above
    children: dict[int, _Node] = field(default_factory=dict)
    height: int = -1  # tokens down to the furthest leaf


def _shared_tails(
    encode: Callable[[list[str]], list[list[int]]], dim: Dimension, heads: list[list[int]]
) -> list[list[int]] | None:
    """Tokens of every number after a label, if they do not depend on the label (checked on a sample)."""
    numbers = dim.numbers()
    stride = max(1, len(numbers) // 200)
    sample = [*range(0, len(numbers), stride), len(numbers) - 1]
    tails: list[list[int]] = []
    for label, head in zip(dim.labels, heads, strict=True):
        chosen = sample if tails else range(len(numbers))
        written = encode([f"{label} {numbers[index]}" for index in chosen])
        if any(tokens[: len(head)] != head for tokens in written):
            return None
        own = [tokens[len(head) :] for tokens in written]
        if not tails:
            tails = own
        elif own != [tails[index] for index in sample]:
            return None
    starts = {tail[0] for tail in tails if tail}
    inner = {tuple(head[:end]): head[end] for head in heads for end in range(1, len(head))}
    clash = any(inner.get(tuple(head)) in starts for head in heads)
    return None if clash or not all(heads) else tails


def _insert(root: _Node, tokens: Sequence[int], number: _Number, label: int) -> None:
    node, fresh = root, False
    for token in tokens:
        child = node.children.get(token)
        fresh = child is None
        if child is None:
            child = node.children[token] = _Node(number.value, number.value, label)
        child.low, child.high = min(child.low, number.value), max(child.high, number.value)
        if child.label != label:
            child.label = -1
        node = child
    if not fresh:
        raise ModelError(f"the tokenizer cannot tell {number.text!r} from another number: {list(tokens)}")


def _graft(root: _Node, head: Sequence[int], number_root: _Node, label: int) -> None:
    node = root
    for token in head:
        node = node.children.setdefault(token, _Node(number_root.low, number_root.high))
    if node.label >= 0:
        raise ModelError(f"the tokenizer writes two labels alike: {list(head)}")
    node.label = label
    node.children.update(number_root.children)


def _cut_heights(root: _Node, tolerances: Sequence[float]) -> list[int]:
    """Greatest heights at which every node, and every node below it, is known to within the tolerances.

    Cutting all branches at one height, not each where it happens to be narrow ("10" is as narrow as
    "10.000"), keeps their masses comparable: each end is as many tokens short of a full answer.
    """
    spans: dict[int, float] = {}

    def walk(node: _Node) -> int:
        if node.height < 0:
            node.height = 1 + max((walk(child) for child in node.children.values()), default=-1)
            half_span = (node.high - node.low) / 2
            spans[node.height] = max(spans.get(node.height, 0.0), half_span)
        return node.height

    walk(root)
    found = []
    for tolerance in tolerances:
        height = 0
        while spans[height + 1] <= tolerance:
            height += 1
        found.append(height)
    return found


def _flatten(root: _Node, cut_height: int, stem_height: int, to_leaves: bool = False) -> AnswerTree:
    queue = [(-1, root, -1)]
    parents = [-1]
    spans: dict[int, tuple[int, int]] = {}
    for above in (cut_height, 0) if to_leaves else (cut_height,):
        for index, (_, node, label) in enumerate(queue):  # the queue grows while it is walked
            if index not in spans and node.height > above:
                start = len(queue)
                queue.extend((t, c, c.label if c.label >= 0 else label) for t, c in node.children.items())
                parents.extend([index] * len(node.children))
                spans[index] = (start, len(queue))
    first, last = zip(*(spans.get(index, (0, 0)) for index in range(len(queue))), strict=True)
    stems = np.full(len(queue), -1)
    for index, (_, node, _) in enumerate(queue):
        if node.height <= stem_height:
            above = stems[parents[index]]
            stems[index] = above if above >= 0 else index
    return AnswerTree(
        np.array([token for token, _, _ in queue]),
        np.array(parents),
        np.array(first),
        np.array(last),
        np.array([(node.low + node.high) / 2 for _, node, _ in queue]),
        np.array([label for _, _, label in queue]),
        np.array([(node.low, node.high) != (root.low, root.high) for _, node, _ in queue]),
        root,
        0 if to_leaves else cut_height,
        stems,
        np.array([node.low == node.high for _, node, _ in queue]),
    )


class AnswerSearch:
    """Best-first walk over an `AnswerTree`: which nodes to feed next, and what is known so far.

    The caller feeds the nodes of `next_nodes()` to the model (each after its parent) and hands the log
    probabilities of their children to `update`, until `next_nodes()` is empty. Then the branches left out
    hold at most `CUT` of the mass that was captured, and could move the mean by `CUT` of the range at most;
    those judged by others, by about `RESOLUTION`.

    Attributes:
        tree: the answers; in the course of the search it may become `tree.full`.
        logprobs: (nodes,) log probability that the answer starts with the node; -inf where not known.
    """

    def __init__(self, tree: AnswerTree) -> None:
        self.tree = tree
        self.logprobs = np.full(len(tree.tokens), -np.inf)
        self.logprobs[0] = 0.0
        self._fed = np.zeros(len(tree.tokens), dtype=bool)
        self._doubted = False  # whether numbers begun did not surely go on: nothing is taken to be there

    @property
    def fed(self) -> Ints:
        """Nodes fed so far, every parent before its children."""
        return np.flatnonzero(self._fed)

    def next_nodes(self) -> Ints:
        """Nodes to feed, every parent before its children; empty when enough is known."""
        nodes = self._pending()
        if len(nodes) or self._doubted or self._continued() >= SURE:
            return nodes
        self._doubted = True
        self.tree = self.tree.full
        more = len(self.tree.tokens) - len(self.logprobs)
        self.logprobs = np.pad(self.logprobs, (0, more), constant_values=-np.inf)
        self._fed = np.pad(self._fed, (0, more))
        return self._pending()

    def _continued(self) -> float:
        """Probability that a number begun went on as a number, over the nodes fed."""
        begun = self._fed & self.tree.opened
        reached = np.flatnonzero(np.isfinite(self.logprobs[1:])) + 1
        reached = reached[begun[self.tree.parents[reached]]]
        before = np.exp(self.logprobs[begun]).sum()
        return float(np.exp(self.logprobs[reached]).sum() / before) if before > 0 else 1.0

    def _pending(self) -> Ints:
        tree = self.tree
        if not self._fed[0]:  # the question's end and all labels in one go
            return np.flatnonzero(~tree.opened & ~tree.ends)
        open_ = np.isfinite(self.logprobs) & ~(self._fed & ~tree.ends)
        mass = np.exp(
            self.logprobs - self.logprobs[open_].max(initial=-np.inf), where=open_, out=np.zeros(len(open_))
        )
        settled = open_ & tree.ends if self._doubted else open_ & (tree.ends | tree.branches)
        pending = np.flatnonzero(open_ & ~settled)
        if mass[pending].sum() <= CUT * mass[settled].sum():
            pending = np.flatnonzero(settled & tree.open_branches & (not self._doubted))
            followed = len(self._followed())
            if mass[pending].sum() <= CUT * mass.sum() or self._alike(float(mass[pending].sum() / mass.sum())):
                return pending[:0]
            if not followed:
                return np.sort(pending[np.argsort(mass[pending])][-FEW:])
        pending = pending[np.argsort(mass[pending])]
        # Half of what may be cut is cut at this depth, the rest is kept for the depths to come.
        chosen = pending[np.cumsum(mass[pending]) > CUT / 2 * mass.sum()]
        return np.sort(self._with_only_children(chosen[-MAX_NODES:]))

    def _followed(self) -> Ints:
        """Branches that could have been judged by others, and were followed."""
        return np.flatnonzero(self._fed & self.tree.open_branches)

    def _shifts(self) -> tuple[Floats, Floats, float]:
        """Of the branches followed: how far the mean is from the middle, away from 0 (F,), for that is where more
        digits lead; variance (F,); and which part of their mass went on to an end.
        """
        tree, followed = self.tree, self._followed()
        place = np.full(len(tree.tokens), -1)
        place[followed] = np.arange(len(followed))
        ends = np.flatnonzero(tree.ends & np.isfinite(self.logprobs))
        ends = ends[(tree.stems[ends] >= 0) & (tree.stems[ends] != ends)]
        ends = ends[place[tree.stems[ends]] >= 0]
        which = place[tree.stems[ends]]
        weights = np.exp(self.logprobs[ends] - self.logprobs[tree.stems[ends]])
        total = np.bincount(which, weights, len(followed)).clip(1e-300)
        mean = np.bincount(which, weights * tree.values[ends], len(followed)) / total
        square = np.bincount(which, weights * (tree.values[ends] - mean[which]) ** 2, len(followed)) / total
        shifts = (mean - tree.values[followed]) * tree.outward[followed]
        return shifts, square, float(total.mean()) if len(total) else 1.0

    def _alike(self, share: float) -> bool:
        """Whether the branches followed tell enough of those that are not, which hold `share` of the mass."""
        shifts = self._shifts()[0]
        return len(shifts) > 1 and share * float(shifts.std(ddof=1)) <= RESOLUTION / 2 * self.tree.range

    def _with_only_children(self, nodes: Ints) -> Ints:
        """Add children that have no sibling, such as the point after an integer: no need to wait for them."""
        tree, level, found = self.tree, nodes, [nodes]
        while len(level):
            level = tree.first[level[tree.last[level] - tree.first[level] == 1]]
            level = level[~tree.ends[level] & ~self._fed[level]]
            found.append(level)
        return np.unique(np.concatenate(found))

    def children(self, nodes: Ints) -> tuple[Ints, Ints]:
        """Index of the parent within `nodes`, and node, of every child of the nodes."""
        counts = self.tree.last[nodes] - self.tree.first[nodes]
        parents = np.repeat(np.arange(len(nodes)), counts)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return parents, self.tree.first[nodes][parents] + offsets

    def update(self, nodes: Ints, logprobs: Floats) -> None:
        """Take the log probabilities of the children of `nodes`, in the order of `children(nodes)`."""
        start = 0
        for node in nodes:
            count = self.tree.last[node] - self.tree.first[node]
            children = slice(self.tree.first[node], self.tree.last[node])
            self.logprobs[children] = self.logprobs[node] + logprobs[start : start + count]
            start += count
        self._fed[nodes] = True

    def outcome(self) -> tuple[Ints, Floats, Floats, float]:
        """Return the nodes that the answers reached come down to, and what each stands for.

        Returns:
            nodes (M,), none above another; mean (M,) and variance (M,) of the numbers beneath; and which part of
            their mass goes on to a valid answer.
        """
        tree, known = self.tree, np.isfinite(self.logprobs)
        ends = np.flatnonzero(known & tree.ends)
        if self._doubted:
            return ends, tree.values[ends], np.zeros(len(ends)), 1.0
        nodes = np.flatnonzero(known & tree.branches)
        values, variances, continued = tree.values[nodes], np.zeros(len(nodes)), 1.0
        followed = self._followed()
        if len(followed):
            shifts, within, continued = self._shifts()
            open_ = tree.open_branches[nodes]
            values[open_] += shifts.mean() * tree.outward[nodes[open_]]
            variances[open_] = within.mean()
            values[np.searchsorted(nodes, followed)] = tree.values[followed] + shifts * tree.outward[followed]
            variances[np.searchsorted(nodes, followed)] = within
        return nodes, values, variances, continued

    def read(self) -> Reading:
        """Mean, spread, mass and most probable label over the answers reached."""
        nodes, values, variances, continued = self.outcome()
        return read_distribution(self.logprobs[nodes], values, self.tree.labels[nodes], variances, continued)


@dataclass(frozen=True)
class Reading:
    """The expected read-out of one image.

    Attributes:
        mean: in the dimension's unit.
        std: in the same unit.
        mass: probability of valid answers, in [0, 1].
        label: index of the most probable label, -1 if nothing was captured.
    """

    mean: float
    std: float
    mass: float
    label: int


def read_distribution(
    logprobs: Floats, values: Floats, labels: Ints, variances: Floats | None = None, continued: float = 1.0
) -> Reading:
    """Mean and spread of values under their normalised probabilities.

    NaN, and label -1, where no probability at all was captured. `variances` are those within each value, and
    `continued` is which part of the probability counts as captured.

    >>> read_distribution(np.log([0.25, 0.25]), np.array([2.0, 4.0]), np.array([1, 1]))
    Reading(mean=3.0, std=1.0, mass=0.5, label=1)
    """
    top = logprobs.max(initial=-np.inf)
    if not np.isfinite(top):
        return Reading(float("nan"), float("nan"), 0.0, -1)
    weights = np.exp(logprobs - top)
    mass = float(np.exp(top) * weights.sum()) * continued
    weights = weights / weights.sum()
    mean = float(weights @ values)
    within = 0.0 if variances is None else float(weights @ variances)
    std = float(np.sqrt(weights @ (values - mean) ** 2 + within))
    by_label = np.bincount(labels, weights=weights)
    return Reading(mean, std, mass, int(by_label.argmax()))
