"""What a guided pipeline saves and publishes, and what is published of a LoRA that `finetune` made."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from huggingface_hub import CommitInfo, EvalResult, ModelCard

from .._errors import InputError, ModelError, RecordError
from ..guidance.finetuning.checkpoints import RUN_FILE, read_json, read_state
from ..guidance.finetuning.panel import TARGET, Evaluation, interval
from ..guidance.text_encoder.swap import ACTIVE
from ..scorers import list_scorers
from ..scorers.publishing.cards import CARD, CardFacts, figure, is_hub_name, markdown_table, with_interval, write_card
from ..scorers.publishing.uploading import full_name, place, upload
from .embedded import is_embedded
from .settings import FILE, Settings

LORA = "pytorch_lora_weights.safetensors"
PEFT = ("adapter_model.safetensors", "adapter_config.json")
Row = tuple[str, float, float, float, float, float]
"""Name, before, saved, and the change with its interval."""


class Published(DiffusionPipeline):
    """The part of a guided pipeline that writes it down: `save_pretrained` and `push_to_hub`."""

    _settings: Settings

    def save_pretrained(
        self, save_directory: str | Path, *args: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Save the base pipeline as diffusers does, and target, scorer and guidance in `cogguided.json`.

        With `push_to_hub` the folder goes to the Hub too, with a model card; `repo_id`, `token`, `private`,
        `commit_message`, `create_pr` and `card` are then as in the method of that name.

        Raises:
            InputError: the target, scorer or guidance is an object which cannot be loaded by a name.
        """
        facts = self._settings.to_dict()
        if ACTIVE in self.__dict__:
            raise InputError(
                "save_pretrained: a text encoder is swapped in; bake() the swap to save it as it is now, or unswap()"
            )
        folder = Path(save_directory)
        names = ("private", "token", "commit_message", "create_pr")
        pushing = {name: kwargs.pop(name) for name in names if push_to_hub and name in kwargs}
        repo_id = full_name(kwargs.pop("repo_id", folder.name), pushing.get("token")) if push_to_hub else ""
        said = kwargs.pop("card", None) if push_to_hub else None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
        super().save_pretrained(save_directory, *args, **kwargs)
        if push_to_hub:
            write_pipeline_card(folder, repo_id, said, str(self.config.get("_name_or_path")))
            upload(folder, repo_id, **pushing)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        *,
        card: CardFacts | None = None,
    ) -> CommitInfo:
        """Upload the pipeline with its target, scorer and guidance, and a model card, to the Hugging Face Hub.

        `CogGuidedPipeline.from_pretrained(repo_id)` has it back; plain diffusers opens it too. A card there whose
        text somebody has changed keeps its text. Arguments are diffusers' own, and:

        Args:
            card: licence, base model, pictures, ...: what the card should say beside what the pipeline knows.

        Raises:
            InputError: no name of a repository, or something that cannot be saved.
            HfHubHTTPError: the Hub says no (all of `huggingface_hub`'s own).

        Executed in ``tests/integrations/test_hub.py``.
        """
        repo_id = full_name(repo_id, token)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "pipeline"
            self.save_pretrained(folder, safe_serialization=safe_serialization, variant=variant)
            write_pipeline_card(folder, repo_id, card, str(self.config.get("_name_or_path")))
            return upload(
                folder, repo_id, private=private, token=token, commit_message=commit_message, create_pr=create_pr
            )


def write_pipeline_card(folder: Path, name: str, said: CardFacts | None = None, loaded: str = "") -> ModelCard:
    """Write the model card of a saved guided pipeline into its folder, and return it.

    Args:
        folder: of the pipeline.
        name: of the repository.
        said: what its publisher says.
        loaded: what the pipeline was loaded from, which is its base if that is a hub name.

    Raises:
        InputError: its scorer is a folder of this machine.
        RecordError: the folder's files cannot be read.

    Executed in ``tests/integrations/test_hub.py``.
    """
    said = said or CardFacts()
    if said.base_model is None and is_hub_name(loaded):
        said = replace(said, base_model=loaded)
    facts, kind = read_json(folder / FILE), read_json(folder / "model_index.json").get("_class_name")
    if local := local_folders(facts.get("scorer")):
        raise InputError(
            f"scorer: {local[0]} is a folder of this machine, which nobody else has: publish it "
            "(cogguided align push), and set pipe.scorer to its name on the Hub"
        )
    target = facts.get("target") or facts.get("scorer")
    code = [
        "from cogguided import CogGuidedPipeline", "", f'pipe = CogGuidedPipeline.from_pretrained("{name}")',
        'out = pipe("a face", seed=0)', 'out.images[0].save("face.png")',
    ]  # fmt: skip
    wanted = f"more of {target}" if target else "no target"
    text = [
        f"A text-to-image pipeline ({kind}) that a judge of images guides: {wanted}. Made with cogguided.",
        "```python\n" + "\n".join(code) + "\n```",
        f'Plain diffusers opens it too, unguided: `DiffusionPipeline.from_pretrained("{name}")`.',
        f"What a call does unless it says otherwise:\n\n```json\n{json.dumps(facts, indent=2)}\n```",
    ]
    return write_card(
        folder, name, "\n\n".join(text), said, [], library_name="diffusers", pipeline_tag="text-to-image",
        tags=["text-to-image", "diffusers", "guided-generation"],
    )  # fmt: skip


def local_folders(spec: Any) -> list[str]:
    """Return the folders that a scorer's description names.

    >>> local_folders({"memorability": {"model": "/"}, "clip": {"model": "owner/clip"}})
    ['/']
    """
    if isinstance(spec, Mapping):
        return [name for value in spec.values() for name in local_folders(value)]
    known = {info.name for info in list_scorers()}
    return [spec] if isinstance(spec, str) and spec not in known and Path(spec).is_dir() else []


def stage_pipeline(source: Path, target: Path, name: str, said: CardFacts, link: bool = False) -> ModelCard:
    """Put into a folder what is to be published of a saved guided pipeline, with its card; weights as safetensors.

    Executed in ``tests/integrations/test_hub.py``.
    """
    files = [
        file for file in sorted(source.rglob("*")) if file.is_file() and file.suffix not in (".bin", ".pt", ".ckpt")
    ]
    kept = [file for file in files if not any(part.startswith(".") for part in file.relative_to(source).parts)]
    place([file for file in kept if file.name != CARD], source, target, link)
    return write_pipeline_card(target, name, said)


def stage_lora(source: Path, target: Path, name: str, said: CardFacts, link: bool = False) -> ModelCard:
    """Put into a folder what is to be published of a run of `finetune`: LoRA, card, pictures of held-out prompts.

    Args:
        source: the run's folder.
        target: the new folder.
        name: of the repository.
        said: what its publisher says.
        link: link the weights in place of copying them.

    Raises:
        ModelError: the run has left no LoRA yet.
        InputError: the generator is a folder of this machine, and `said.base_model` does not name it.
        RecordError: the run's files cannot be read.

    Executed in ``tests/integrations/test_hub.py``.
    """
    facts, state = read_json(source / RUN_FILE), read_state(source)
    weights = [source / LORA] if (source / LORA).is_file() else [source / file for file in PEFT]
    if not all(file.is_file() for file in weights) or state is None or not state.evaluations:
        raise ModelError(f"{source}: no LoRA there yet (no {LORA}); finish the run first: finetune(resume=True)")
    embedded = is_embedded(facts.get("model"))
    if said.base_model is None and not embedded:
        if not is_hub_name(facts.get("model")):
            raise InputError(
                f"{source}: its generator is {facts.get('model')!r}, which nobody else has: say what that is "
                "called on the Hub (CardFacts(base_model='OWNER/NAME'), --base-model)"
            )
        said = replace(said, base_model=str(facts["model"]))
    target.mkdir(parents=True, exist_ok=True)
    place(weights, source, target, link)
    before = state.evaluations[0]
    saved = next((e for e in state.evaluations if e.round == state.saved), before)
    pictures = []
    for made, words in ((before, "before"), (saved, "after")):
        file = source / "evaluations" / f"round-{made.round:05d}.png"
        if file.is_file():
            (target / "evaluations").mkdir(exist_ok=True)
            shutil.copyfile(file, target / "evaluations" / f"{words}.png")
            pictures.append(f"![{words}](evaluations/{words}.png)")
    try:
        text = describe_lora(name, facts, changes(before, saved), said.base_model, pictures, weights[0].name == LORA)
        figures = lora_figures(changes(before, saved), len(facts["evaluation"]))
    except KeyError as error:
        raise RecordError(f"{source / RUN_FILE}: says nothing of {error}") from error
    library = "diffusers" if weights[0].name == LORA else "peft"
    relation = None if said.base_model is None else "adapter"
    return write_card(
        target, name, text, said, figures, library_name=library, pipeline_tag="text-to-image",
        base_model_relation=relation, tags=["text-to-image", "diffusers", "lora", "reward-fine-tuning"],
    )  # fmt: skip


def changes(before: Evaluation, saved: Evaluation) -> list[Row]:
    """Return what each member of the panel says before and after, with the paired change and its 95 % interval."""
    found = []
    for name in saved.values:
        mean, low, high = interval(saved.values[name] - before.values[name])
        found.append((name, before.mean(name), saved.mean(name), mean, low, high))
    return found


def lora_figures(rows: Sequence[Row], prompts: int) -> list[EvalResult | None]:
    """Return the changes as the Hub's `model-index` has them.

    >>> lora_figures([("target", 0.5, 0.7, 0.2, 0.1, 0.3)], 4)[0].metric_value
    0.2
    """
    dataset, found = ("held-out-prompts", f"{prompts} held-out prompts"), []
    for kind, start, end, change, low, high in rows:
        metric = (f"{kind}_change", f"change of {kind}, in shares of its range")
        ends = {"before": round(start, 6), "after": round(end, 6), "prompts": prompts}
        found.append(figure("text-to-image", dataset, metric, change, (low, high), **ends))
    return found


def describe_lora(
    name: str, facts: dict[str, Any], rows: Sequence[Row], base: str | None, pictures: Sequence[str], plain: bool
) -> str:
    """Write the text of a LoRA's card."""
    maker, source = ("CogGuidedPipeline", "embedded") if base is None else ("DiffusionPipeline", base)
    package = "cogguided" if base is None else "diffusers"
    code = [f"from {package} import {maker}", "", f'pipe = {maker}.from_pretrained("{source}")']
    peft = ["from peft import PeftModel", "", f'PeftModel.from_pretrained(pipe.transformer, "{name}")']
    code += [f'pipe.load_lora_weights("{name}")'] if plain else ["", *peft]
    table = [
        [
            f"{kind} ({facts['target']})" if kind == TARGET else kind,
            f"{start:.3f}",
            f"{end:.3f}",
            with_interval(*change),
        ]
        for kind, start, end, *change in rows
    ]
    config = facts["config"]
    parts = [
        f"A LoRA that teaches {base or 'the small generator of cogguided'} to draw more of: {facts['target']}. By "
        f"{config['method']}, rank {config['rank']}, on {len(facts['prompts'])} prompts; made with cogguided.",
        "```python\n" + "\n".join(code) + "\n```",
        "## Held-out prompts, before and after",
        markdown_table(["", "before", "after", "change, with its 95 % interval"], table),
        "Means in shares of the range, signed so that higher is what was asked for; intervals are paired, over "
        f"{len(facts['evaluation'])} prompts that were not trained on.",
        *(["Before, then after; a row a prompt:", *pictures] if pictures else []),
    ]
    return "\n\n".join(parts)
