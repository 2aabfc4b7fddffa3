"""What a guidance works with: requests and jobs, candidates, a sampler that makes images, a budget."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from PIL import Image

from .._errors import InputError

if TYPE_CHECKING:
    from .run import Run


REJECTED = "cogguided_rejected"
"""Key of a picture's `info` that says why it is none: such a candidate is not scored and never wins."""
SAID = "cogguided_base_output"
"""Key of a picture's `info` that has what the base pipeline's output said of it beside the picture."""


class Interrupted(KeyboardInterrupt):
    """The user's own callback stopped the generator (`pipe._interrupt = True`); `images` are not drawn to the end."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        super().__init__("stopped by the step callback")
        self.images = list(images)


@dataclass(eq=False)
class Candidate:
    """One image with everything that is known of it, and enough to make it again.

    Attributes:
        image: RGB image as the pipeline gave it.
        prompt: the wording it was drawn from.
        seed: its own torch seed; None where a used generator was passed in.
        request: index of the user's prompt that it answers.
        score: total of the target, higher is better (terms in [0, 1] times their weights); NaN if there is no
            target or the candidate is not valid.
        scores: raw value of each term in that scorer's own range; NaN where not valid.
        stds: spread of each term's own belief, where the scorer tells one.
        valid: False where a term that counts could not be read; such a candidate never wins.
        error: why it is not valid.
        chosen: whether it is among the images that were returned.
        origin: which guidance made it, and its place there.
        seconds: "sample" and "score", wall-clock, its share of the batch.
        batch: prompts and seeds that were sampled together with it, and its place ("index") among them; or where
            it stands in the record's trace ("entry" and "index").
        finished: False for a draft: an image of fewer steps, or the clean image that was predicted half-way. It
            is kept and scored, and wins only where nothing was finished.
        held_back: why it cannot win although it has a score, e.g. its wording strayed from what was asked for.
    """

    image: Image.Image
    prompt: str
    seed: int | None
    request: int = 0
    score: float = math.nan
    scores: dict[str, float] = field(default_factory=dict)
    stds: dict[str, float] = field(default_factory=dict)
    valid: bool = True
    error: str | None = None
    chosen: bool = False
    origin: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)
    finished: bool = True
    held_back: str | None = None

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the image."""
        file = io.BytesIO()
        self.image.save(file, "PNG")
        return file.getvalue()

    @property
    def base_output(self) -> dict[str, Any]:
        """What the base pipeline's output said of this image beside its pixels, e.g. nsfw_content_detected."""
        said: dict[str, Any] = self.image.info.get(SAID, {})
        return said

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Key to sort by, best first: valid and finished ones by falling score, then drafts, then the others."""
        return not self.valid, not self.finished, -self.score if math.isfinite(self.score) else 0.0


@dataclass(frozen=True, eq=False)
class Noise:
    """Initial noise of an image.

    Attributes:
        mix: (seed, weight) of standard normal draws which are added up; the squares of the weights sum to 1.
        latents: used in their place, shape of one image's latents, as the pipeline's loop holds them.

    >>> Noise.of(7).mix
    ((7, 1.0),)
    """

    mix: tuple[tuple[int, float], ...]
    latents: torch.Tensor | None = None

    @classmethod
    def of(cls, seed: int) -> Noise:
        """Return the noise that a plain call draws from a seed."""
        return cls(((seed, 1.0),))

    @property
    def seed(self) -> int:
        """The seed that weighs most: the random generator of the image goes on from it."""
        return max(self.mix, key=lambda part: abs(part[1]))[0]


class Rows(Protocol):
    """B images somewhere between noise and picture, in step."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """What each is drawn from."""
        ...

    @property
    def done(self) -> int:
        """Steps taken."""
        ...

    @property
    def steps(self) -> int:
        """Steps in all; 0 before the first."""
        ...

    def select(self, rows: Sequence[int]) -> Rows:
        """Return some rows, in that order, repetitions allowed."""
        ...


class Sampler(Protocol):
    """The generator as a guidance sees it: no model family, no prompt encoding, no latents."""

    @property
    def nfe(self) -> int:
        """Denoiser evaluations so far: one per image and pass, two with classifier-free guidance."""
        ...

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Make one image per prompt, in one batch; image i depends on prompt i and seed i only."""
        ...

    def begin(
        self, prompts: Sequence[str], noise: Sequence[Noise], overrides: Mapping[str, Any] | None = None
    ) -> Rows:
        """Return B images before their first step; `overrides` are arguments of the call, e.g. fewer steps."""
        ...

    def advance(self, rows: Any, until: float, eta: float = 0.0, seeds: Sequence[int] | None = None) -> Rows:
        """Take the steps up to a part of the trajectory, in one batch.

        Args:
            rows: of this sampler.
            until: 0 to 1; one step is taken at least.
            eta: fresh noise at each step: 0 as the scheduler would, 1 as much as the reverse process has.
            seeds: new seeds of the rows' generators, so that copies of one row part.
        """
        ...

    def decode(
        self, rows: Any, clean: bool = False, quick: bool = False
    ) -> tuple[list[Image.Image], list[dict[str, Any]]]:
        """Make the images of finished rows, or with `clean` those predicted half-way, and what replays each.

        `quick`: the images are only looked at, and may differ by rounding from what the pipeline would make.
        """
        ...

    def join(self, parts: Sequence[Any]) -> Rows:
        """Return the rows of several at the same step as one."""
        ...

    def latents(self, rows: Any) -> torch.Tensor:
        """Return the latents of rows (B, ...); before the first step, their noise."""
        ...

    def put(self, rows: Any, latents: torch.Tensor) -> Rows:
        """Return rows with other latents (B, ...)."""
        ...

    def gradient(self, rows: Any, value: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `value` says (B,) of images (B, 3, H, W) in [0, 1], and its gradient in the latents."""
        ...


@dataclass(frozen=True)
class Budget:
    """How much a call may spend, scorer included; None: no limit.

    Attributes:
        seconds: wall-clock.
        nfe: network evaluations of one image: denoiser passes (two a step with classifier-free guidance; a
            backward pass counts as two) and one for each term of the target that scores it.

    >>> Budget.parse("30s"), Budget.parse("400nfe"), Budget.parse(30) == Budget(seconds=30)
    (Budget(seconds=30.0, nfe=None), Budget(seconds=None, nfe=400.0), True)
    """

    seconds: float | None = None
    nfe: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("nfe", self.nfe)):
            if value is not None and not value > 0:
                raise InputError(f"budget: {name} must be above 0, got {value}")

    @classmethod
    def parse(cls, spec: Budget | float | str | None) -> Budget:
        """Read a budget: a number or "30s" is seconds, "400nfe" network evaluations.

        Raises:
            InputError: anything else.
        """
        if isinstance(spec, Budget):
            return spec
        if spec is None:
            return cls()
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(s|nfe)?\s*", str(spec))
        try:
            amount = float(match[1]) if match else math.nan
        except ValueError:
            amount = math.nan
        if match is None or not math.isfinite(amount):
            raise InputError(f"budget: expected seconds (30, '30s') or evaluations ('400nfe'), got {spec!r}")
        return cls(nfe=amount) if match[2] == "nfe" else cls(seconds=amount)


@dataclass(frozen=True)
class Request:
    """One prompt of the user's and the seed of its first image."""

    index: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class Job:
    """One image to be made for a request: the wording to draw from, and the seed."""

    request: Request
    prompt: str
    seed: int
    origin: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Guidance(Protocol):
    """A way of getting better images: any object with a name that makes candidates through a run."""

    @property
    def name(self) -> str:
        """Its name in records and saved folders."""
        ...

    def __call__(self, run: Run) -> None:
        """Make candidates for `run.requests` by `run.make`; the best `run.keep` of each are returned."""
        ...
