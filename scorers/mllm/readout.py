"""From next-token distributions to a score: the mean over the tree of valid answers.

A valid answer is a label of the dimension, a space, and a number of its range with three decimals
("medium 5.577"); label and number need not agree, since the number alone is the score. The *expected*
read-out is the mean of the model's own distribution over these answers. The mean of a judge's distribution
beats its mode in most published comparisons and has no ties (Wang et al. 2025, arXiv 2503.03064; Q-Align,
Wu et al. 2023, arXiv 2312.17090, does it for level names).

Where the digits before a cut of the tree (see `answer_tree`) were not sure to be followed by more of a number, that
would skew the weights, and the tree is followed to its leaves.

A number that is known in part is followed until it is known, unless all that are left together could not move the
mean by more than `CUT` of the range, wherever in their intervals their answers lie: these are taken to lie in the
middle.

Of branches whose answers lie within a hundredth of the range of their middle, the likeliest are followed. The others
are taken to lie, from their middles, where those of the followed do on average. How many are followed depends on
how much these differ: until twice the standard error that they leave the mean is at most `CUT` of the range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .answer_tree import AnswerTree, Floats, Ints
from .parsing import parse_answer as parse_answer

CUT = 5e-4
"""So much of the range the mean may be out by for what was not followed; or of the mass be left out, where nothing of
the number is known."""
CUT_WORDS = 5e-5
"""Mass that is left out at most where answers are words."""
UNPROVEN = 0.1
"""What a number that is known in part is taken to move the mean by at least: it may yet turn out to be none."""
FEW = 4
"""How many branches are followed before it is asked whether they are enough."""
FEW_OTHERS = 2
"""How many of these are not the likeliest, but spread over the others."""
SURE = 0.99
"""The tree may be cut if numbers begun went on as numbers with this probability."""
MAX_NODES = 512
"""Nodes that one search feeds in one pass."""


class AnswerSearch:
    """Best-first walk over an `AnswerTree`: which nodes to feed next, and what is known so far.

    The caller feeds the nodes of `next_nodes()` to the model (each after its parent) and hands the log
    probabilities of their children to `update`, until `next_nodes()` is empty. Then the branches left out
    hold at most `CUT` of the mass that was captured, and could move the mean by `CUT` of the range at most;
    those judged by others, by `RESOLUTION` at most.

    Attributes:
        tree: the answers; in the course of the search it may become `tree.full`.
        logprobs: (nodes,) log probability that the answer starts with the node; -inf where not known.
    """

    def __init__(self, tree: AnswerTree) -> None:
        self.tree = tree
        self.logprobs = np.full(len(tree.tokens), -np.inf)
        self.logprobs[0] = 0.0
        self._fed = np.zeros(len(tree.tokens), dtype=bool)
        self._doubted = tree.words  # whether numbers begun did not surely go on: nothing is taken to be there

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
        open_ = np.flatnonzero(np.isfinite(self.logprobs))
        open_ = open_[tree.ends[open_] | ~self._fed[open_]]
        mass = np.exp(self.logprobs[open_] - self.logprobs[open_].max(initial=-np.inf))
        settled = tree.ends[open_] if self._doubted else tree.ends[open_] | tree.branches[open_]
        pending, held = open_[~settled], mass[~settled]
        cut = CUT_WORDS if tree.words else CUT
        known = tree.opened[pending] & (not self._doubted)
        reach = np.maximum(tree.reach[pending] / tree.range, UNPROVEN)
        blur = held * np.where(known, reach, 1.0)  # by so much could the mean be out without them
        if blur.sum() <= cut * (mass[settled].sum() + held[known].sum()) and settled.any():
            if self._doubted:
                return pending[:0]
            more = np.flatnonzero(settled & tree.open_branches[open_])
            more = more[np.argsort(-mass[more])]
            return np.sort(open_[more[self._sample(mass[more], mass.sum())]][:MAX_NODES])
        order = np.argsort(blur)
        # Half of what may be cut is cut at this depth, the rest is kept for the depths to come.
        chosen = pending[order][np.cumsum(blur[order]) > cut / 2 * mass.sum()]
        return np.sort(self._with_only_children(chosen[-MAX_NODES:]))

    def _sample(self, masses: Floats, total: float) -> Ints:
        """Which of the branches that are not followed, by falling mass (M,), still should be.

        First the likeliest, and some from among the others, for these may lie elsewhere in their branches.
        """
        if masses.sum() <= CUT * total:
            return np.arange(0)
        followed = self._followed()
        if not len(followed):
            top = np.arange(min(FEW - FEW_OTHERS, len(masses)))
            rest = masses[len(top) :].cumsum()
            marks = (np.arange(FEW_OTHERS) + 0.5) / FEW_OTHERS * (rest[-1] if len(rest) else 0.0)
            return np.unique(np.append(top, len(top) + np.searchsorted(rest, marks)))[: len(masses)]
        shifts = self._shifts()[0]
        own = np.exp(self.logprobs[followed])
        spread = float(np.sqrt(own @ (shifts - shifts.mean()) ** 2 / own.sum()))
        left = np.append(masses[::-1].cumsum()[::-1], 0.0)  # if 0, 1, ... of them are followed
        squares = np.append((masses[::-1] ** 2).cumsum()[::-1], 0.0)
        counts = len(followed) + np.arange(len(left))
        error = 2 * spread / self.tree.range * np.sqrt(left**2 / counts + squares) / total
        return np.arange((error > CUT).sum())

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
        # a node may come with its child: one after the other, each from its parent's
        start = 0
        for node, first, last in zip(nodes, self.tree.first[nodes], self.tree.last[nodes], strict=True):
            self.logprobs[first:last] = self.logprobs[node] + logprobs[start : start + last - first]
            start += last - first
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
        left = known & tree.opened & (tree.stems < 0) & ~self._fed  # known in part, and left so
        nodes = np.flatnonzero((known & tree.branches) | left)
        values, variances, continued = tree.values[nodes], np.where(left, tree.reach**2 / 3, 0.0)[nodes], 1.0
        followed = self._followed()
        if len(followed):
            shifts, within, continued = self._shifts()
            open_ = tree.open_branches[nodes]
            values[open_] += shifts.mean() * tree.outward[nodes[open_]]
            variances[open_] = within.mean()
            values[np.searchsorted(nodes, followed)] = tree.values[followed] + shifts * tree.outward[followed]
            variances[np.searchsorted(nodes, followed)] = within
        return nodes, values, variances, continued

    def distribution(self) -> Distribution:
        """What the model believes, over the answers reached."""
        nodes, values, variances, continued = self.outcome()
        weights, mass = _shares(self.logprobs[nodes], continued)
        if weights is None:
            return Distribution(values[:0], values[:0], values[:0], 0.0)
        order = np.argsort(values)
        return Distribution(values[order], weights[order], np.sqrt(variances[order]), mass)

    def read(self) -> Reading:
        """Mean, spread, mass and most probable label over the answers reached."""
        nodes, values, variances, continued = self.outcome()
        return read_distribution(self.logprobs[nodes], values, self.tree.labels[nodes], variances, continued)


@dataclass(frozen=True, eq=False)
class Distribution:
    """A judge's own distribution over its answers about one image, from the lowest answer to the highest.

    Attributes:
        values: (M,) in the dimension's unit; answers that lie close together may be one of them.
        probabilities: (M,) of the valid answers, summing to 1; empty where no valid answer had any.
        stds: (M,) spread of the answers behind each value.
        mass: probability of valid answers, in [0, 1].
    """

    values: Floats
    probabilities: Floats
    stds: Floats
    mass: float


@dataclass(frozen=True)
class Reading:
    """The expected read-out of one image.

    Attributes:
        mean: in the dimension's unit.
        std: in the same unit.
        mass: probability of valid answers, in [0, 1].
        label: index of the most probable label, -1 if nothing was captured or answers have no labels.
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
    weights, mass = _shares(logprobs, continued)
    if weights is None:
        return Reading(float("nan"), float("nan"), 0.0, -1)
    mean = float(weights @ values)
    within = 0.0 if variances is None else float(weights @ variances)
    std = float(np.sqrt(weights @ (values - mean) ** 2 + within))
    by_label = np.bincount(labels + 1, weights=weights)
    return Reading(mean, std, mass, int(by_label.argmax()) - 1)


def _shares(logprobs: Floats, continued: float) -> tuple[Floats | None, float]:
    """Probabilities scaled to a sum of one, and what that sum was; None and 0 where there is none at all."""
    top = logprobs.max(initial=-np.inf)
    if not np.isfinite(top):
        return None, 0.0
    weights = np.exp(logprobs - top)
    return weights / weights.sum(), float(np.exp(top) * weights.sum()) * continued
