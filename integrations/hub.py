"""The Hugging Face Hub: a judge, a guided pipeline or a LoRA published with a model card, by one call."""

from __future__ import annotations

import tempfile
from pathlib import Path

from huggingface_hub import CommitInfo, ModelCard

from .._errors import InputError, ModelError
from ..guidance.finetuning.checkpoints import RUN_FILE
from ..pipelines.cog_guided import CogGuidedPipeline
from ..pipelines.publishing import stage_lora, stage_pipeline, write_pipeline_card
from ..pipelines.settings import FILE
from ..scorers.mllm.scorer import MLLMScorer
from ..scorers.publishing import CardFacts as CardFacts
from ..scorers.publishing import full_name, stage_judge, upload


def push_to_hub(
    what: str | Path | MLLMScorer | CogGuidedPipeline,
    repo_id: str,
    card: CardFacts | None = None,
    *,
    benchmark: str | Path | None = None,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> CommitInfo:
    """Upload a judge, a guided pipeline or a LoRA, with a model card, to the Hugging Face Hub.

    It comes back by its name: `load_scorer(repo_id)`, `CogGuidedPipeline.from_pretrained(repo_id)`, or
    `pipe.load_lora_weights(repo_id)`. The Hub checks the card before anything is uploaded. What only a run needs
    (checkpoints, optimisers, paths of your machine) is left out. A card whose text was changed keeps its text.

    Args:
        what: a folder of `align` (an adapter or a model), of `finetune`, or of a saved guided pipeline; or a
            loaded judge or guided pipeline.
        repo_id: "OWNER/NAME", or a name of your own; the repository is made unless it is there.
        card: licence, base model, pictures, ... (see `CardFacts`).
        benchmark: of a judge: a finished run of `cogguided bench`, whose figures and intervals go into the card.
        private: whether a new repository is private.
        token: of the Hub; default: the one of `hf auth login`.
        commit_message: of the upload.
        create_pr: open a pull request in place of a commit.

    Raises:
        InputError: no name of a repository; a base that is a folder of this machine; or the Hub refuses the card.
        ModelError: nothing there that could be published.
        HfHubHTTPError: the Hub says no (all of `huggingface_hub`'s own).

    Executed in ``tests/integrations/test_hub.py``.
    """
    name, message = full_name(repo_id, token), commit_message
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "staged"
        save_for_hub(what, folder, name, card, benchmark=benchmark, link=True)
        return upload(folder, name, private=private, token=token, commit_message=message, create_pr=create_pr)


def save_for_hub(
    what: str | Path | MLLMScorer | CogGuidedPipeline,
    folder: str | Path,
    name: str,
    card: CardFacts | None = None,
    *,
    benchmark: str | Path | None = None,
    link: bool = False,
) -> ModelCard:
    """Write into a folder what `push_to_hub` would upload, and return its card, to be looked at first.

    Args:
        what: as for `push_to_hub`.
        folder: not there yet, or empty.
        name: of the repository, which the card's code names.
        card: as for `push_to_hub`.
        benchmark: as for `push_to_hub`.
        link: link large files in place of copying them.

    Raises:
        InputError: the folder is in use, or a base is a folder of this machine.
        ModelError: nothing there that could be published.

    Executed in ``tests/integrations/test_hub.py``.
    """
    target, said = Path(folder), card or CardFacts()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is not empty: name a new folder")
    runs = None if benchmark is None else Path(benchmark)
    if isinstance(what, MLLMScorer):
        with tempfile.TemporaryDirectory() as place:
            what.save_pretrained(place)
            return stage_judge(Path(place), target, name, said, runs, same=False)
    if isinstance(what, str | Path):
        source = Path(what)
        if (source / "model_index.json").is_file() and (source / FILE).is_file():
            check_no(runs, "a pipeline")
            return stage_pipeline(source, target, name, said, link)
        if (source / RUN_FILE).is_file():
            check_no(runs, "a LoRA")
            return stage_lora(source, target, name, said, link)
        if source.is_dir():
            return stage_judge(source, target, name, said, runs, link)
        raise ModelError(f"{what}: no such folder; expected one of align, of finetune, or of a saved pipeline")
    if not isinstance(what, CogGuidedPipeline):
        raise InputError(f"push_to_hub: expected a folder, a judge or a guided pipeline, got {type(what).__name__}")
    check_no(runs, "a pipeline")
    what.save_pretrained(target)
    return write_pipeline_card(target, name, said, str(what.config.get("_name_or_path")))


def check_no(benchmark: Path | None, kind: str) -> None:
    """Check that no run of the benchmark is given for what is not a judge.

    Raises:
        InputError: one is.

    >>> check_no(Path("runs/bench"), "a LoRA")
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: benchmark: is of judges, and this is a LoRA
    """
    if benchmark is not None:
        raise InputError(f"benchmark: is of judges, and this is {kind}")
