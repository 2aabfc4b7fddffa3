"""The judges by name that `scorers/models` brings, with their facts; none of its modules is imported for that."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class ScorerInfo:
    """The facts about a scorer, known before its weights are loaded.

    Attributes:
        name: what to give to `load_scorer`.
        summary: one line.
        low: lowest value of the scale, None if it is known only after loading. A judge without a fixed range has
            here, and in `high`, what images usually get; its docstring says so.
        high: highest value; higher means more of what the scorer is named after.
        needs_prompt: whether images are compared with prompts.
        grounding: where the values come from: "human" ratings, a documented "proxy", or "" if not known.
        source: the model, as a path, a hub name or the package which brings it.
        licence: licence of the weights, "" if not known.
        commercial: whether that licence allows commercial use: "yes", "no", or "" where that is not known.
    """

    name: str
    summary: str = ""
    low: float | None = None
    high: float | None = None
    needs_prompt: bool = False
    grounding: str = ""
    source: str = ""
    licence: str = ""
    commercial: str = ""


@dataclass(frozen=True)
class JudgeFactory:
    """A function that makes a judge, found when it is first called or asked what it takes.

    >>> JudgeFactory("pickscore:PickScorer.from_pretrained").__signature__.parameters["batch_size"].default
    32
    """

    where: str
    _found: list[Any] = field(default_factory=list, repr=False, compare=False)

    def _resolve(self) -> Any:
        if not self._found:
            module, _, path = self.where.partition(":")
            found: Any = import_module(f".models.{module}", __package__)
            for part in path.split("."):
                found = getattr(found, part)
            self._found.append(found)
        return self._found[0]

    @property
    def __signature__(self) -> inspect.Signature:
        """What the function takes."""
        return inspect.signature(self._resolve())

    def __call__(self, **kwargs: Any) -> Any:
        """Make the judge."""
        return self._resolve()(**kwargs)


def _judge(name: str, where: str, summary: str, *facts: Any) -> tuple[ScorerInfo, JudgeFactory]:
    return ScorerInfo(name, summary, *facts), JudgeFactory(where)


JUDGES = (
    _judge(
        "pickscore",
        "pickscore:PickScorer.from_pretrained",
        "PickScore: which image of a prompt people would pick; usual values",
        *(16.0, 26.0, True, "human", "yuvalkirstain/PickScore_v1", "not stated (code: MIT)", ""),
    ),
    _judge(
        "siglip",
        "siglip:SigLIPScorer.from_pretrained",
        "SigLIP 2: how well an image shows its prompt, as a probability",
        *(0.0, 1.0, True, "proxy", "google/siglip2-so400m-patch14-384", "Apache-2.0", "yes"),
    ),
    _judge(
        "laion_aesthetic",
        "laion_aesthetic:LAIONAestheticScorer.from_pretrained",
        "LAION's aesthetic predictor (version 2, or 1): how much people like an image",
        *(1.0, 10.0, False, "human", "christophschuhmann/improved-aesthetic-predictor", "Apache-2.0", "yes"),
    ),
    _judge(
        "hpsv2",
        "hpsv2:HPSv2Scorer.from_pretrained",
        "HPS v2.1 (or 2.0): which image of a prompt people would prefer; usual values",
        *(0.15, 0.4, True, "human", "xswu/HPSv2", "Apache-2.0", "yes"),
    ),
    _judge(
        "clip_iqa",
        "clip_iqa:CLIPIQAScorer.from_pretrained",
        "CLIP-IQA: whether a photo looks good rather than bad to CLIP",
        *(0.0, 1.0, False, "proxy", "open_clip RN50-quickgelu, openai", "MIT", "yes"),
    ),
    _judge(
        "imagereward",
        "imagereward:ImageRewardScorer.from_pretrained",
        "ImageReward: how much people would prefer an image for its prompt; usual values",
        *(-2.5, 2.5, True, "human", "THUDM/ImageReward", "Apache-2.0", "yes"),
    ),
    _judge(
        "vqascore",
        "asked.vqascore:VQAScorer.from_pretrained",
        "VQAScore: how probable is Yes, asked whether an image shows its prompt",
        *(0.0, 1.0, True, "proxy", "Qwen/Qwen2.5-VL-7B-Instruct", "Apache-2.0", "yes"),
    ),
    _judge(
        "hpsv3",
        "asked.hpsv3:HPSv3Scorer.from_pretrained",
        "HPS v3: how much people would prefer an image for its prompt; usual values",
        *(-5.0, 15.0, True, "human", "MizzenAI/HPSv3", "Apache-2.0", "yes"),
    ),
    _judge(
        "qalign",
        "asked.qalign:QAlignScorer.from_pretrained",
        "Q-Align (Q-SiT): quality of an image, from a choice among five words",
        *(1.0, 5.0, False, "human", "zhangzicheng/q-sit-mini", "MIT", "yes"),
    ),
    _judge(
        "unified_reward",
        "asked.unified_reward:UnifiedRewardScorer.from_pretrained",
        "UnifiedReward 2.0: a model's own ratings of an image for its prompt",
        *(1.0, 5.0, True, "human", "CodeGoat24/UnifiedReward-2.0-qwen3vl-8b", "MIT", "yes"),
    ),
    _judge(
        "pyiqa",
        "pyiqa:PyIQAScorer.from_pretrained",
        "Any metric of pyiqa that needs no reference, as pyiqa:NAME (pyiqa:musiq)",
        *(None, None, False, "", "pyiqa:NAME", "PolyForm Noncommercial 1.0.0", "no"),
    ),
)
"""Facts and factory of each judge; `registry` makes them known."""
