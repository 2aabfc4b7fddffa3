"""What the images of a run depend on: written into its folder, and compared when it goes on."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._errors import InputError, RecordError
from ...guidance import Budget, Guidance, as_guidance
from ...guidance.text_encoder.swap import ACTIVE
from ...scorers import Scorer, Target, TargetSpec
from ...scorers.bulk.lines import differing
from ...scorers.mllm.scorer import MLLMScorer
from ..arguments import check_arguments
from ..calls import in_place_of, read_requests, tied_arguments, wants_base_output
from ..cog_guided import CogGuidedPipeline
from ..records.record import FILE, describe_call, describe_pipeline, read_single, versions
from ..records.streamed import RUN_FORMAT, RUN_VERSION
from .groups import told_prompts, told_seed

OTHERWISE = "choose another folder, or replace it (overwrite=True, --overwrite)"


def check_streamable(pipe: CogGuidedPipeline, arguments: Mapping[str, Any]) -> None:
    """Check that a call with these arguments can be cut into groups.

    Raises:
        InputError: one ties the images of a call together, or asks for the base pipeline's own output.
        UnknownNameError: the pipeline does not take one.
    """
    check_arguments(pipe.base_class, dict(arguments))
    whole = {**pipe._settings.call_defaults, **arguments}
    wants_base_output(whole, guided=True)
    tied = tied_arguments(whole)
    if tied:
        instead = "; ".join(dict.fromkeys(in_place_of(name) for name in tied))
        raise InputError(f"many prompts are made in groups, which {', '.join(tied)} cannot follow: {instead}")


def settings_of(
    pipe: CogGuidedPipeline,
    prompts: Iterable[str],
    group: int,
    target: TargetSpec | None,
    guidance: Guidance | Sequence[Guidance] | None,
    seed: int | Sequence[int] | None,
    budget: Budget,
    diversity: float,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that the images of a run depend on, in JSON's types: what a resumed run must agree in."""
    steps = pipe.guidance if guidance is None else as_guidance(guidance)
    wanted = pipe.load_target(target)
    call = describe_call([], wanted, steps, budget, {**pipe._settings.call_defaults, **arguments})
    model = describe_pipeline(pipe, pipe.base_class.__name__, pipe._revision)
    device = model.pop("device")
    model["device"] = device.partition(" ")[0]
    return {
        "format": RUN_FORMAT, "version": RUN_VERSION, "versions": versions(), "device": device,
        "drawn": secrets.randbelow(2**62), "prompts": told_prompts(prompts), "group": group, "seed": told_seed(seed),
        "diversity": diversity, "scorer": told_scorer(pipe.scorer), "model": model,
        "call": {name: value for name, value in call.items() if name not in ("prompts", "seeds")},
        "given": sorted(given_scorers(wanted)),
        "text_encoder": pipe.__dict__[ACTIVE].strength if ACTIVE in pipe.__dict__ else None,
    }  # fmt: skip


def told_scorer(scorer: Any) -> Any:
    """Return what stands for a pipeline's scorer in a run's settings.

    >>> told_scorer("clip"), told_scorer({"a": {"model": "b"}})
    ('clip', {'a': {'model': 'b'}})
    """
    if isinstance(scorer, Mapping):
        return {str(name): told_scorer(value) for name, value in scorer.items()}
    if scorer is None or isinstance(scorer, str | int | float | bool):
        return scorer
    if isinstance(scorer, MLLMScorer):
        dim = scorer.facts.dimensions[scorer.dimension]
        levels = f" {dict(dim.levels)}" if dim.levels else ""
        return f"{scorer.name} of {scorer.model_name}, {scorer.readout}: {dim.question}{levels}"
    return scorer.name if isinstance(scorer, Scorer) else type(scorer).__name__


def given_scorers(target: Target | None) -> list[str]:
    """Return the kinds of scorers of a target, by term."""
    return [] if target is None else [f"{term.name}: {type(term.scorer).__name__}" for term in target.terms]


def has_record_of(
    folder: Path, pipe: CogGuidedPipeline, prompts: Sequence[str], seed: int | None, settings: Mapping[str, Any]
) -> bool:
    """Whether a folder has the record of one call, whole; False if there is none or it was interrupted.

    Args:
        folder: of `CogGuidedOutput.save`.
        pipe: the pipeline.
        prompts: of the call.
        seed: of the call; None agrees with any.
        settings: of the call (see `settings_of`).

    Raises:
        RecordError: it has the record of another call.
    """
    if not (folder / FILE).exists():
        return False
    facts = read_single(folder).facts
    call = {name: value for name, value in facts["call"].items() if name != "seeds"}
    model = {**facts["model"], "device": facts["model"]["device"].partition(" ")[0]}
    now = {"prompts": list(prompts), **settings["call"]}
    there = {"call": call, "model": model}
    wanted = {"call": now, "model": settings["model"]}
    if seed is not None:
        there["seeds"] = facts["call"]["seeds"]
        requests = read_requests(prompts, seed, {}, guided=bool(settings["call"]["guidance"]))
        wanted["seeds"] = [request.seed for request in requests]
    changed = differing(there, wanted)
    if changed:
        raise RecordError(f"{folder}: holds a record of other settings ({changed}): {OTHERWISE}")
    return not facts["interrupted"]
