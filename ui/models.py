"""The models that the page may use: those named on the command line, each loaded once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .._errors import unknown_name
from ..guidance import Candidate
from ..pipelines import CogGuidedPipeline
from ..scorers import DIMENSIONS, Target, list_scorers, load_target
from ..scorers.mllm.readout import Distribution
from ..scorers.mllm.scorer import MLLMScorer

ORIGINAL = "original"
Looked = dict[str, tuple[float, float | None]]


class Models:
    """Loads pipelines and judges by the names that were given at the start, and no others.

    So nobody who reaches the page has it open another folder or fetch from the Hub.

    Args:
        models: "embedded", folders or hub names; the first is the page's first choice.
        scorer: scores the targets' terms; None: by name.
        aligned: models to put in the place of a text encoder.
        device: a torch device by name.
        dtype: of the pipelines' weights.
    """

    def __init__(
        self,
        models: Sequence[str] = ("embedded",),
        scorer: str | None = None,
        aligned: Sequence[str] = (),
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.names = list(dict.fromkeys(models))
        self.encoders = [ORIGINAL, *dict.fromkeys(aligned)]
        self.scorer, self.device, self.dtype = scorer, device, dtype
        self._pipes: dict[str, CogGuidedPipeline] = {}
        self._targets: dict[str, Target] = {}
        self._guard = threading.RLock()

    @property
    def judges(self) -> list[str]:
        """Names of judges beside the four dimensions."""
        return [info.name for info in list_scorers() if info.name not in (*DIMENSIONS, "mllm", "open_clip", "pyiqa")]

    def pipe(self, name: str) -> CogGuidedPipeline:
        """Return a pipeline, loaded at its first use.

        Raises:
            UnknownNameError: it was not named at the start.
        """
        if name not in self.names:
            raise unknown_name("model", name, self.names)
        with self._guard:
            if name not in self._pipes:
                dtype = getattr(torch, self.dtype)
                pipe = CogGuidedPipeline.from_pretrained(name, scorer=self.scorer, dtype=dtype)
                pipe.set_progress_bar_config(disable=True)
                self._pipes[name] = pipe.to(self.device)
            return self._pipes[name]

    def warm(self) -> None:
        """Load what the first images want, so that they do not wait for it."""
        self.dimensions(self.pipe(self.names[0]))

    def dimensions(self, pipe: CogGuidedPipeline) -> Target:
        """Return the four dimensions as a pipeline's judge scores them, in one pass where it is an MLLM."""
        found = pipe.load_target(dict.fromkeys(DIMENSIONS, 1.0))
        assert found is not None
        return found

    def target(self, judge: str | None) -> Target:
        """Return what Score scores by: the four dimensions, by the page's judge, or a judge by name.

        Raises:
            UnknownNameError: no such judge.
        """
        if judge and judge not in self.judges:
            raise unknown_name("judge", judge, self.judges)
        with self._guard:
            key = judge or ""
            if key not in self._targets:
                if judge:
                    self._targets[key] = load_target(judge)
                else:
                    self._targets[key] = self.dimensions(self.pipe(self.names[0]))
                for term in self._targets[key].terms:
                    term.scorer.to(self.device)
            return self._targets[key]

    def look(self, pipe: CogGuidedPipeline, candidates: Sequence[Candidate]) -> list[Looked]:
        """Score candidates in every dimension: value and spread by name; those without a score are left out."""
        result = self.dimensions(pipe)([c.image for c in candidates], [c.prompt for c in candidates])
        found: list[Looked] = [{} for _ in candidates]
        for name, scores in result.terms.items():
            stds = None if scores.std is None else scores.std.tolist()
            for row, (value, valid) in enumerate(zip(scores.values.tolist(), scores.valid.tolist(), strict=True)):
                if valid:
                    found[row][name] = (value, None if stds is None else stds[row])
        return found

    def distribution(
        self, pipe: CogGuidedPipeline, image: Image.Image, dimension: str
    ) -> tuple[Distribution, float, float] | None:
        """Return a judge's distribution over its answers about an image, and its range; None if it has none."""
        for term in self.dimensions(pipe).terms:
            if term.name == dimension and isinstance(term.scorer, MLLMScorer):
                (found,) = term.scorer.distributions([image], dimension)
                return None if found is None else (found, term.scorer.low, term.scorer.high)
        return None

    def facts(self) -> dict[str, Any]:
        """What a call of these models is written down with."""
        return {"scorer": self.scorer, "device": self.device, "dtype": self.dtype}


def inside(folder: Path, path: Path) -> bool:
    """Whether a path, links followed, lies in a folder.

    >>> inside(Path("/tmp"), Path("/tmp/../etc/passwd"))
    False
    """
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name that cannot be one
        return False
