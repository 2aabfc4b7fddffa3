"""Partly denoised images of any diffusers pipeline: stop after a step, look at the clean image, go on.

The pipeline's own call is run, piece by piece. It is entered with given latents by way of `prepare_latents`, its
scheduler is told which steps are left, and it is left again from within `scheduler.step`; with no step left the call
does nothing but decode. So it works on whatever follows diffusers' conventions, without a line on any family.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from ..._errors import InputError, ModelError
from ...guidance.types import Noise
from .diffusion import clean_latents, noise_levels, step_count, stochastic_step
from .stopping import WHOLE, check_stoppable, entry_scale, global_state, preparer


@dataclass(frozen=True, eq=False)
class Trajectories:
    """B images somewhere between noise and picture.

    Attributes:
        prompts: one per row.
        latents: (B, ...) as the pipeline's loop holds them, or None before the first step.
        clean: (B, ...) predicted clean latents at the last step that was taken, or None.
        noise: what each row started from.
        done: scheduler steps taken.
        steps: scheduler steps in all; 0 before the first.
        state: the scheduler's attributes after the last step.
        generators: state of each row's random generator.
        overrides: arguments of the pipeline's call in which these rows differ from the user's own.
        rows: where each row stands in the sampler's trace: (entry, place there).
        settings: attributes of the pipeline that the user's step callback has changed, such as its guidance scale.
        scale: what the call multiplies prepared latents by before its loop holds them.
    """

    prompts: tuple[str, ...]
    noise: tuple[Noise, ...]
    overrides: dict[str, Any]
    rows: tuple[tuple[int, int], ...]
    latents: torch.Tensor | None = None
    clean: torch.Tensor | None = None
    done: int = 0
    steps: int = 0
    state: dict[str, Any] | None = None
    generators: tuple[torch.Tensor, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def finished(self) -> bool:
        """Whether every step has been taken."""
        return self.steps > 0 and self.done == self.steps

    def select(self, rows: Sequence[int]) -> Trajectories:
        """Return some of the rows, in that order; a row may be taken more than once."""
        index = list(rows)
        return replace(
            self,
            prompts=tuple(self.prompts[i] for i in index),
            noise=tuple(self.noise[i] for i in index),
            rows=tuple(self.rows[i] for i in index),
            latents=None if self.latents is None else self.latents[index],
            clean=None if self.clean is None else self.clean[index],
            state=None if self.state is None else _map_rows(self.state, len(self), lambda t: t[index]),
            generators=tuple(self.generators[i] for i in index) if self.generators else (),
        )

    @staticmethod
    def join(parts: Sequence[Trajectories]) -> Trajectories:
        """Return the rows of several, which must be at the same step of the same schedule.

        Raises:
            InputError: they are not.
        """
        first = parts[0]
        if len(parts) == 1:
            return first
        for part in parts:
            if (part.done, part.steps, part.overrides) != (first.done, first.steps, first.overrides):
                raise InputError(
                    f"trajectories at step {part.done} of {part.steps} with {part.overrides} cannot be joined with "
                    f"those at {first.done} of {first.steps} with {first.overrides}"
                )
        state = None
        if first.state is not None:
            states = [part.state or {} for part in parts]
            state = _join_states(states, [len(part) for part in parts])
        return replace(
            first,
            prompts=sum((p.prompts for p in parts), ()),
            noise=sum((p.noise for p in parts), ()),
            rows=sum((p.rows for p in parts), ()),
            latents=None if first.latents is None else torch.cat([p.latents for p in parts if p.latents is not None]),
            clean=None if first.clean is None else torch.cat([p.clean for p in parts if p.clean is not None]),
            state=state,
            generators=sum((p.generators for p in parts), ()),
        )


class _Stop(Exception):
    """Carries what was reached out of the pipeline's call."""


@dataclass
class Leg:
    """One run of a pipeline's call over some of the steps, and what came of it: `reached`, or `images` at the end.

    Args:
        start: where to begin.
        until: part of the trajectory to have behind at the end, 0 to 1; None: only the initial noise is wanted.
        eta: noise put in at each step, 0 (none of ours) to 1 (as much as the reverse process has).
        clean: leave no step and go on from the predicted clean latents, to decode them.
        relayed: where there is nothing to decode without a step, as the call decodes what one returned beside the
            sample (as consistency models do): let it take one that hands the latents on as they are.
    """

    start: Trajectories
    until: float | None
    eta: float = 0.0
    clean: bool = False
    relayed: bool = False
    reached: Trajectories | None = None
    images: list[Image.Image] = field(default_factory=list)

    def generators(self) -> list[torch.Generator]:
        """One generator per row, in the state in which the row left it."""
        made = [torch.Generator("cpu") for _ in self.start.prompts]
        for generator, noise in zip(made, self.start.noise, strict=True):
            generator.manual_seed(noise.seed)
        return made


@contextmanager
def on_leg(
    pipe: DiffusionPipeline, leg: Leg, generators: list[torch.Generator], takes_callback: bool = False
) -> Iterator[_Hooks]:
    """Let the pipeline's next call run over a leg only; `leg.reached` then has what came of it.

    With `takes_callback`, the call must be given `callback_on_step_end=hooks.callback(the user's own)`: it is left
    from there, so that the user's callback sees the last step too.

    Raises:
        ModelError: the pipeline or its scheduler does not follow diffusers' conventions.
    """
    check_stoppable(pipe)
    scheduler: Any = pipe.components["scheduler"]
    before = dict(vars(scheduler))
    try:
        hooks = _Hooks(pipe, scheduler, leg, generators)
        hooks.in_callback = takes_callback
        hooks.attach()
        yield hooks
    except _Stop:
        pass
    finally:
        pipe.__dict__.pop(preparer(pipe), None)
        vars(scheduler).clear()
        vars(scheduler).update(before)


class _Hooks:
    """What stands in for `prepare_latents`, `set_timesteps`, `set_begin_index` and `step` on a leg."""

    def __init__(self, pipe: DiffusionPipeline, scheduler: Any, leg: Leg, generators: list[torch.Generator]) -> None:
        self.pipe, self.scheduler, self.leg, self.generators = pipe, scheduler, leg, generators
        self.done = leg.start.done
        self.scale = leg.start.scale
        self.stop_at = 0
        self.in_callback = False
        self.total = 0
        self.prepared: Any = None
        self.began = torch.get_rng_state()
        self.changed: dict[str, Any] = {}

    def attach(self) -> None:
        own = self.scheduler
        prepare: Any = preparer(self.pipe)
        self.pipe.__dict__[prepare] = self._wrap(getattr(self.pipe, prepare), self._prepare_latents)
        vars(own)["set_timesteps"] = self._wrap(own.set_timesteps, self._set_timesteps)
        vars(own)["step"] = self._wrap(own.step, self._step)
        if hasattr(own, "set_begin_index") and self.leg.start.state is not None:
            vars(own)["set_begin_index"] = lambda begin_index=0: None  # its state says where it is

    @staticmethod
    def _wrap(original: Any, hook: Any) -> Any:
        @functools.wraps(original)  # pipelines look at the signature of `step`
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return hook(original, *args, **kwargs)

        return wrapped

    def callback(self, own: Any) -> Any:
        """The user's step callback, or None, with steps counted over the whole trajectory; it ends the leg."""

        def on_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            told: dict[str, Any] = {}
            if own is not None:
                before = dict(vars(pipe))
                told = own(pipe, self.leg.start.done + step, timestep, tensors) or {}
                self._note_changes(before, told)
            if self.leg.reached is not None:
                latents = told.get("latents", self.leg.reached.latents)
                settings = {**self.leg.start.settings, **self.changed}
                self.leg.reached = replace(self.leg.reached, latents=latents, settings=settings)
                raise _Stop
            return told

        return on_step_end

    def _note_changes(self, before: dict[str, Any], told: dict[str, Any]) -> None:
        now = vars(self.pipe)
        if now.get("_interrupt"):
            raise KeyboardInterrupt
        plain = (int, float, str, bool, type(None), dict)
        self.changed |= {
            k: v for k, v in now.items() if isinstance(v, plain) and (k not in before or before[k] is not v)
        }
        others = sorted(set(told) - {"latents"})
        if others and self.stop_at < self.total:
            raise ModelError(
                f"callback_on_step_end changes {others}, which cannot be carried over where images are looked at "
                "half-way: use guidance that makes whole images, such as BestOfN"
            )

    def _check_drawn(self, before: torch.Tensor, like: torch.Tensor, what: str) -> None:
        """Check that nothing came from torch's global state, which rows on their own cannot have again."""
        if not torch.equal(before, global_state(like)):
            raise ModelError(
                f"{type(self.pipe).__name__} cannot be stopped half-way: {what} from torch's global state in place "
                f"of the generators; {WHOLE}"
            )

    def _prepare_latents(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        start = self.leg.start
        vars(self.pipe).update(start.settings)
        self._check_drawn(self.began, torch.empty(0), "what it does before its first step draws")
        out, drawn = self._initial(original, args, kwargs)
        latents: torch.Tensor | None = drawn
        if start.latents is not None:
            latents = start.clean if self.leg.clean else start.latents
            if latents is not None and start.scale != 1:
                latents = latents / start.scale
            for generator, state in zip(self.generators, start.generators, strict=True):
                generator.set_state(state)
        assert latents is not None
        self.prepared = latents
        if self.leg.until is None:
            self.leg.reached = replace(start, latents=latents, generators=self._states())
            raise _Stop
        return (latents, *out[1:]) if isinstance(out, tuple) else latents

    def _initial(self, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, torch.Tensor]:
        """Run `prepare_latents`, once for each ingredient of the rows' noise."""
        bound = inspect.signature(original).bind(*args, **kwargs)
        if "generator" not in bound.arguments:
            raise ModelError(f"{type(self.pipe).__name__}.{preparer(self.pipe)} takes no generator")
        start = self.leg.start
        out: Any = None
        latents: torch.Tensor | None = None
        for part in range(max(len(noise.mix) for noise in start.noise)):
            for generator, noise in zip(self.generators, start.noise, strict=True):
                generator.manual_seed(noise.mix[min(part, len(noise.mix) - 1)][0])
            bound.arguments["generator"] = self.generators
            made = original(*bound.args, **bound.kwargs)
            drawn = made[0] if isinstance(made, tuple) else made
            weights = [noise.mix[part][1] if part < len(noise.mix) else 0.0 for noise in start.noise]
            scaled = drawn * _column(weights, drawn) if any(w != 1.0 for w in weights) else drawn
            latents = scaled if latents is None else latents + scaled
            out = made if out is None else out
        assert latents is not None
        given = [noise.latents for noise in start.noise]
        if any(tensor is not None for tensor in given):
            latents = torch.stack(
                [row if own is None else own.to(row) for row, own in zip(latents, given, strict=True)]
            )
        return out, latents

    def _set_timesteps(self, original: Any, *args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        own, start, leg = self.scheduler, self.leg.start, self.leg
        total = step_count(own)
        self.stop_at = total if leg.until is None else max(1, min(total, round(leg.until * total)))
        if start.state is not None:
            if total != start.steps:
                raise InputError(f"the trajectories have {start.steps} steps, the call {total}")
            vars(own).update({name: _copy(value) for name, value in start.state.items()})
            if leg.clean:
                self.done = total
            if leg.relayed:
                self.done = total - 1
        self.total = total
        self.timesteps = own.timesteps
        if self.done >= self.stop_at and not (leg.clean or start.finished):
            raise InputError(f"already at step {self.done} of {total}, beyond {leg.until:.0%} of it")
        own.timesteps = own.timesteps[self.done :]

    def _step(self, original: Any, model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        own = self.scheduler
        own.timesteps = self.timesteps  # whole, as schedulers look their place up in it
        if self.done == 0 and not self.leg.relayed:
            self.scale = entry_scale(self.prepared, sample)
        if self.leg.relayed:
            told = {"prev_sample": sample, "denoised": sample, "pred_original_sample": sample}
            return (sample, sample) if kwargs.get("return_dict") is False else SimpleNamespace(**told)
        now, after = noise_levels(own, timestep, self.done)
        clean = clean_latents(own, model_output, sample, now)
        state = global_state(sample)
        result = original(model_output, timestep, sample, *args, **kwargs)
        self._check_drawn(state, sample, f"{type(own).__name__} draws")
        previous = result[0] if isinstance(result, tuple) else result.prev_sample
        if self.leg.eta > 0:
            previous = stochastic_step(sample, clean, now, after, self.leg.eta, self.generators).to(previous.dtype)
            result = (previous, *result[1:]) if isinstance(result, tuple) else _with_previous(result, previous)
        self.done += 1
        if self.done < self.stop_at:
            return result
        self.leg.reached = replace(
            self.leg.start,
            latents=previous,
            clean=clean.to(previous.dtype),
            done=self.done,
            steps=self.total,
            state=self._state(),
            generators=self._states(),
            scale=self.scale,
        )
        if self.in_callback:
            return result
        raise _Stop

    def _state(self) -> dict[str, Any]:
        """The scheduler's attributes, but for what we put there and what its configuration says."""
        ours = {"step", "set_timesteps", "set_begin_index"}
        kept = {k: _copy(v) for k, v in vars(self.scheduler).items() if k not in ours and k != "_internal_dict"}
        noisy = [name for name, value in kept.items() if name.endswith("noise_sampler") and value is not None]
        if noisy:
            raise ModelError(
                f"{type(self.scheduler).__name__} draws noise for a whole batch, so its trajectories cannot be "
                "stopped and sorted: use another scheduler, or guidance that makes whole images, such as BestOfN"
            )
        return kept

    def _states(self) -> tuple[torch.Tensor, ...]:
        return tuple(generator.get_state() for generator in self.generators)


def _column(weights: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(weights, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))


def _with_previous(result: Any, previous: torch.Tensor) -> Any:
    result.prev_sample = previous
    return result


def _copy(value: Any) -> Any:
    """Copy containers, which schedulers change in place; tensors in them are replaced, never written to."""
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


def _is_rows(value: Any, count: int) -> bool:
    """Whether a scheduler's attribute holds something per image: latents have at least three axes."""
    return isinstance(value, torch.Tensor) and value.ndim >= 3 and value.shape[0] == count


def _map_rows(state: dict[str, Any], count: int, change: Any) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(item) for item in value]
        return change(value) if _is_rows(value, count) else value

    return {name: one(value) for name, value in state.items()}


def _join_states(states: Sequence[dict[str, Any]], counts: Sequence[int]) -> dict[str, Any]:
    def one(values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, list) and all(isinstance(v, list) and len(v) == len(first) for v in values):
            return [one(items) for items in zip(*values, strict=True)]
        if all(_is_rows(value, count) for value, count in zip(values, counts, strict=True)):
            return torch.cat(list(values))
        return first

    return {name: one([state[name] for state in states]) for name in states[0]}
