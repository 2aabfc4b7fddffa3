"""A scorer without a model, for tests: yours and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..._errors import InputError
from ..base import ImageInput, Scores, check_prompts
from ..images import check_images, load_images, to_tensor

ScoreFn = Callable[[torch.Tensor], torch.Tensor]


def mean_brightness(pixels: torch.Tensor) -> torch.Tensor:
    """Mean over the pixels of images (B, 3, H, W) in [0, 1]; (B,) in [0, 1].

    >>> mean_brightness(torch.full((1, 3, 2, 2), 0.25)).item()
    0.25
    """
    return pixels.float().mean(dim=(1, 2, 3))


class FakeScorer:
    """Score images by a plain function of their pixels: quick, deterministic, offline, differentiable.

    `fn` maps a float tensor (B, 3, H, W) in [0, 1] to (B,) floats and sees one image at a time, so that
    images of any size can be mixed; by default it is `mean_brightness`. `calls` counts calls and
    `num_scored` images, for tests which check what was scored.

    >>> scorer = FakeScorer(name="darkness", fn=lambda pixels: 1 - mean_brightness(pixels))
    >>> scorer(torch.zeros(2, 3, 4, 4)).values
    tensor([1., 1.])
    """

    def __init__(
        self,
        name: str = "fake",
        low: float = 0.0,
        high: float = 1.0,
        fn: ScoreFn | None = None,
        needs_prompt: bool = False,
        differentiable: bool = True,
    ) -> None:
        if not low < high:
            raise InputError(f"low must be below high, got {low} and {high}")
        self.name = name
        self.low = low
        self.high = high
        self.fn = mean_brightness if fn is None else fn
        self.needs_prompt = needs_prompt
        self.differentiable = differentiable
        self.calls = 0
        self.num_scored = 0

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images; a broken one is NaN with its reason.

        Raises:
            InputError: not a batch of images, or `prompts` missing although `needs_prompt`.
        """
        check_images(images)
        if self.needs_prompt:
            check_prompts(prompts, len(images), self.name)
        self.calls += 1
        self.num_scored += len(images)
        if isinstance(images, torch.Tensor):
            values = [self.fn(image[None]) for image in images]
            errors: list[str | None] = [None] * len(values)
        else:
            pictures, errors = load_images(images, on_error="nan")
            nan = torch.full((1,), torch.nan)
            values = [nan if picture is None else self.fn(to_tensor([picture])) for picture in pictures]
        if not values:
            return Scores(torch.empty(0))
        joined = torch.cat(values) if self.differentiable else torch.cat(values).detach()
        reasons = [
            error if error is not None or ok else f"image {index}: score is not finite"
            for index, (error, ok) in enumerate(zip(errors, (~joined.isnan()).tolist(), strict=True))
        ]
        return Scores(joined, errors=reasons)

    def to(self, device: torch.device | str) -> FakeScorer:
        """Return itself: there are no weights to move."""
        return self
