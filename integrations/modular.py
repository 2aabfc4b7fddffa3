"""Blocks for diffusers' Modular Diffusers: keep the best images of a state, or draw several and keep the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks, OutputParam

from .._errors import GenerationError, InputError
from ..pipelines.driving.sampler import cpu_generator
from ..scorers import Target, TargetSpec, load_target

BLOCK = "from cogguided.integrations import {name}\n\n__all__ = [\"{name}\"]\n"


class RerankBlock(ModularPipelineBlocks):
    """The last block: keeps the best images of a state, best first, and says what each is worth.

    Args:
        target: what to choose by (see `load_target`).
        keep: images of each prompt.

    Executed in ``tests/integrations/test_modular.py``.
    """

    def __init__(self, target: TargetSpec | Target = "emotional_valence", keep: int = 1) -> None:
        super().__init__()
        self.target = target if isinstance(target, Target) else load_target(target)
        self.keep = keep

    @property
    def description(self) -> str:
        """What diffusers shows of it."""
        return f"Keeps the best {self.keep} image(s) of each prompt by {self.target.name}"

    @property
    def inputs(self) -> list[InputParam]:
        """What it takes from the state."""
        return [InputParam("images", required=True, description="PIL images"), InputParam("prompt")]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """What it leaves in the state."""
        told = "total of the target for each image kept"
        return [OutputParam("images", type_hint=list), OutputParam("scores", type_hint=list, description=told)]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> Any:
        """Choose among the images of each prompt; those without a score are never chosen."""
        block = self.get_block_state(state)
        prompts = [block.prompt] if isinstance(block.prompt, str) or block.prompt is None else list(block.prompt)
        block.images, block.scores = self.best(list(block.images), prompts)
        self.set_block_state(state, block)
        return components, state

    def best(self, images: list[Any], prompts: list[Any]) -> tuple[list[Any], list[float]]:
        """Return the best `keep` images of each prompt, and their totals."""
        each = len(images) // len(prompts)
        if each * len(prompts) != len(images):
            raise InputError(f"rerank: {len(images)} images cannot be shared among {len(prompts)} prompts")
        texts = [prompt for prompt in prompts for _ in range(each)]
        scores = self.target(images, texts if self.target.needs_prompt else None)
        kept: list[int] = []
        for first in range(0, len(images), each):
            rows = [i for i in range(first, first + each) if scores.valid[i]]
            if not rows:
                raise GenerationError(f"rerank: no image has a score: {scores.errors[first]}")
            kept += sorted(rows, key=lambda i: -float(scores.total[i]))[: self.keep]
        return [images[i] for i in kept], [float(scores.total[i]) for i in kept]

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save what `ModularPipelineBlocks.from_pretrained(folder, trust_remote_code=True)` opens again.

        The folder has no code but an import of this package; target and keep are given to `from_pretrained`.
        """
        name = type(self).__name__
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        (Path(save_directory) / "block.py").write_text(BLOCK.format(name=name), "utf-8")
        self.register_to_config(auto_map={"ModularPipelineBlocks": f"block.{name}"})
        self.save_config(save_directory, **kwargs)


class CogGuidedBlock(RerankBlock):
    """Best of n around the blocks of a text-to-image workflow: draws with successive seeds, one at a time.

    Args:
        blocks: of the workflow, e.g. `ModularPipeline.from_pretrained(...).blocks`; they end in "images".
        target: what to choose by.
        n: images drawn of each prompt.
        keep: images of each prompt that are returned.

    Executed in ``tests/integrations/test_modular.py``.
    """

    def __init__(
        self,
        blocks: ModularPipelineBlocks,
        target: TargetSpec | Target = "emotional_valence",
        n: int = 4,
        keep: int = 1,
    ) -> None:
        super().__init__(target, keep)
        if n < keep:
            raise InputError(f"n: expected at least keep ({keep}), got {n}")
        self.blocks, self.n = blocks, n
        self.model_name = blocks.model_name
        self.sub_blocks["generate"] = blocks

    @property
    def expected_components(self) -> Any:
        """Those of the workflow."""
        return self.blocks.expected_components

    @property
    def expected_configs(self) -> Any:
        """Those of the workflow."""
        return self.blocks.expected_configs

    @property
    def inputs(self) -> list[InputParam]:
        """Those of the workflow, but for its generator, and `seed`."""
        own = [param for param in self.blocks.inputs if param.name != "generator"]
        return [*own, InputParam("seed", default=0, description="of each prompt's first image")]

    @torch.no_grad()
    def __call__(self, components: Any, state: Any) -> Any:
        """Draw n times from fresh copies of the state, and choose."""
        given, mapping = dict(state.values), {name: list(of) for name, of in state.kwargs_mapping.items()}
        prompt, seed = given.get("prompt"), int(given.get("seed") or 0)
        prompts = [prompt] if isinstance(prompt, str) or prompt is None else list(prompt)
        rounds = []
        for k in range(self.n):
            own = type(state)(dict(given), {name: list(of) for name, of in mapping.items()})
            generators = [cpu_generator(seed + k) for _ in prompts]
            own.set("generator", generators if len(prompts) > 1 else generators[0])
            _, own = self.blocks(components, own)
            rounds.append(list(own.get("images")))
        images = [image for row in zip(*rounds, strict=True) for image in row]
        kept, scores = self.best(images, prompts)
        state.set("images", kept)
        state.set("scores", scores)
        return components, state
