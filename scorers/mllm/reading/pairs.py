"""Which of two images is better: a model sees both, in both orders, and answers by a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...base import ImageInput, Scores
from ...images import load_images, name_of
from ..core import Core
from ..options import ReadOptions
from .batch import Ask, Batch


def compare_pairs(
    core: Core,
    name: str,
    options: ReadOptions,
    first: ImageInput,
    second: ImageInput,
    prompts: Sequence[str] | None = None,
) -> Scores:
    """Probability that the first of each of B pairs is better in a dimension, the mean of both orders.

    Models prefer one place to the other (Zheng et al. 2023, arXiv 2306.05685); the mean of both orders does not. Half
    of what the orders differ by is in `std`. Tensors with a graph, first and second alike, keep it.

    Executed examples are in ``tests/scorers/test_comparing.py``.
    """
    ask: Ask = ("pairwise", name)
    count = len(first)
    sides: list[Any] = [load_images(images, on_error="nan") for images in (first, second)]
    shown: dict[int, tuple[Any, Any]] = {}
    errors: list[str | None] = []
    for order in ((0, 1), (1, 0)):
        for pair in range(count):
            one, other = (sides[side][0][pair] for side in order)
            why = sides[0][1][pair] or sides[1][1][pair]
            if why is None:
                shown[len(errors)] = (one, other)
            errors.append(why)
    names = [f"{name_of(first[pair], pair)} and {name_of(second[pair], pair)}" for pair in range(count)] * 2
    texts = None if prompts is None else [*prompts, *prompts]
    batch = Batch(core, shown, [ask], texts, names, options)
    with torch.inference_mode():
        said, passes = batch.read(errors)
    values = torch.full((2 * count,), torch.nan)
    mass = torch.full((2 * count,), torch.nan)
    for row, answers in said.items():
        values[row], mass[row] = answers[ask].value, answers[ask].mass
        errors[row] = answers[ask].error
    tracked = torch.is_grad_enabled() and any(getattr(s, "requires_grad", False) for s in (first, second))
    if tracked and isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        pixels = {row: (first[row], second[row]) for row in range(count)}
        pixels |= {count + row: (second[row], first[row]) for row in range(count)}
        for one_pass in passes:
            zeros = batch.gradients(one_pass, pixels)[ask]
            rows = torch.tensor(one_pass.rows, device=zeros.device)
            values = values.to(zeros.device).index_add(0, rows, zeros)
    there, back = values[:count], 1 - values[count:]
    gap = (there - back).detach().abs() / 2
    reasons = [errors[pair] or errors[count + pair] for pair in range(count)]
    return Scores((there + back) / 2, gap, None, None, (mass[:count] + mass[count:]) / 2, reasons)
