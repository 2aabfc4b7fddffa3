"""The narrow interface of guidance, on any diffusers text-to-image pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from ..._errors import InputError, ModelError
from ...guidance.types import Interrupted, Noise
from ...guidance.watching import check_stopped
from ..arguments import call_parameters, check_arguments, spread_texts
from .batching import failures_told
from .encoding import Encodings, encoded_once
from .frames import single_frames
from .leaving import processors_kept
from .rejecting import finite_watched, mark_rejected
from .stopping import check_stoppable
from .trajectories import Leg, Trajectories, on_leg

CALLBACK = "callback_on_step_end"
DENOISERS = ("transformer", "unet", "prior", "decoder", "super_res")


def cpu_generator(seed: int) -> torch.Generator:
    """Return the generator that a seed stands for: on the CPU, whatever the pipeline's device.

    >>> torch.randn(1, generator=cpu_generator(0)) == torch.randn(1, generator=cpu_generator(0))
    tensor([True])
    """
    return torch.Generator("cpu").manual_seed(seed)


class PipelineSampler:
    """Samples batches by the call of a diffusers pipeline, one generator per image.

    Args:
        pipe: the pipeline.
        base_class: the class whose call makes the images.
        arguments: the other arguments of that call, the same for every batch. A text among them
            (negative_prompt, prompt_2) is given once for each image.
    """

    def __init__(
        self, pipe: DiffusionPipeline, base_class: type[DiffusionPipeline], arguments: dict[str, Any]
    ) -> None:
        self.pipe = pipe
        self.base_class = base_class
        self.arguments = dict(arguments)
        self.nfe = 0
        self.trace: list[dict[str, Any]] = []
        self._encodings = Encodings()

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Make one image per prompt and seed; a single prompt is called just as a user would call it."""
        prompt: str | list[str] = prompts[0] if len(prompts) == 1 else list(prompts)
        return self.call(prompt, [cpu_generator(seed) for seed in seeds])

    def call(
        self, prompt: str | list[str] | None, generator: torch.Generator | list[torch.Generator]
    ) -> list[Image.Image]:
        """Call the base pipeline once."""
        images: list[Image.Image] = self._call(prompt, generator, self.arguments)
        return images

    def _call(
        self,
        prompt: str | list[str] | None,
        generator: torch.Generator | list[torch.Generator],
        arguments: dict[str, Any],
        with_graph: bool = False,
    ) -> Any:
        arguments = spread_texts(arguments, prompt)
        call: Any = self.base_class.__call__
        if with_graph:
            call = getattr(call, "__wrapped__", call)  # beneath diffusers' no_grad
            arguments["output_type"] = "pt"
        watched = finite_watched(self.pipe)
        counted, once = count_denoiser(self.pipe, self._add_nfe), encoded_once(self.pipe, self._encodings)
        told = failures_told(self.base_class.__name__, prompt, generator, arguments)
        with processors_kept(self.pipe), counted, once, watched as finite, told:
            output = call(self.pipe, prompt=prompt, generator=generator, **arguments)
        if not with_graph:
            self._check_images(output[0])
            mark_rejected(output[0], output, finite)
        if getattr(self.pipe, "_interrupt", False):  # set by the user's step callback, as diffusers documents
            raise Interrupted(list(output[0]))
        return output[0] if with_graph else list(output[0])  # `images`, or `image` in some

    def _check_images(self, made: Any) -> None:
        """Check that a call gave pictures; the first half of a combined pipeline gives embeddings."""
        if not isinstance(made, list) or not all(isinstance(image, Image.Image) for image in made):
            raise ModelError(
                f"{self.base_class.__name__} gave a {type(made).__name__} in place of images: not a text-to-image "
                "pipeline; where it is the first part of one, wrap the combined pipeline"
            )

    def begin(
        self, prompts: Sequence[str], noise: Sequence[Noise], overrides: Mapping[str, Any] | None = None
    ) -> Trajectories:
        """Return B images before their first step; `overrides` are arguments of the call, e.g. fewer steps."""
        check_stoppable(self.pipe)
        changed = thinned(dict(overrides or {}), self.arguments)
        check_arguments(self.base_class, changed)
        entry = {"begin": list(prompts), "noise": list(noise), "arguments": changed}
        places = tuple((len(self.trace), row) for row in range(len(prompts)))
        self.trace.append(entry)
        return Trajectories(tuple(prompts), tuple(noise), changed, places)

    def advance(
        self, rows: Trajectories, until: float, eta: float = 0.0, seeds: Sequence[int] | None = None
    ) -> Trajectories:
        """Take the steps up to a part of the trajectory, in one batch (see `Sampler.advance`)."""
        if seeds is not None:
            states = tuple(cpu_generator(seed).get_state() for seed in seeds)
            rows = replace(rows, generators=states)
        reached = self._leg(Leg(rows, until, eta)).reached
        if reached is None:
            raise ModelError(f"{self.base_class.__name__} never called its scheduler: it cannot be stopped half-way")
        entry = {
            "advance": list(rows.rows),
            "until": until,
            "eta": eta,
            "seeds": None if seeds is None else [*seeds],
        }
        places = tuple((len(self.trace), row) for row in range(len(rows)))
        self.trace.append(entry)
        return replace(reached, rows=places)

    def decode(
        self, rows: Trajectories, clean: bool = False, quick: bool = False
    ) -> tuple[list[Image.Image], list[dict[str, Any]]]:
        """Make the images of finished rows, or with `clean` those predicted half-way, and what replays each.

        With `quick`, as for drafts, and with `clean` the VAE may save itself work (see `frames`).
        """
        with single_frames(self.pipe) if clean or quick else nullcontext():
            images = self._leg(Leg(rows, 1.0, clean=clean)).images
        places = [{"entry": len(self.trace), "index": row} for row in range(len(rows))]
        self.trace.append({"decode": list(rows.rows), "clean": clean, "quick": quick})
        return images, places

    def join(self, parts: Sequence[Trajectories]) -> Trajectories:
        """Return the rows of several at the same step as one."""
        return Trajectories.join(parts)

    def latents(self, rows: Trajectories) -> torch.Tensor:
        """Return the latents of rows (B, ...) as the pipeline's loop holds them; before the first step, the noise."""
        reached = rows if rows.latents is not None else self._leg(Leg(rows, None)).reached
        if reached is None or reached.latents is None:
            raise ModelError(f"{self.base_class.__name__} never prepared its latents: its noise cannot be had")
        return reached.latents

    def put(self, rows: Trajectories, latents: torch.Tensor) -> Trajectories:
        """Return rows with other latents (B, ...), noise or half-way; predicted clean latents are forgotten."""
        kept = latents.detach().cpu()
        if rows.latents is None:
            noise = [replace(old, latents=row) for old, row in zip(rows.noise, kept, strict=True)]
            return self.begin(rows.prompts, noise, rows.overrides)
        places = tuple((len(self.trace), row) for row in range(len(rows)))
        self.trace.append({"put": list(rows.rows), "latents": kept})
        return replace(rows, latents=latents.detach(), clean=None, rows=places)

    def gradient(
        self, rows: Trajectories, value: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what images are worth (B,), and its gradient with respect to their latents (B, ...).

        The images are those that the latents lead to: before the first step by all steps of the rows' call, half-way
        by the clean latents that the next step predicts. A backward pass counts as two evaluations.

        Args:
            rows: of this sampler.
            value: from images (B, 3, H, W) in [0, 1] to (B,), differentiable.

        Raises:
            ModelError: the pipeline's call breaks the graph.
        """
        latents = self.latents(rows).detach().requires_grad_()
        before = self.nfe
        with torch.enable_grad():
            if rows.latents is None:
                noise = [replace(old, latents=row) for old, row in zip(rows.noise, latents, strict=True)]
                start, until = replace(rows, noise=tuple(noise)), 1.0
            else:
                start, until = replace(rows, latents=latents), (rows.done + 1) / rows.steps
            reached = self._leg(Leg(start, until), with_graph=True).reached
            assert reached is not None
            images: Any = self._leg(Leg(reached, 1.0, clean=rows.latents is not None), with_graph=True).images
            if not isinstance(images, torch.Tensor) or not images.requires_grad:
                raise ModelError(
                    f"{self.base_class.__name__}: no gradient comes back through its call; use a search without one, "
                    "such as Drafts or NoiseSearch"
                )
            values = value(images.float().clamp(0, 1))
            (gradient,) = torch.autograd.grad(values.sum(), latents)
        self.nfe += 2 * (self.nfe - before)
        return values.detach(), gradient

    def _leg(self, leg: Leg, with_graph: bool = False) -> Leg:
        try:
            return self._run_leg(leg, with_graph)
        except UnboundLocalError:
            if leg.relayed or not (leg.clean or leg.start.finished):
                raise
            leg.relayed = True  # its call decodes what a step returned, so it must take one
            return self._run_leg(leg, with_graph)

    def _run_leg(self, leg: Leg, with_graph: bool) -> Leg:
        prompts = list(leg.start.prompts)
        generators = leg.generators()
        arguments = {**self.arguments, **leg.start.overrides}
        stepping = not (leg.clean or leg.start.finished)
        takes_callback = stepping and CALLBACK in call_parameters(self.base_class)
        with on_leg(self.pipe, leg, generators, takes_callback) as hooks:
            own = arguments.pop(CALLBACK, None)
            if takes_callback:
                arguments[CALLBACK] = hooks.callback(own)
                if hasattr(own, "tensor_inputs"):  # diffusers' own callbacks say what they want to see
                    arguments[f"{CALLBACK}_tensor_inputs"] = own.tensor_inputs
            prompt = prompts[0] if len(prompts) == 1 else prompts
            leg.images = self._call(prompt, generators, arguments, with_graph=with_graph)
        return leg

    def _add_nfe(self, images: int) -> None:
        self.nfe += images
        check_stopped()


def thinned(overrides: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides in which a schedule of the user's own has as many steps as they ask for, spread over it.

    A pipeline's call would take `timesteps` or `sigmas` as they are, and leave num_inference_steps aside.

    >>> thinned({"num_inference_steps": 2}, {"timesteps": [999, 749, 499, 249]})
    {'num_inference_steps': 2, 'timesteps': [999, 499]}
    """
    steps = overrides.get("num_inference_steps")
    for name in ("timesteps", "sigmas"):
        given = arguments.get(name)
        if steps and name not in overrides and given is not None and len(given) > steps:
            overrides[name] = [given[place * len(given) // steps] for place in range(steps)]
    return overrides


def denoisers(pipe: DiffusionPipeline) -> list[torch.nn.Module]:
    """Return the components that are called at every step, by diffusers' naming, in all stages."""
    return [
        module
        for name, module in pipe.components.items()
        if name.removeprefix("prior_").startswith(DENOISERS) and isinstance(module, torch.nn.Module)
    ]


def check_countable(pipe: DiffusionPipeline) -> None:
    """Check that denoiser evaluations can be counted, for a budget in them.

    Raises:
        InputError: no component has the name of a denoiser.
    """
    if not denoisers(pipe):
        raise InputError(
            f"budget: none of {sorted(pipe.components)} is named like a denoiser {DENOISERS}, so evaluations "
            "cannot be counted; give the budget in seconds"
        )


@contextmanager
def count_denoiser(pipe: DiffusionPipeline, add: Callable[[int], None]) -> Iterator[None]:
    """Tell `add` how many images each denoiser pass works on, while inside."""

    def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        batch = next(v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor | list))
        add(len(batch))

    handles = [m.register_forward_pre_hook(hook, with_kwargs=True) for m in denoisers(pipe)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
