"""A pipeline whose denoiser learns: a LoRA on it, images with their latents, the pipeline's own denoising loss."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from PIL import Image

from ..._errors import ModelError
from ...guidance.finetuning.config import ATTENTION
from ...guidance.types import Noise
from ..arguments import call_parameters
from .denoising import Question, asked
from .diffusion import Level, noised, training_target
from .encoding import Encodings
from .frames import single_frames
from .sampler import PipelineSampler, cpu_generator, denoisers
from .stopping import PREPARERS, preparer, stages
from .supervising import supervised

ADAPTER = "cogguided"
TOGETHER = 256
"""Encoded prompts that are kept."""


class PipelineLearner:
    """Puts a LoRA on the denoiser of any text-to-image pipeline, samples from it, and asks it for predictions.

    Everything goes through the pipeline's own call (see `denoising`). The base weights are frozen.

    Args:
        pipe: the pipeline; the adapter stays on it.
        base_class: the class whose call makes the images.
        arguments: of that call.
        rank: of the LoRA.
        alpha: of the LoRA.
        target_modules: names of the layers it is put on, or "all-linear".
        seed: of the LoRA's first weights.
        guided: predictions are those of the sampler, after classifier-free guidance, in place of the prompt's alone.

    Raises:
        ModelError: no denoiser, none of the layers, or an adapter that is there already.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        base_class: type[DiffusionPipeline],
        arguments: Mapping[str, Any],
        rank: int = 32,
        alpha: float | None = None,
        target_modules: Sequence[str] | str = "all-linear",
        seed: int = 0,
        guided: bool = False,
    ) -> None:
        self.pipe, self.base_class = pipe, base_class
        self.denoiser: Any = trainable(pipe)
        if any(isinstance(module, BaseTunerLayer) for module in self.denoiser.modules()):
            raise ModelError(
                "the denoiser has an adapter already: make it part of the weights (pipe.fuse_lora() and "
                "pipe.unload_lora_weights()) or drop it (pipe.unload_lora_weights()) first"
            )
        for module in pipe.components.values():
            if isinstance(module, torch.nn.Module):
                module.requires_grad_(False)
        self._add_adapter(rank, alpha, target_modules, seed)
        kept = Encodings(limit=TOGETHER)
        self._sampler = PipelineSampler(pipe, base_class, dict(arguments))
        self._sampler._encodings = kept
        self._asking = PipelineSampler(pipe, base_class, {})
        self._asking._encodings = kept
        self._asking.arguments = dict(arguments) if guided else self._without_guidance(dict(arguments))
        self._levels: dict[int | None, list[Level]] = {}
        self._scale = 1.0

    def _add_adapter(self, rank: int, alpha: float | None, target_modules: Sequence[str] | str, seed: int) -> None:
        names = target_modules if isinstance(target_modules, str) else list(target_modules)
        if names == list(ATTENTION):
            names = attention_layers(self.denoiser)
        config = LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=names)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                if hasattr(self.denoiser, "add_adapter"):  # so that diffusers knows of it too
                    self.denoiser.add_adapter(config, adapter_name=ADAPTER)
                else:
                    inject_adapter_in_model(config, self.denoiser, adapter_name=ADAPTER)
            except ValueError as error:
                raise ModelError(
                    f"no LoRA on {type(self.denoiser).__name__}: {error} target_modules='all-linear' takes all of "
                    "its linear layers"
                ) from error
        self._config = config
        for name, parameter in self.denoiser.named_parameters():
            if ADAPTER in name:
                parameter.data = parameter.data.float()  # small steps vanish in half precision
                parameter.requires_grad_(True)

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes."""
        return torch.device(self.pipe._execution_device)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name."""
        return {n: p for n, p in self.denoiser.named_parameters() if p.requires_grad}

    def checkpoint_activations(self) -> None:
        """Compute activations again in the backward pass, in place of keeping them."""
        self.denoiser.enable_gradient_checkpointing()

    @property
    def nfe(self) -> int:
        """Denoiser evaluations so far, of sampling and of predictions."""
        return self._sampler.nfe + self._asking.nfe

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int | None = None
    ) -> tuple[list[Image.Image], torch.Tensor]:
        """Make one image per prompt and seed, in one batch, and return the loop's last latents (B, ...) with them."""
        overrides = {} if steps is None else {"num_inference_steps": steps}
        sampler = self._sampler
        rows = sampler.begin(prompts, [Noise.of(seed) for seed in seeds], overrides)
        rows = sampler.advance(rows, 1.0)
        with np.errstate(invalid="ignore"):  # of broken weights: the latents tell
            images, _ = sampler.decode(rows, quick=True)
        sampler.trace.clear()
        assert rows.latents is not None
        return images, rows.latents

    def levels(self, prompt: str, steps: int | None = None) -> list[Level]:
        """Return the noise levels (alpha, sigma) that the sampler visits, in its order."""
        if steps not in self._levels:
            question = Question()
            with torch.no_grad():
                self._ask([prompt], question, steps)
            self._levels[steps] = question.levels
            self._scale = question.scale
        return self._levels[steps]

    def predict(
        self, prompts: Sequence[str], clean: torch.Tensor, noise: torch.Tensor, step: int, steps: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the denoiser says of noised latents, and what it should say.

        Without classifier-free guidance, unless `guided`.

        Args:
            prompts: B.
            clean: (B, ...) latents, as `sample` returns them.
            noise: (B, ...) standard normal.
            step: of the sampler's schedule, from 0, which sets the noise level.
            steps: of that schedule; None: as the call has it.

        Returns:
            output and target, (B, ...) each, of the model's own kind of prediction; with a gradient if enabled.
        """
        level = self.levels(prompts[0], steps)[step]
        clean, noise = clean.to(self.device), noise.to(self.device)
        question = Question(step, noised(clean.float(), noise.float(), level), scale=self._scale)
        output = self._ask(prompts, question, steps)
        return output, training_target(self.pipe.components["scheduler"], clean.float(), noise.float(), level)

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        trained: Collection[int],
        steps: int | None = None,
        compare: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make one image per prompt and seed with a graph through some steps of the denoiser.

        Args:
            prompts: B.
            seeds: B.
            trained: steps, from 0, at which the denoiser has a graph, to its weights and not to its inputs.
            steps: of the sampler; None: as the call has it.
            compare: tell how far the denoiser's outputs at these steps are from those of the untrained one.

        Returns:
            images (B, 3, H, W) in [0, 1]; and the mean squared distance, a scalar, 0 without `compare`.

        Raises:
            ModelError: the pipeline's call breaks the graph.
        """
        sampler = self._sampler
        changed = {} if steps is None else {"num_inference_steps": steps}
        text: Any = prompts[0] if len(prompts) == 1 else list(prompts)
        watched = supervised(self.pipe, self.denoiser, trained, self.reference if compare else None)
        with torch.enable_grad(), single_frames(self.pipe), watched as distances:
            generators = [cpu_generator(seed) for seed in seeds]
            images = sampler._call(text, generators, {**sampler.arguments, **changed}, with_graph=True)
        if not isinstance(images, torch.Tensor) or not images.requires_grad:
            raise ModelError(
                f"{self.base_class.__name__}: no gradient comes back through its call; use a method that needs none, "
                "such as nft"
            )
        distance = torch.stack(distances).mean() if distances else images.new_zeros(())
        return images.float().clamp(0, 1), distance

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The untrained model: the adapter is off inside."""
        layers = [m for m in self.denoiser.modules() if isinstance(m, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def save(self, folder: Path) -> None:
        """Write the LoRA for plain diffusers' `load_lora_weights`, or for peft, where there is no such thing.

        Raises:
            ModelError: the pipeline takes no LoRA of its denoiser.
        """
        state = {n: t.detach().cpu().contiguous() for n, t in self._state().items()}
        name = next(n for n, m in self.pipe.components.items() if m is self.denoiser)
        write = getattr(self.base_class, "save_lora_weights", None)
        if write is None or not hasattr(self.denoiser, "load_lora_adapter"):
            self._config.save_pretrained(str(folder))
            from safetensors.torch import save_file

            save_file({f"base_model.model.{n}": t for n, t in state.items()}, folder / "adapter_model.safetensors")
            return
        kept = {f"{name}_lora_layers": state, f"{name}_lora_adapter_metadata": self._config.to_dict()}
        write(str(folder), **kept)

    def _state(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = get_peft_model_state_dict(self.denoiser, adapter_name=ADAPTER)
        return state

    def _ask(self, prompts: Sequence[str], question: Question, steps: int | None) -> torch.Tensor:
        arguments = dict(self._asking.arguments)
        if steps is not None:
            arguments["num_inference_steps"] = steps
        text: Any = prompts[0] if len(prompts) == 1 else list(prompts)
        with asked(self.pipe, question):
            generators = [cpu_generator(0) for _ in prompts]
            self._asking._call(text, generators, arguments, with_graph=torch.is_grad_enabled())
        if question.output is None:
            raise ModelError(f"{self.base_class.__name__} never called its scheduler: its denoiser cannot be asked")
        return question.output

    def _without_guidance(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return a call's arguments changed so that the denoiser is asked once an image, about the prompt alone."""
        known = call_parameters(self.base_class)
        plain = {k: v for k, v in arguments.items() if not k.startswith("negative_prompt")}
        name = next((n for n in ("true_cfg_scale", "guidance_scale") if n in known), None)
        tries: list[dict[str, Any]] = [{name: scale} for scale in (1.0, 0.0)] if name else [{}]
        # guidance of other kinds, by perturbed or self-attention: pag_scale, sag_scale
        others = {n: 0.0 for n, p in known.items() if n.endswith("_scale") and n != name and _is_number(p.default)}
        tries += [{**changes, **others} for changes in tries if others]
        for changes in tries:
            self._asking.arguments = {**plain, **changes}
            before = self._asking.nfe
            try:
                with torch.no_grad():
                    self._ask([" "], Question(), None)
            except (RuntimeError, ValueError):  # some stand one kind of guidance not alone
                if changes is tries[-1]:
                    raise
                continue
            if self._asking.nfe - before == 1:
                return self._asking.arguments
        raise ModelError(
            f"{self.base_class.__name__} asks its denoiser {self._asking.nfe - before} times a step even without "
            "guidance: the loss of its prediction for the prompt alone is not defined; FinetuneConfig(guided=True) "
            "fits that after guidance"
        )


def trainable(pipe: DiffusionPipeline) -> torch.nn.Module:
    """Return the one denoiser of a pipeline whose loop can be entered at any step.

    Raises:
        ModelError: there is none, or several; the sentence says what works.
    """
    name, works = type(pipe).__name__, "guidance that makes whole images, such as BestOfN, works on it"
    several = stages(pipe)
    if len(several) > 1:
        why = f"it draws in several stages, with {', '.join(several)}"
        raise ModelError(f"{name} cannot be fine-tuned: {why}; {works}")
    models = denoisers(pipe)
    if len(models) != 1:
        why = f"expected one denoiser, found {len(models)} among {sorted(pipe.components)}"
        raise ModelError(f"{name} cannot be fine-tuned: {why}; {works}")
    if preparer(pipe) is None:
        why = f"it has no {' and no '.join(PREPARERS)}, so its denoiser cannot be asked about given latents"
        raise ModelError(f"{name} cannot be fine-tuned: {why}; {works}")
    return models[0]


def attention_layers(denoiser: torch.nn.Module) -> list[str]:
    """Return the names of the projections of attention: diffusers' usual ones, or else the linear layers in it."""
    linear = [name for name, module in denoiser.named_modules() if isinstance(module, torch.nn.Linear)]
    if any(name == usual or name.endswith(f".{usual}") for name in linear for usual in ATTENTION):
        return list(ATTENTION)
    return [name for name in linear if "attn" in name or "attention" in name] or list(ATTENTION)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
