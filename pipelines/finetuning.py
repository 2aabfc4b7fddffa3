"""One call from a pipeline, a target and prompts to a LoRA: check, load, train, judge, save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from .._errors import InputError, missing_extra
from ..guidance.finetuning.checkpoints import RUN_FILE, State, check_same, describe
from ..guidance.finetuning.config import FinetuneConfig, recipe
from ..guidance.finetuning.drawing import seed_of
from ..guidance.finetuning.judging import Panel
from ..guidance.finetuning.loop import Finetuning
from ..guidance.finetuning.panel import Evaluation
from ..scorers import Scorer, TargetSpec
from .arguments import check_arguments
from .driving.learner import PipelineLearner
from .embedded import is_embedded
from .loading import EMBEDDED
from .study.judges import guided_view, load_faithfulness, load_judges, read_lines


@dataclass(frozen=True)
class FinetuneResult:
    """What a run came to.

    Attributes:
        folder: with the LoRA, for `load_lora_weights` of plain diffusers; report.html; the checkpoints.
        rounds: rounds done.
        seconds: of the run, those before a resume included.
        stopped: "rounds", "minutes" or "alarm".
        alarm: the member of the panel that fell while the target rose; None if none did.
        saved_round: round whose adapter is saved.
        evaluations: on the held-out prompts, the first before training.
        unread: images without a valid score, which were left out.
    """

    folder: Path
    rounds: int
    seconds: float
    stopped: str
    alarm: str | None
    saved_round: int
    evaluations: list[Evaluation]
    unread: int

    @property
    def before(self) -> Evaluation:
        """The untrained model's evaluation."""
        return self.evaluations[0]

    @property
    def saved(self) -> Evaluation:
        """The evaluation of the adapter that is saved."""
        return next(e for e in self.evaluations if e.round == self.saved_round)


def finetune(
    pipe: DiffusionPipeline | str | Path,
    target: TargetSpec | None = None,
    prompts: Sequence[str] | str | Path = (),
    output: str | Path = "out/finetuned",
    config: FinetuneConfig | None = None,
    *,
    evaluation: Sequence[str] | str | Path | None = None,
    anchors: Sequence[str] | str | Path | None = None,
    scorer: Any = None,
    judges: Mapping[str, TargetSpec] | Sequence[str] | None = None,
    faithfulness: str | Scorer | None = "clip",
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **arguments: Any,
) -> FinetuneResult:
    """Teach a text-to-image pipeline, by LoRA, to draw what a target likes.

    The pipeline is left with the trained adapter on it. Under ``accelerate launch`` every process calls this alike,
    and together they do what one would.

    Args:
        pipe: any text-to-image pipeline, or what `CogGuidedPipeline.from_pretrained` loads.
        target: what images should have more of; default: the pipeline's own (see `load_target`).
        prompts: to train on, or a file with one a line.
        output: folder for the LoRA, the report and checkpoints.
        config: settings; default: `FinetuneConfig()`, or for "embedded" what suits it (see `recipe`).
        evaluation: held-out prompts, or a file; default: the share `config.held_out` of the prompts.
        anchors: prompts, or a file, whose images should stay as they are: other things than those trained on, to
            which the change would spread (see `FinetuneConfig.anchor_weight`).
        scorer: scores the target's terms (see `CogGuidedPipeline`).
        judges: others that judge the held-out images and are never trained on: targets by name; or a list, in which
            a registered scorer or weights ("memorability=-1") stand for themselves, and the folder or hub name of an
            MLLM is asked what the target asks. Default: for emotional valence of "embedded", its twin, aligned on the
            other half of the human ratings; else none.
        faithfulness: scorer of images against prompts, which tells diversity too; None: neither is watched.
        resume: go on from the last checkpoint in `output`, with the same settings.
        overwrite: use `output` although a run is in it.
        progress: show a bar.
        **arguments: of the pipeline's call, such as num_inference_steps, height, guidance_scale.

    Raises:
        InputError: prompts, settings or folders that cannot be used.
        ModelError: the pipeline has no denoiser that a LoRA fits, or asks it in a way that leaves no loss defined.
        TrainingError: loss not finite or exploding, or out of memory; finished rounds are kept.
        RecordError: the folder of a run to resume cannot be read.

    An executed example is ``examples/finetune_embedded.py``.
    """
    chosen = recipe(_is_embedded(pipe)) if config is None else config
    training, held_out = check_run(prompts, output, chosen, evaluation, resume, overwrite)
    kept = read_anchors(anchors, training)
    guided = guided_view(pipe, target, scorer)
    wanted = guided.load_target()
    if wanted is None:
        raise InputError("finetune: no target; pass what images should have more of, e.g. target='memorability'")
    check_arguments(guided.base_class, arguments)
    arguments = {**guided._settings.call_defaults, **arguments}
    facts = describe(str(guided.config.get("_name_or_path")), wanted.name, training, held_out, chosen, kept)
    folder = Path(output)
    if resume:
        check_same(folder, facts)
    panel = Panel(wanted, load_judges(guided, wanted, judges), load_faithfulness(guided, faithfulness))
    if chosen.low_memory:
        _save_memory(guided)
    shown = guided._progress_bar_config if hasattr(guided, "_progress_bar_config") else {}
    guided.set_progress_bar_config(disable=True)
    try:
        seed = seed_of(chosen.seed, "lora")
        shape = (chosen.rank, chosen.alpha, chosen.target_modules)
        learner = PipelineLearner(guided, guided.base_class, arguments, *shape, seed, chosen.guided)
        if chosen.checkpoints_activations:
            learner.checkpoint_activations()
        state = Finetuning(learner, panel, training, held_out, folder, facts, chosen, progress, kept).run(resume)
    finally:
        guided.set_progress_bar_config(**{"disable": False, **shown})
    return _result(folder, state)


def _result(folder: Path, state: State) -> FinetuneResult:
    assert state.stopped is not None
    assert state.saved is not None
    return FinetuneResult(
        folder, state.round, state.seconds, state.stopped, state.alarm, state.saved, state.evaluations, state.unread
    )


def check_run(
    prompts: Sequence[str] | str | Path,
    output: str | Path,
    config: FinetuneConfig,
    evaluation: Sequence[str] | str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> tuple[list[str], list[str]]:
    """Check what can be checked before a model is loaded, and return prompts to train on and held-out ones.

    Raises:
        InputError: prompts that cannot be used, or a folder that is in use, or has nothing to resume.
        MissingExtraError: what the run reports to is not installed.
    """
    if config.report_to != "none" and find_spec(config.report_to) is None:
        raise missing_extra(config.report_to, "wandb" if config.report_to == "wandb" else "train")
    folder = Path(output)
    if resume and not (folder / RUN_FILE).is_file():
        raise InputError(f"{folder}: nothing to resume, no {RUN_FILE} there")
    if not resume and not overwrite and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} is not empty: resume (--resume), overwrite (--overwrite), or take another folder"
        )
    return split_prompts(read_lines(prompts), read_lines(evaluation), config)


def read_anchors(anchors: Sequence[str] | str | Path | None, prompts: Sequence[str]) -> list[str]:
    """Return the prompts whose images should stay as they are.

    Raises:
        InputError: one of them is trained on.

    >>> read_anchors(["a cat"], ["a cat", "a dog"])
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: anchors: 'a cat' is trained on; what is to change cannot be held in place
    """
    found = read_lines(anchors)
    for text in found:
        if text in prompts:
            raise InputError(f"anchors: {text!r} is trained on; what is to change cannot be held in place")
    return found


def split_prompts(prompts: list[str], evaluation: list[str], config: FinetuneConfig) -> tuple[list[str], list[str]]:
    """Return prompts to train on and held-out ones, which share none.

    Raises:
        InputError: too few, or none that could be held out.

    >>> [len(part) for part in split_prompts([f"a {n}" for n in "abcdefghij"], [], FinetuneConfig())]
    [8, 2]
    """
    if not prompts:
        raise InputError("prompts: there are none to train on; give a list, or a file with one a line")
    both = sorted(set(prompts) & set(evaluation))
    if both:
        raise InputError(
            f"{len(both)} prompts are both trained on and held out, e.g. {both[0]!r}: leave them out of one"
        )
    if evaluation:
        return prompts, evaluation
    count = max(2, round(config.held_out * len(prompts)))
    if len(prompts) < count + 1:
        raise InputError(f"prompts: {len(prompts)} are too few to hold some out; give more, or evaluation prompts")
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(config.seed)).tolist()
    held = sorted(order[:count])
    return [p for i, p in enumerate(prompts) if i not in held], [prompts[i] for i in held]


def _is_embedded(pipe: DiffusionPipeline | str | Path) -> bool:
    if isinstance(pipe, str | Path):
        return str(pipe) == EMBEDDED
    return is_embedded(pipe.config.get("_name_or_path"))


def _save_memory(pipe: DiffusionPipeline) -> None:
    """Let the VAE decode image by image, in tiles, where it can."""
    vae = pipe.components.get("vae")
    for name in ("enable_slicing", "enable_tiling"):
        if hasattr(vae, name):
            getattr(vae, name)()

