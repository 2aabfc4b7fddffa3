"""Nodes for ComfyUI, by its V3 schema: score, pick the best, a target, a guided sampler, other wordings.

ComfyUI imports this folder by its path, so it imports the package by name. Progress bars and the button that
interrupts are the host's own.
"""

from __future__ import annotations

import functools
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import ComfyExtension, io
from nodes import common_ksampler
from typing_extensions import override

from cogguided import Target, load_scorer
from cogguided.guidance.rewriting.proposers import PhraseBank
from cogguided.integrations.layouts import as_images
from cogguided.scorers import DIMENSIONS, TargetScores, load_target

CATEGORY = "CogGuided"
NAMES = (*DIMENSIONS, "clip")
TargetType = io.Custom("COGGUIDED_TARGET")
JUDGE = "judge's folder or hub name; empty: the small embedded one, which knows emoji artwork only"


@functools.lru_cache(maxsize=16)
def scorer_of(name: str, model: str = "") -> Any:
    """Load a judge once for all nodes."""
    if name == "clip" or not model:
        return load_scorer(name)
    for other in DIMENSIONS:
        if other != name and (other, model) in _LOADED:
            return _LOADED[other, model].with_dimension(name)
    _LOADED[name, model] = load_scorer(name, model=model)
    return _LOADED[name, model]


_LOADED: dict[tuple[str, str], Any] = {}


def judged(target: Target, images: torch.Tensor, prompt: str) -> TargetScores:
    """Score an IMAGE (B, H, W, 3) one by one, with the host's progress bar and interruption."""
    bar = comfy.utils.ProgressBar(len(images))
    parts = []
    device = comfy.model_management.get_torch_device()
    target.to(device)
    with torch.no_grad():
        for image in images.clamp(0, 1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            parts.append(target(as_images(image[None].to(device)), [prompt] if target.needs_prompt else None))
            bar.update(1)
    terms = {name: [part.terms[name] for part in parts] for name in parts[0].terms}
    joined = {name: type(scores[0]).cat(scores).cpu() for name, scores in terms.items()}
    total = torch.cat([part.total.cpu() for part in parts])
    return TargetScores(total, total.isfinite(), joined, [part.errors[0] for part in parts])


def table(scores: TargetScores, order: list[int]) -> str:
    """Write scores as text, a line an image, in an order."""
    lines = ["image  total  " + "  ".join(scores.terms)]
    for i in order:
        values = "  ".join(f"{term.values[i]:.3f}" for term in scores.terms.values())
        lines.append(f"{i:5d}  {scores.total[i]:.3f}  {values}  {scores.errors[i] or ''}".rstrip())
    return "\n".join(lines)


def best_first(scores: TargetScores) -> list[int]:
    """Return the places of the images with a score, best first.

    Raises:
        ValueError: there is none.
    """
    order = scores.total.nan_to_num(-torch.inf).argsort(descending=True, stable=True).tolist()
    found = [i for i in order if scores.valid[i]]
    if not found:
        raise ValueError(f"CogGuided: no image has a score: {scores.errors[0]}")
    return found


class CogGuidedTarget(io.ComfyNode):
    """Signed weights of what there should be more of."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what goes in and out."""
        weights = [io.Float.Input(n, default=0.0, min=-10.0, max=10.0, step=0.05) for n in NAMES]
        judge = io.String.Input("judge", default="", optional=True, tooltip=JUDGE)
        return io.Schema(
            node_id="CogGuidedTarget", display_name="CogGuided Target", category=CATEGORY,
            inputs=[*weights, judge], outputs=[TargetType.Output(display_name="target")],
        )  # fmt: skip

    @classmethod
    def execute(cls, judge: str = "", **weights: float) -> io.NodeOutput:
        """Make the target."""
        wanted = {scorer_of(name, judge): weight for name, weight in weights.items() if weight}
        return io.NodeOutput(load_target(wanted))


class CogGuidedScore(io.ComfyNode):
    """Score a batch of images in one dimension."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what goes in and out."""
        return io.Schema(
            node_id="CogGuidedScore", display_name="CogGuided Score", category=CATEGORY, is_output_node=True,
            inputs=[
                io.Image.Input("images"), io.Combo.Input("dimension", options=list(NAMES)),
                io.String.Input("prompt", default="", optional=True, tooltip="what clip compares with"),
                io.String.Input("judge", default="", optional=True, tooltip=JUDGE),
            ],
            outputs=[
                io.Float.Output(display_name="scores", is_output_list=True), io.String.Output(display_name="table"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, images: torch.Tensor, dimension: str, prompt: str = "", judge: str = "") -> io.NodeOutput:
        """Score them; NaN is an image without a score."""
        scores = judged(load_target({scorer_of(dimension, judge): 1.0}), images, prompt)
        text = table(scores, list(range(len(images))))
        return io.NodeOutput(scores.terms[dimension].values.tolist(), text, ui={"text": [text]})


class CogGuidedPickBest(io.ComfyNode):
    """Keep the best images of a batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what goes in and out."""
        return io.Schema(
            node_id="CogGuidedPickBest", display_name="CogGuided Pick Best", category=CATEGORY,
            inputs=[
                io.Image.Input("images"), TargetType.Input("target"), io.Int.Input("keep", default=1, min=1),
                io.String.Input("prompt", default="", optional=True, tooltip="what clip compares with"),
            ],
            outputs=[
                io.Image.Output(display_name="images"), io.Float.Output(display_name="scores", is_output_list=True),
                io.String.Output(display_name="table"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, images: torch.Tensor, target: Target, keep: int, prompt: str = "") -> io.NodeOutput:
        """Choose; images without a score are never chosen."""
        scores = judged(target, images, prompt)
        best = best_first(scores)[:keep]
        return io.NodeOutput(images[best], scores.total[best].tolist(), table(scores, best))


class CogGuidedSampler(io.ComfyNode):
    """Draw drafts from several seeds, and the best of them in full from the same noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what goes in and out."""
        import comfy.samplers

        return io.Schema(
            node_id="CogGuidedSampler", display_name="CogGuided Sampler", category=CATEGORY,
            inputs=[
                io.Model.Input("model"), io.Conditioning.Input("positive"), io.Conditioning.Input("negative"),
                io.Latent.Input("latent_image"), io.Vae.Input("vae"), TargetType.Input("target"),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 4096, control_after_generate=True),
                io.Int.Input("drafts", default=8, min=1, max=4096), io.Int.Input("draft_steps", default=6, min=1),
                io.Int.Input("steps", default=20, min=1), io.Float.Input("cfg", default=7.0, min=0.0, max=100.0),
                io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS),
                io.String.Input("prompt", default="", optional=True, tooltip="what clip compares with"),
            ],
            outputs=[
                io.Latent.Output(), io.Int.Output(display_name="seed"), io.String.Output(display_name="table"),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Any, positive: Any, negative: Any, latent_image: Any, vae: Any, target: Target, seed: int,
        drafts: int, draft_steps: int, steps: int, cfg: float, sampler_name: str, scheduler: str, prompt: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        """Draw; `latent_image` has one row, and seed + k is the k-th draft's."""
        if len(latent_image["samples"]) != 1:
            raise ValueError("CogGuided Sampler: give a latent of batch size 1; `drafts` says how many are tried")

        def draw(number: int, count: int) -> Any:
            rest = (cfg, sampler_name, scheduler, positive, negative, latent_image)
            return common_ksampler(model, number, count, *rest)[0]

        images = [vae.decode(draw(seed + k, draft_steps)["samples"]) for k in range(drafts)]
        pictures = torch.cat([image.reshape(-1, *image.shape[-3:]) for image in images])
        scores = judged(target, pictures, prompt)
        best = best_first(scores)
        return io.NodeOutput(draw(seed + best[0], steps), seed + best[0], table(scores, best))


class CogGuidedRewritePrompt(io.ComfyNode):
    """Give other wordings of a prompt, by a bank of phrases; what they feed runs once for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Say what goes in and out."""
        return io.Schema(
            node_id="CogGuidedRewritePrompt", display_name="CogGuided Rewrite Prompt", category=CATEGORY,
            inputs=[
                io.String.Input("prompt", multiline=True, tooltip="[in brackets]: kept in every wording"),
                TargetType.Input("target"),
                io.Int.Input("count", default=4, min=1, max=64, tooltip="wordings besides the prompt itself"),
                io.Int.Input("seed", default=0, min=0, control_after_generate=True),
            ],
            outputs=[io.String.Output(display_name="prompts", is_output_list=True)],
        )  # fmt: skip

    @classmethod
    def execute(cls, prompt: str, target: Target, count: int, seed: int) -> io.NodeOutput:
        """Word it; the prompt itself comes first."""
        return io.NodeOutput([prompt, *PhraseBank().propose(prompt, target.weights, [], count, seed)])


class CogGuidedExtension(ComfyExtension):
    """All of them."""

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """List the nodes."""
        return [CogGuidedTarget, CogGuidedScore, CogGuidedPickBest, CogGuidedSampler, CogGuidedRewritePrompt]


async def comfy_entrypoint() -> ComfyExtension:
    """Give ComfyUI the nodes."""
    return CogGuidedExtension()
