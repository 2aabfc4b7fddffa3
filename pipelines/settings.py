"""`cogguided.json`: what a saved folder says beyond plain diffusers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from .._errors import InputError, RecordError
from ..guidance import Guidance, as_guidance, guidance_from_dict, guidance_to_dict
from ..scorers import Scorer, TargetSpec

FILE = "cogguided.json"
VERSION = 1

ScorerSpec = str | Scorer | Mapping[str, Scorer | Mapping[str, Any]]
"""A name, folder or hub name; a scorer; or, by term of the target, a scorer or arguments of `load_scorer`."""


@dataclass(frozen=True)
class Settings:
    """What a pipeline does when its call does not say otherwise.

    Attributes:
        target: what is wanted; None: whatever `scorer` scores, or nothing.
        scorer: what the target's terms are scored by, where not by the embedded model.
        guidance: steps, in order.
        call_defaults: arguments of the base pipeline's call.
    """

    target: TargetSpec | None = None
    scorer: ScorerSpec | None = None
    guidance: Sequence[Guidance] = ()
    call_defaults: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Describe the settings in JSON's types.

        Raises:
            InputError: a scorer object, or a guidance that has no name to load it by.

        >>> Settings(target="memorability").to_dict()
        {'version': 1, 'target': 'memorability', 'scorer': None, 'guidance': [], 'call_defaults': {}}
        """
        facts = {
            "version": VERSION,
            "target": _plain("target", self.target),
            "scorer": _plain("scorer", self.scorer),
            "guidance": [guidance_to_dict(step) for step in self.guidance],
            "call_defaults": dict(self.call_defaults),
        }
        try:
            json.dumps(facts)
        except TypeError as error:
            raise InputError(f"{FILE}: {error}") from error
        return facts

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Settings:
        """Read settings from JSON's types.

        Raises:
            RecordError: a version of the format that is not known here.

        >>> Settings.from_dict({"version": 1, "target": "memorability"}).target
        'memorability'
        """
        if facts.get("version") != VERSION:
            found = facts.get("version")
            raise RecordError(f"{FILE}: version {found!r}, expected {VERSION}: upgrade cogguided")
        return cls(
            facts.get("target"),
            facts.get("scorer"),
            [guidance_from_dict(step) for step in facts.get("guidance") or ()],
            facts.get("call_defaults") or {},
        )


def _plain(what: str, spec: Any) -> Any:
    if isinstance(spec, Mapping):
        return {_plain(what, key): _plain(what, value) for key, value in spec.items()}
    if isinstance(spec, str | int | float | bool | None):
        return spec
    raise InputError(
        f"{what}: a {type(spec).__name__} object cannot be saved, only how to load it by name; register it "
        f"(cogguided.register_scorer) and give its name, or set pipe.{what} = None before saving"
    )


def read_settings(model: str | Path, revision: str | None = None, local_files_only: bool = False) -> Settings:
    """Read the settings of a folder or hub repository; empty ones if it has none.

    Raises:
        RecordError: the file is there and cannot be read.

    >>> read_settings("/nowhere") == Settings()
    True
    """
    path = Path(model) / FILE
    if not Path(model).is_dir():
        if str(model).count("/") != 1 or str(model).startswith("/"):
            return Settings()
        try:
            path = Path(hf_hub_download(str(model), FILE, revision=revision, local_files_only=local_files_only))
        except EntryNotFoundError:  # it has none, or is offline and never had it
            return Settings()
    if not path.is_file():
        return Settings()
    try:
        return Settings.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise RecordError(f"{path}: {error}") from error


def override(
    saved: Settings,
    target: TargetSpec | None,
    scorer: ScorerSpec | None,
    guidance: Guidance | Sequence[Guidance] | None,
) -> Settings:
    """Return settings in which what is given stands in the place of what was saved.

    >>> override(Settings(target="clip"), None, "fake", None).target
    'clip'
    """
    return Settings(
        saved.target if target is None else target,
        saved.scorer if scorer is None else scorer,
        saved.guidance if guidance is None else as_guidance(guidance),
        saved.call_defaults,
    )
