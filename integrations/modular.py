"""Blocks for diffusers' Modular Diffusers: keep the best images of a state, or draw several and keep the best."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.modular_pipelines import InputParam, ModularPipelineBlocks, OutputParam

from .._errors import GenerationError, InputError, unknown_name
from .._version import __version__
from ..pipelines.driving.sampler import cpu_generator
from ..scorers import Target, TargetSpec, load_target

CODE = '''"""Written by cogguided {version}; loads with trust_remote_code=True."""

from cogguided import integrations


class {name}(integrations.{base}):
    def __init__(self, {parameters}):
        super().__init__({names})
'''
"""Of a saved block: diffusers makes it without arguments, or with those that its `from_pretrained` was given."""


class RerankBlock(ModularPipelineBlocks):
    """The last block: keeps the best images of a state, best first, and says what each is worth.

    Args:
        target: what to choose by (see `load_target`).
        keep: images of each prompt.

    Raises:
        InputError: no target, as where a block is loaded that was saved with a scorer object for one.

    Executed in ``tests/integrations/test_modular.py``.
    """

    def __init__(self, target: TargetSpec | Target | None = "emotional_valence", keep: int = 1) -> None:
        super().__init__()
        if target is None:
            raise InputError(f"{type(self).__name__}: it was saved with an object for its target: pass target=")
        self.target = target if isinstance(target, Target) else load_target(target)
        self.keep = keep
        self._target_given = target

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy all but the scorers: diffusers copies blocks whenever they are looked at."""
        memo[id(self.target)], memo[id(self._target_given)] = self.target, self._target_given
        made: Any = object.__new__(type(self))
        memo[id(self)] = made
        vars(made).update({name: deepcopy(value, memo) for name, value in vars(self).items()})
        return made

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

    def arguments(self) -> dict[str, Any]:
        """What it was made with, in JSON's types; None for what has no name to make it by again."""
        return {"target": _by_name(self._target_given), "keep": self.keep}

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save what `ModularPipelineBlocks.from_pretrained(folder, trust_remote_code=True)` opens again.

        The folder has `modular_config.json` and a few lines of code, which import this package. Beside a modular
        pipeline that was saved in the same folder, `ModularPipeline.from_pretrained` has both. A target that is an
        object, or blocks that are not diffusers' own as they come, are given anew to `from_pretrained`.
        """
        base = next(kind for kind in type(self).__mro__ if kind.__module__ == __name__).__name__
        own = self.arguments()
        code = CODE.format(
            version=__version__, name=type(self).__name__, base=base, names=", ".join(own),
            parameters=", ".join(f"{name}={value!r}" for name, value in own.items()),
        )  # fmt: skip
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        (Path(save_directory) / "block.py").write_text(code, "utf-8")
        self.register_to_config(auto_map={"ModularPipelineBlocks": f"block.{type(self).__name__}"})
        self.save_config(save_directory, **kwargs)


class CogGuidedBlock(RerankBlock):
    """Best of n around the blocks of a text-to-image workflow: draws with successive seeds, one at a time.

    Args:
        blocks: of the workflow, e.g. `ModularPipeline.from_pretrained(...).blocks`, or the name of a class of
            diffusers, such as "QwenImageAutoBlocks"; they end in "images".
        target: what to choose by.
        n: images drawn of each prompt.
        keep: images of each prompt that are returned.

    Raises:
        InputError: fewer drawn than kept; or no blocks, as where a block is loaded that was saved with its own.

    Executed in ``tests/integrations/test_modular.py``.
    """

    def __init__(
        self,
        blocks: ModularPipelineBlocks | str | None,
        target: TargetSpec | Target | None = "emotional_valence",
        n: int = 4,
        keep: int = 1,
    ) -> None:
        super().__init__(target, keep)
        if n < keep:
            raise InputError(f"n: expected at least keep ({keep}), got {n}")
        if blocks is None:
            raise InputError("CogGuidedBlock: it was saved with blocks of its own around a workflow: pass blocks=")
        found = blocks_named(blocks) if isinstance(blocks, str) else blocks
        self.blocks, self.n = found, n
        self.model_name = found.model_name
        self.sub_blocks["generate"] = found

    def arguments(self) -> dict[str, Any]:
        """What it was made with, in JSON's types; None for what has no name to make it by again."""
        name = type(self.blocks).__name__
        known = hasattr(diffusers, name) and _layout(blocks_named(name)) == _layout(self.blocks)
        target = _by_name(self._target_given)
        return {"blocks": name if known else None, "target": target, "n": self.n, "keep": self.keep}

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


def blocks_named(name: str) -> ModularPipelineBlocks:
    """Return blocks of diffusers by the name of their class.

    Raises:
        UnknownNameError: diffusers has none of that name.

    >>> blocks_named("QwenImageAutoBlock")
    Traceback (most recent call last):
    ...
    cogguided._errors.UnknownNameError: unknown blocks of diffusers 'QwenImageAutoBlock': did you mean 'QwenImage...
    """
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, ModularPipelineBlocks)):
        raise unknown_name("blocks of diffusers", name, [n for n in dir(diffusers) if n.endswith("Blocks")])
    return found()


def _layout(blocks: ModularPipelineBlocks) -> list[Any]:
    """Names and classes of blocks within blocks."""
    return [(name, type(block), _layout(block)) for name, block in blocks.sub_blocks.items()]


def _by_name(target: Any) -> Any:
    if isinstance(target, Mapping):
        return dict(target) if all(isinstance(term, str) for term in target) else None
    return target if isinstance(target, str) else None
