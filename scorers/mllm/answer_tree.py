"""Every valid answer of a dimension, written out by the model's own tokenizer and merged to a tree of tokens.

So "10.000", the minus sign and tokens of several digits need no special case. Where what is left to say moves the
number by less than a thousandth of the range, the tree is cut: with single digits, the third decimal of a 0-to-10
scale is taken to be there and is not looked at.

Answers of a word alone, such as levels, or yes and no, are such a tree too, and small enough to be looked at in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..._errors import ModelError
from ..dimensions import Dimension

RESOLUTION = 1e-3
"""Branches are followed until their answers lie within this part of the range of their middle."""
ALIKE = 1e-2
"""Branches whose answers lie within this part of the range of their middle may be judged by a few of them."""

OTHER = -1
"""Token of an end that stands for every token but its siblings: "1", where "10" is an answer too."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class AnswerTree:
    """Every valid answer of a dimension as a tree of tokens; node 0 is the empty answer.

    Nodes are in breadth-first order: the children of node n are ``first[n] : last[n]``, none for an end.

    Attributes:
        tokens: (nodes,) token id, or `OTHER`; -1 at the root.
        parents: (nodes,) parent, -1 at the root.
        first: (nodes,) first child.
        last: (nodes,) one past the last child.
        values: (nodes,) middle of the answers beneath.
        labels: (nodes,) index of the label at the ends of the tree, -1 where it is still open.
        opened: (nodes,) whether a digit or sign of the number is known; of words, whether it can wait.
        root: the tree as linked nodes.
        cut_height: how many tokens short of an answer's end the tree is cut, 0 for not at all.
        stems: (nodes,) the branch that the node is or grows on, of those known to within `ALIKE`; -1 above them.
        single: (nodes,) whether only one number is beneath.
        reach: (nodes,) how far from the middle of the answers beneath the furthest of them are.
        words: whether answers are words, of which nothing is known before their last token.
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
    reach: Floats
    words: bool = False

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

    >>> from ..dimensions import dimension
    >>> spell = lambda texts: [[ord(character) for character in text] for text in texts]
    >>> tree = answer_tree(spell, dimension("memorability"))
    >>> [chr(token) for token in tree.tokens[tree.first[0] : tree.last[0]]]
    ['v', 'l', 'm', 'h']
    """
    numbers = [_Number(text, float(text)) for text in dim.numbers()]
    root = _Node(numbers[0].value, numbers[-1].value)
    heads = encode(list(dim.labels)) if dim.labels else []
    tails = _shared_tails(encode, dim, heads) if dim.labels else None
    if not dim.labels:
        for number, tokens in zip(numbers, encode([n.text for n in numbers]), strict=True):
            _insert(root, tokens, number, -1)
    elif tails is not None:  # the usual case: each number is written alike after every label
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


def word_tree(
    encode: Callable[[list[str]], list[list[int]]], words: Sequence[Sequence[str]], values: Sequence[float]
) -> AnswerTree:
    """Merge answers of a word each to a tree: the first spelling of each is looked at at once, others as they matter.

    A word counts with its whole probability, the product over its tokens. Where another word goes on from it, as "10"
    does from "1", it counts as far as the answer does not go on so.

    Args:
        encode: token ids of each text, without special tokens.
        words: the spellings of each answer; `labels` of the tree are their places.
        values: what each answer stands for.

    Raises:
        ModelError: the tokenizer makes nothing of a word, or the same of two.

    >>> spell = lambda texts: [[ord(character) for character in text] for text in texts]
    >>> tree = word_tree(spell, [["1"], ["10", "ten"]], [1.0, 10.0])
    >>> tree.values[tree.ends], tree.tokens[tree.ends]
    (array([ 1., 10., 10.]), array([ -1,  48, 110]))
    """
    owners: dict[tuple[int, ...], int] = {}
    for index, spellings in enumerate(words):
        for word, tokens in zip(spellings, encode(list(spellings)), strict=True):
            if not tokens:
                raise ModelError(f"the model's tokenizer makes no token of the word {word!r}")
            other = owners.setdefault(tuple(tokens), index)
            if other != index:
                raise ModelError(f"the model's tokenizer cannot tell {word!r} from {words[other][0]!r}")
    firsts = [tuple(encode([spellings[0]])[0]) for spellings in words]
    at_once = {path[:end] for path in firsts for end in range(len(path))}
    begun = {path[:end] for path in owners for end in range(1, len(path))}
    root = _Node(min(values), max(values))
    for path, index in owners.items():
        ending = (OTHER,) if path in begun else ()
        _insert(root, [*path, *ending], _Number(words[index][0], values[index]), index)
    _cut_heights(root, ())
    tree = _flatten(root, 0, 0)
    paths: list[tuple[int, ...]] = [()]
    for token, parent in zip(tree.tokens[1:].tolist(), tree.parents[1:].tolist(), strict=True):
        paths.append((*paths[parent], token))
    return replace(tree, opened=np.array([path not in at_once for path in paths]), words=True)


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
        np.array([(node.high - node.low) / 2 for _, node, _ in queue]),
    )
