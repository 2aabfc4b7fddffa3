"""Who judges beside the target, and prompts from files: what runs over many prompts have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from ..._errors import InputError
from ..._texts import prompt_lines, read_text
from ...scorers import Scorer, Target, TargetSpec, load_scorer, load_target
from ...scorers.registry import list_scorers
from ..cog_guided import CogGuidedPipeline
from ..embedded import embedded_path

VALENCE = "emotional_valence"


def guided_view(pipe: DiffusionPipeline | str | Path, target: TargetSpec | None, scorer: Any) -> CogGuidedPipeline:
    """Return a guided view of a pipeline, or load one by name or folder."""
    if isinstance(pipe, str | Path):
        return CogGuidedPipeline.from_pretrained(pipe, target=target, scorer=scorer)
    return CogGuidedPipeline.from_pipe(pipe, target=target, scorer=scorer)


def load_judges(
    guided: CogGuidedPipeline, target: Target, judges: Mapping[str, TargetSpec] | Sequence[str] | None
) -> dict[str, Target]:
    """Load judges that are never trained on or chosen by, each as a signed target of its own.

    Args:
        guided: the pipeline whose images they judge.
        target: what is wanted.
        judges: targets by name; or a list, in which a registered scorer or weights stand for themselves, and the
            folder or hub name of an MLLM is asked what the target asks. None: for emotional valence of "embedded",
            its twin, aligned on the other half of the human ratings, and a judge of another kind, "independent", that
            learned the same half; else none.

    Raises:
        InputError: a name that another member of a panel has.
    """
    device = guided._execution_device
    if judges is None:
        weight = target.weights.get(VALENCE)
        if not guided._is_embedded or not weight:
            return {}
        twin = load_scorer(str(embedded_path() / "judge"), dimension=VALENCE).to(device)
        other = load_scorer("independent").to(device)
        return {
            "held-out judge": load_target({VALENCE: weight}, scorer=twin),
            "independent judge": load_target({"independent": weight}, scorer=other),
        }
    if isinstance(judges, Mapping):
        found = {name: spec if isinstance(spec, Target) else load_target(spec) for name, spec in judges.items()}
    else:
        registered = {info.name for info in list_scorers()}
        found = {}
        for text in judges:
            if "=" in text or text in registered:
                found[text] = load_target(text)
            else:
                other = load_scorer(text, dimension=next(iter(target.weights)))
                found[text] = load_target(target.weights, scorer=other)
    for name, judge in found.items():
        if name in ("target", "faithfulness", "diversity"):
            raise InputError(f"judges: {name!r} is the name of another member of the panel; take another")
        for term in judge.terms:
            term.scorer.to(device)
    return found


def load_faithfulness(guided: CogGuidedPipeline, faithfulness: str | Scorer | None) -> Scorer | None:
    """Load the scorer of images against prompts."""
    if faithfulness is None or isinstance(faithfulness, Scorer):
        return faithfulness
    return guided._load_scorer(faithfulness) if faithfulness == "clip" else load_scorer(faithfulness)


def read_lines(prompts: Sequence[str] | str | Path | None) -> list[str]:
    """Return prompts: given, or of a file, one a line or a JSON list of texts; repeated ones once.

    Lines of a text file that begin with "#" are comments.

    Raises:
        InputError: no such file, or something that is no text.

    >>> read_lines(["a cat", " a dog", "a cat"])
    ['a cat', 'a dog']
    """
    if prompts is None:
        return []
    if isinstance(prompts, str | Path):
        file = Path(prompts)
        try:
            text = read_text(file)
            prompts = json.loads(text) if file.suffix == ".json" else prompt_lines(text)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"prompts: {file} cannot be read as text, one a line or JSON ({error})") from error
    if not isinstance(prompts, list | tuple):
        raise InputError(f"prompts: expected a list of texts, got {type(prompts).__name__}")
    for text in prompts:
        if not isinstance(text, str):
            raise InputError(f"prompts: expected text, got {type(text).__name__}")
    return list(dict.fromkeys(text.strip() for text in prompts if text.strip()))
