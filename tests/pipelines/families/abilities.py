"""What a pipeline can do with cogguided, tried on one class after the other: yes, or the sentence of the refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import PeftModel

from cogguided import (
    BestOfN,
    CogGuidedError,
    CogGuidedPipeline,
    Drafts,
    FakeScorer,
    FinetuneConfig,
    Halving,
    finetune,
    replay,
)
from cogguided._errors import BatchError
from cogguided.pipelines.driving.sampler import denoisers

from .registry import FAMILIES, build, like

YES, ONE = "yes", "yes, one at a time"
PROMPTS = ["a cat", "a dog", "a red car", "a tree"]
ROUND = {
    "rounds": 1, "prompts_per_round": 2, "images_per_prompt": 2, "timesteps": 1, "updates": 1, "rank": 2,
    "learning_rate": 0.05, "warmup": 0, "images_per_evaluation": 1, "patience": 0, "save": "last",
}  # fmt: skip


class Trial:
    """One class, taken through everything in turn."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.call = FAMILIES[name].call
        self.base = build(name)
        self.pipe: Any = None
        self.one_at_a_time = False

    def alone(self, pipe: Any, prompt: str, seed: int) -> np.ndarray:
        """What the class itself draws."""
        images = pipe(prompt=prompt, generator=torch.Generator().manual_seed(seed), **self.call)[0]
        return pixels(images[0])

    def same_as_alone(self, candidate: Any) -> None:
        drawn = self.alone(self.base, candidate.prompt, candidate.seed)
        assert np.abs(drawn - pixels(candidate.image)).max() <= 1, f"seed {candidate.seed} of {candidate.prompt}"

    def wrapped(self) -> None:
        self.pipe = CogGuidedPipeline.from_pipe(self.base, scorer=FakeScorer())
        assert isinstance(self.pipe, type(self.base))

    def same_image(self) -> None:
        expected = self.alone(self.base, "a cat", 3)
        assert expected.std() > 3, "the tiny model draws nothing"
        assert np.abs(expected - self.alone(self.base, "a cat", 4)).max() > 3, "seeds make no difference"
        assert np.abs(expected - self.alone(self.base, "a long dog", 3)).max() > 0, "prompts make no difference"
        out = self.pipe("a cat", seed=3, guidance=[], **self.call)
        assert np.array_equal(pixels(out.images[0]), expected)

    def best_of_3(self) -> None:
        out = self.pipe(["a cat", "a dog"], guidance=BestOfN(3, batch_size=4), seed=5, **self.call)
        assert [(c.request, c.seed) for c in out.candidates] == [(r, s) for s in (5, 6, 7) for r in (0, 1)]
        for candidate in out.candidates:
            self.same_as_alone(candidate)
        for request, image in enumerate(out.images):
            mine = [c for c in out.candidates if c.request == request]
            assert image is max(mine, key=lambda c: c.score).image
        self.one_at_a_time = any("batch_size=1" in note for note in out.notes)
        out.save(self.folder / "best")

    def halving(self) -> None:
        out = self.pipe("a cat", guidance=Halving(3, at=(0.5,)), seed=5, **self.call)
        self.same_as_alone(out.chosen[0])
        out.save(self.folder / "halving")

    def drafts(self) -> None:
        steps = max(1, self.call.get("num_inference_steps", 2) - 1)
        out = self.pipe(["a cat", "a dog"], guidance=Drafts(2, steps=steps, full=1), seed=5, **self.call)
        for candidate in out.chosen:
            self.same_as_alone(candidate)
        out.save(self.folder / "drafts")

    def replayed(self) -> None:
        for record in ("best", "halving", "drafts"):
            if (self.folder / record).exists():
                again = replay(self.folder / record, None, self.pipe)
                assert again.same, (record, again.differences)
                assert again.differences == []

    def saved(self) -> None:
        expected = self.alone(self.base, "a cat", 3)
        guided = CogGuidedPipeline.from_pipe(self.base, target="fake", guidance=BestOfN(2))
        guided.save_pretrained(self.folder / "saved")
        try:
            plain = DiffusionPipeline.from_pretrained(self.folder / "saved")
        except Exception:
            self.base.save_pretrained(self.folder / "plain")
            with pytest.raises(Exception):  # noqa: B017, PT011 - diffusers does not read what it wrote itself
                DiffusionPipeline.from_pretrained(self.folder / "plain")
            CogGuidedPipeline.from_pretrained(self.folder / "saved")
            raise
        assert type(plain) is type(self.base)
        ours = CogGuidedPipeline.from_pretrained(self.folder / "saved")
        for loaded in (plain, ours):
            like(loaded, self.base)
            loaded.set_progress_bar_config(disable=True)
        assert np.array_equal(self.alone(plain, "a cat", 3), expected)
        out = ours("a cat", seed=3, **self.call)
        assert [c.seed for c in out.candidates] == [3, 4]
        assert np.abs(pixels(out.candidates[0].image) - expected).max() <= 1

    def finetuned(self) -> None:
        try:
            pipe, result = self._round()
        except BatchError:  # does what its sentence says
            pipe, result = self._round(batch_size=1, micro_batch=1)
        assert (result.rounds, result.stopped) == (1, "rounds")
        trained = [p for m in modules(pipe) for k, p in m.named_parameters() if "lora_B" in k]
        assert np.mean([bool(p.any()) for p in trained]) > 0.5, "most adapters moved"

    def _round(self, **changes: int) -> tuple[Any, Any]:
        config = FinetuneConfig(method="nft", **ROUND, **changes)
        pipe, folder = build(self.name), self.folder / "tuned"
        options = {"faithfulness": None, "progress": False, "overwrite": True}
        return pipe, finetune(pipe, FakeScorer(), PROMPTS, folder, config, **options, **self.call)

    def lora(self) -> None:
        fresh = build(self.name)
        folder = str(self.folder / "tuned")
        (denoiser,) = denoisers(fresh)
        if hasattr(fresh, "load_lora_weights") and hasattr(denoiser, "load_lora_adapter"):
            fresh.load_lora_weights(folder)
        else:
            PeftModel.from_pretrained(denoiser, folder)
        moved = np.abs(self.alone(fresh, "a cat", 3) - self.alone(build(self.name), "a cat", 3))
        assert moved.max() > 0


ABILITIES: dict[str, Callable[[Trial], None]] = {
    "wrapped": Trial.wrapped,
    "same image": Trial.same_image,
    "best of 3": Trial.best_of_3,
    "Halving": Trial.halving,
    "Drafts": Trial.drafts,
    "replay": Trial.replayed,
    "save, load": Trial.saved,
    "fine-tuning": Trial.finetuned,
    "LoRA out": Trial.lora,
}


def measure(name: str, folder: Path) -> dict[str, str]:
    """Take a class through all abilities: `YES`, `ONE`, or the sentence with which it was refused, by ability.

    Whatever else goes wrong is raised, with the ability's name as a note.
    """
    found: dict[str, str] = {}
    trial = Trial(name, folder)
    for ability, attempt in ABILITIES.items():
        if why := FAMILIES[name].skipped.get(ability):
            found[ability] = f"not tried: {why}"
            continue
        if ability == "LoRA out" and found.get("fine-tuning") != YES:
            found[ability] = found["fine-tuning"]
            continue
        try:
            attempt(trial)
            found[ability] = ONE if ability == "best of 3" and trial.one_at_a_time else YES
        except CogGuidedError as error:
            found[ability] = str(error).replace(f"{folder}/", "")
            if ability == "wrapped":
                return dict.fromkeys(ABILITIES, str(error))
        except Exception as error:
            error.add_note(f"{name}: {ability}")
            raise
    return found


def pixels(image: Any) -> np.ndarray:
    return np.asarray(image).astype(int)


def modules(pipe: DiffusionPipeline) -> list[torch.nn.Module]:
    return [m for m in pipe.components.values() if isinstance(m, torch.nn.Module)]
