"""A target as a reward: of images for trainers of generators, and of texts for TRL's trainers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .._errors import InputError, ModelError
from ..scorers import Target, TargetSpec, load_target
from .layouts import as_images

Invalid = Literal["nan", "worst", "raise"]
Draw = Callable[[list[str]], Any]
"""From texts to their images, e.g. `lambda texts: pipe(texts).images`."""


@dataclass(frozen=True, eq=False)
class Reward:
    """What images are worth by a target: `reward(images, prompts)` is a float32 tensor (B,), higher is better.

    Made by `as_reward`.
    """

    target: Target
    invalid: Invalid = "nan"

    @property
    def __name__(self) -> str:
        """The target's name, by which trainers report what they ask."""
        return self.target.name

    def __call__(self, images: Any, prompts: Sequence[str] | None = None) -> torch.Tensor:
        """Score B images of any layout (see `as_images`); gradients reach a tensor where the target passes them.

        Raises:
            InputError: not a batch of images, or the target compares with prompts and none are given.
            ModelError: an image has no score, and `invalid` is "raise".
        """
        scores = self.target(as_images(images), None if prompts is None else list(prompts))
        if self.invalid == "raise" and not scores.valid.all():
            reasons = [f"image {i}: {why}" for i, why in enumerate(scores.errors) if why is not None]
            raise ModelError(f"reward '{self.__name__}': no score of {'; '.join(reasons)}")
        if self.invalid == "worst":
            return scores.total.where(scores.valid, self.target.low)
        return scores.total


def as_reward(target: TargetSpec | Target, invalid: Invalid = "nan") -> Reward:
    """Return a target as a reward of images, for any trainer that calls a function of images and prompts.

    Args:
        target: what there should be more of (see `load_target`); its terms count in [0, 1] times their weights.
        invalid: what an image without a score is worth: NaN, which the trainer must leave out; the "worst" total
            that the target's ranges allow; or "raise" an error.

    Raises:
        InputError: a malformed target, or no such policy.

    >>> from cogguided import FakeScorer
    >>> reward = as_reward({FakeScorer("light"): -1})
    >>> reward(torch.ones(2, 4, 5, 3)), reward(["no-such.png"])
    (tensor([-1., -1.]), tensor([nan]))
    >>> as_reward({FakeScorer("light"): -1}, invalid="worst")(["no-such.png"])
    tensor([-1.])
    """
    if invalid not in ("nan", "worst", "raise"):
        raise InputError(f"invalid: expected 'nan', 'worst' or 'raise', got {invalid!r}")
    return Reward(target if isinstance(target, Target) else load_target(target), invalid)


@dataclass(frozen=True, eq=False)
class TRLReward:
    """A target as a reward function of TRL's trainers (`GRPOTrainer`, `RLOOTrainer`); made by `as_trl_reward`."""

    target: Target
    draw: Draw | None = None
    column: str = "image"

    @property
    def __name__(self) -> str:
        """The target's name: TRL reports `rewards/NAME/mean`."""
        return self.target.name

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return the reward of each completion, None (which TRL leaves out) where it has no score.

        Args:
            prompts: as in the data set: texts, or conversations.
            completions: texts, or conversations of one message.
            log_metric: of the trainer; it is told the share without a score, NAME/invalid.
            **columns: of the data set, and whatever else the trainer hands over.

        Raises:
            InputError: the data set has no column of images, or `draw` gave another number.
        """
        texts = [text_of(completion) for completion in completions]
        if self.draw is not None:
            images, asked = self.draw(texts), [text_of(prompt) for prompt in prompts]
        elif self.column in columns:
            images, asked = columns[self.column], texts
        else:
            known = ", ".join(sorted(columns)) or "none"
            raise InputError(f"reward '{self.__name__}': no column '{self.column}' in the data set (it has: {known})")
        if len(images) != len(texts):
            raise InputError(f"draw: expected one image a text ({len(texts)}), got {len(images)}")
        scores = self.target(as_images(images), asked)
        if log_metric is not None:
            log_metric(f"{self.__name__}/invalid", float((~scores.valid).float().mean()))
        pairs = zip(scores.total.tolist(), scores.valid.tolist(), strict=True)
        return [value if ok else None for value, ok in pairs]


def as_trl_reward(target: TargetSpec | Target, draw: Draw | None = None, column: str = "image") -> TRLReward:
    """Return a target as a reward function for TRL's trainers, in one of two ways.

    With `draw`, a completion is a text to draw from, and its reward what the target says of the image; terms that
    compare with a text, such as "clip", compare with the data set's prompt, so that a rewriter cannot drift from it.
    Without, the images are a column of the data set, and its text is compared with them, as in captioning.

    Args:
        target: what there should be more of (see `load_target`).
        draw: from texts to their images.
        column: of the data set, with one image a row, where there is no `draw`.

    Raises:
        InputError: no `draw`, and the target does not look at texts, so every completion would get the same reward.

    >>> from cogguided import FakeScorer
    >>> reward = as_trl_reward(FakeScorer("light"), draw=lambda texts: torch.ones(len(texts), 3, 4, 5))
    >>> reward(prompts=["a face"], completions=[[{"role": "assistant", "content": "a happy face"}]])
    [1.0]
    """
    found = target if isinstance(target, Target) else load_target(target)
    if draw is None and not found.needs_prompt:
        raise InputError(
            f"'{found.name}' does not look at texts, so each completion of an image would get the same reward: pass "
            "draw=, which makes images of the completions, or a target with 'clip'"
        )
    return TRLReward(found, draw, column)


def text_of(part: Any) -> str:
    """Return the text of a prompt or completion: of the last message, where it is a conversation.

    >>> text_of([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a face"}]}])
    'a face'
    """
    content = part if isinstance(part, str) else part[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(piece["text"] for piece in content if piece["type"] == "text")
