"""The score of the predicted clean image, step by step, in a plain diffusers call."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import PipelineCallback
from typing_extensions import Self

from .._errors import InputError, ModelError
from ..guidance.types import Noise
from ..pipelines.driving.diffusion import clean_latents, noise_levels, step_count
from ..pipelines.driving.sampler import PipelineSampler
from ..pipelines.driving.stopping import check_stoppable
from ..pipelines.driving.trajectories import Trajectories
from ..scorers import Target, TargetScores, TargetSpec, load_target


class ScoreCallback(PipelineCallback):
    """Watches a target on the clean images that a call predicts half-way, and may end the call early.

    The scheduler is listened to while inside, so use it as a context and as the callback of calls there:
    `with ScoreCallback(pipe, ...) as watch: pipe(prompt, callback_on_step_end=watch)`. Images are decoded by the
    pipeline's own call on a copy of the pipeline that shares its weights. Like all that diffusers calls "interrupt",
    ending early skips the steps that are left; the call then returns the predicted clean image.

    Args:
        pipe: a text-to-image pipeline of one loop.
        target: what to watch (see `load_target`).
        prompts: one per image, where a term compares with them.
        every: look after every so many steps.
        stop: from the step (from 0) and what the target says of the B images to whether to end the call.
        **arguments: of the pipeline's call that decoding depends on, where not its defaults: height, width.

    Attributes:
        history: (step, TargetScores) of each look, of the last call.

    Raises:
        ModelError: the pipeline is not of one loop, or cannot be interrupted although `stop` is given.

    Executed in ``tests/integrations/test_callback.py``.
    """

    tensor_inputs: Any = ["latents"]  # noqa: RUF012  (diffusers reads it from the class)

    def __init__(
        self,
        pipe: DiffusionPipeline,
        target: TargetSpec | Target,
        prompts: Sequence[str] | None = None,
        every: int = 1,
        stop: Callable[[int, TargetScores], bool] | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        check_stoppable(pipe)
        if every < 1:
            raise InputError(f"every: expected at least 1, got {every}")
        if stop is not None and not hasattr(type(pipe), "interrupt"):
            raise ModelError(f"{type(pipe).__name__} has no `interrupt`, by which diffusers ends a call early")
        self.pipe, self.every, self.stop = pipe, every, stop
        self.target = target if isinstance(target, Target) else load_target(target)
        self.prompts = None if prompts is None else list(prompts)
        self.arguments = arguments
        self.history: list[tuple[int, TargetScores]] = []
        self._step: tuple[Any, Any, Any] | None = None

    def __enter__(self) -> Self:
        """Begin to listen to the scheduler."""
        scheduler: Any = self.pipe.components["scheduler"]
        original = scheduler.step

        @functools.wraps(original)
        def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            self._step = (model_output, timestep, sample)
            return original(model_output, timestep, sample, *args, **kwargs)

        vars(scheduler)["step"] = step
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the scheduler as it was."""
        vars(self.pipe.components["scheduler"]).pop("step", None)
        self._step = None

    def callback_fn(
        self, pipeline: Any, step_index: int, timesteps: Any, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Look, as diffusers calls it at the end of a step."""
        if self._step is None:
            raise InputError("ScoreCallback listens only inside its context: with ScoreCallback(pipe, ...) as watch:")
        if step_index == 0:
            self.history = []
        if (step_index + 1) % self.every:
            return callback_kwargs
        scheduler = self.pipe.components["scheduler"]
        output, timestep, sample = self._step
        now, _ = noise_levels(scheduler, timestep, step_index)
        clean = clean_latents(scheduler, output, sample, now).to(callback_kwargs["latents"].dtype)
        scores = self.target(self.decode(clean), self.prompts)
        self.history.append((step_index, scores))
        if self.stop is not None and self.stop(step_index, scores):
            pipeline._interrupt = True
            return {**callback_kwargs, "latents": clean}
        return callback_kwargs

    def decode(self, clean: torch.Tensor) -> Any:
        """Return the pictures of clean latents (B, ...) by the pipeline's own call, with no step left."""
        pipe = copy.copy(self.pipe)
        scheduler = copy.copy(self.pipe.components["scheduler"])
        vars(scheduler).pop("step", None)
        pipe.scheduler = scheduler
        for name in ("image_processor", "video_processor"):  # a guided call around this one listens to them
            if name in vars(pipe):
                vars(pipe)[name] = copy.copy(vars(pipe)[name])
                vars(vars(pipe)[name]).pop("postprocess", None)
        pipe.set_progress_bar_config(disable=True)
        steps = step_count(scheduler)
        base: Any = getattr(type(pipe), "base_class", type(pipe))
        sampler = PipelineSampler(pipe, base, {**self.arguments, "num_inference_steps": steps})
        states = tuple(torch.Generator().get_state() for _ in clean)
        noise = tuple(Noise.of(0) for _ in clean)
        texts = tuple(self.prompts or [" "] * len(clean))
        places = tuple((0, row) for row in range(len(clean)))
        rows = Trajectories(texts, noise, {}, places, clean, clean, steps, steps, {}, states)
        return sampler.decode(rows, clean=True)[0]
