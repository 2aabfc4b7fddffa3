"""Any Hugging Face image-text-to-text model as a scorer.

The model sees the image, then a question of `dimensions`, and answers "label, then number", as in CogIP-Bench
(arXiv 2511.22805). Read-outs: `expected`, the mean of its answer distribution (`readout`), or `greedy`, the
likeliest text, parsed strictly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from ..._errors import ModelError, unknown_name
from ..base import ImageInput, Scores
from ..images import check_images, load_images, name_of
from ..precision import own_precision
from .answers import ReadAnswer, from_reading, from_text, to_scores
from .branching import Inputs, cut_prefix
from .checkpoints import ScorerFacts, load_checkpoint
from .core import Core
from .decoding import Continuation, read_greedy, search_answers
from .gradients import attach_gradient
from .options import MAX_NEW_TOKENS, MIN_MASS, READOUTS, Option, ReadOptions
from .prompting import stop_tokens
from .readout import AnswerSearch

Searches = dict[str, list[AnswerSearch]]
"""By dimension, the finished search of each image."""


class MLLMScorer:
    """Score images by asking a multimodal LLM, one dimension a call or all of them in one pass.

    Values are in the dimension's range, e.g. 0 to 10; higher means more. With ``readout="expected"``, `std`
    is the spread of the model's answers and `mass` the probability that it gave to valid ones. An image costs
    one pass over image and question, plus, for a model that answers as asked, some 30 to 80 answer tokens
    packed into three to five short passes. One whose numbers are wholly undecided costs about 700, and one
    that does not keep to three decimals may cost thousands, since then no branch can be cut short.

    Images given as a tensor with a graph get the expected score's gradient: of the score that the model gives
    to the same pixels rounded to 8 bits, through the processor's own resizing. It costs one pass more, and the
    memory of a backward pass through the model. Greedy scores have none.

    Make one with `from_pretrained`. Scorers of several dimensions on the same weights: `with_dimension`.

    Attributes:
        dimension: the dimension that a plain call scores.
        options: how answers are read (`ReadOptions`); `readout`, `batch_size`, `min_mass`, `max_new_tokens` and
            `progress` are its fields, and can be set here.
    """

    needs_prompt = False
    readout = Option[str]()
    batch_size = Option[int]()
    min_mass = Option[float]()
    max_new_tokens = Option[int]()
    progress = Option[bool | None]()

    def __init__(self, core: Core, dimension: str, options: ReadOptions | None = None) -> None:
        if dimension not in core.facts.dimensions:
            raise unknown_name(f"dimension of {core.facts.name}", dimension, core.facts.dimensions)
        self._core = core
        self.dimension = dimension
        self.options = options or ReadOptions()

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        dimension: str = "emotional_valence",
        adapter: str | Path | None = None,
        readout: str = "expected",
        batch_size: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        min_mass: float = MIN_MASS,
        trust_remote_code: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
        bits: int | None = None,
    ) -> MLLMScorer:
        """Load a model from a folder or the hub.

        Args:
            model: folder or hub name of an image-text-to-text model, or folder of a peft adapter.
            dimension: what a plain call scores.
            adapter: folder or hub name of a peft adapter on `model`.
            readout: "expected" or "greedy".
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32 on a CPU, bfloat16 elsewhere.
            min_mass: probability of valid answers below which an expected score is not valid.
            trust_remote_code: run code that comes with the model.
            max_new_tokens: where a greedy answer that does not end is cut; one that ends costs no more.
            bits: 8 or 4, to load a large model into a small GPU (needs bitsandbytes).

        Raises:
            ModelError: the model cannot be loaded or is of another kind.
            InputError: an argument out of range; UnknownNameError for a dimension that it does not have.

        Executed examples are in ``tests/scorers/test_mllm.py``.
        """
        loaded = load_checkpoint(model, adapter, device, dtype, trust_remote_code, bits)
        return cls.from_loaded(*loaded, dimension, ReadOptions(readout, batch_size, min_mass, max_new_tokens))

    @classmethod
    def from_loaded(
        cls,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        facts: ScorerFacts,
        dimension: str = "emotional_valence",
        options: ReadOptions | None = None,
        autocast: torch.dtype | None = None,
    ) -> MLLMScorer:
        """Score with a model that is loaded already, such as one in training; its mode is left as it is.

        With weights of several types, `autocast` is what to compute in; one that is on around a call is not heeded.

        Raises:
            InputError: an argument out of range; UnknownNameError for a dimension that `facts` do not have.

        An executed example is in ``tests/scorers/alignment/test_sft.py``.
        """
        core = Core(model, processor, facts, autocast=autocast)
        scorer = cls(core, dimension, options)
        # float32 weights are compared to float32's precision, whatever is computed in later
        own = autocast if model.dtype != torch.float32 else None
        with torch.inference_mode(), own_precision(model.device, own):
            core.split_questions()
            core.check_packing()
        return scorer

    @property
    def name(self) -> str:
        """The dimension's name."""
        return self.dimension

    @property
    def model_name(self) -> str:
        """The model's own name."""
        return self._core.facts.name

    @property
    def facts(self) -> ScorerFacts:
        """What the model's folder says about it."""
        return self._core.facts

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach image tensors: of expected scores."""
        return self.readout == "expected"

    @property
    def low(self) -> float:
        """Lowest value of the dimension."""
        return self._core.facts.dimensions[self.dimension].low

    @property
    def high(self) -> float:
        """Highest value of the dimension."""
        return self._core.facts.dimensions[self.dimension].high

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Every dimension that the model can be asked for."""
        return tuple(self._core.facts.dimensions)

    @property
    def core(self) -> object:
        """The loaded model; scorers with the very same core share their weights."""
        return self._core

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model."""
        return self._core.model

    @property
    def processor(self) -> ProcessorMixin:
        """The model's processor."""
        return self._core.processor

    def with_dimension(self, name: str) -> MLLMScorer:
        """Return a scorer of another dimension on the same weights.

        Raises:
            UnknownNameError: the model has no such dimension.
        """
        return MLLMScorer(self._core, name, self.options)

    def to(self, device: torch.device | str) -> MLLMScorer:
        """Move the weights, for every scorer that shares them, and return the scorer itself."""
        model: Any = self._core.model
        model.to(device)
        return self

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images in the scorer's dimension; `prompts` are not looked at.

        Raises:
            InputError: not a batch of images.
        """
        return self.score_all(images, [self.dimension])[self.dimension]

    def score_all(self, images: ImageInput, dimensions: Sequence[str] | None = None) -> dict[str, Scores]:
        """Score B images in all dimensions (or those named), with one pass over image and prompt start.

        Raises:
            InputError: not a batch of images; UnknownNameError for a dimension that the model does not have.
        """
        return self.score_readouts(images, dimensions, [self.readout])[self.readout]

    def score_readouts(
        self,
        images: ImageInput,
        dimensions: Sequence[str] | None = None,
        readouts: Sequence[str] = READOUTS,
    ) -> dict[str, dict[str, Scores]]:
        """Score B images by several read-outs, all on one pass over the image; scores by read-out, dimension.

        Raises:
            InputError: not a batch of images; UnknownNameError for an unknown dimension or read-out.
        """
        check_images(images)
        names = list(dict.fromkeys(self.dimensions if dimensions is None else dimensions))
        for name in names:
            if name not in self._core.facts.dimensions:
                raise unknown_name(f"dimension of {self.model_name}", name, self.dimensions)
        for readout in readouts:
            if readout not in READOUTS:
                raise unknown_name("readout", readout, READOUTS)
        parts: dict[str, dict[str, list[Scores]]] = {r: {name: [] for name in names} for r in readouts}
        with self._core.undisturbed():
            for batch in self._batches(images):
                for readout, by_name in self._score_batch(batch, names, list(parts)).items():
                    for name, scores in by_name.items():
                        parts[readout][name].append(scores)
            return {r: {n: Scores.cat(scores) for n, scores in by.items()} for r, by in parts.items()}

    def _batches(self, images: ImageInput) -> Iterator[ImageInput]:
        starts = range(0, len(images), self.batch_size)
        hidden = True if len(starts) < 2 else (None if self.progress is None else not self.progress)
        for start in tqdm(starts, desc="scoring", unit="batch", disable=hidden, leave=False):
            yield images[start : start + self.batch_size]

    def _score_batch(self, images: ImageInput, names: list[str], readouts: list[str]) -> dict[str, dict[str, Scores]]:
        tracked = isinstance(images, torch.Tensor) and images.requires_grad and torch.is_grad_enabled()
        with torch.inference_mode():
            scores, asked = self._read_batch(images, names, readouts)
        if tracked and "expected" in scores:
            assert isinstance(images, torch.Tensor)
            for group, inputs, searches in asked:
                added = attach_gradient(self._core, images[group], inputs, searches)
                for name, zeros in added.items():
                    scores["expected"][name] = _plus(scores["expected"][name], group, zeros)
        return scores

    def _read_batch(
        self, images: ImageInput, names: list[str], readouts: list[str]
    ) -> tuple[dict[str, dict[str, Scores]], list[tuple[list[int], Inputs, Searches]]]:
        """Scores by read-out and dimension; and what was asked of which images, with the searches' outcomes."""
        pictures, errors = load_images(images, on_error="nan")
        good = {index: picture for index, picture in enumerate(pictures) if picture is not None}
        said: dict[int, dict[str, dict[str, ReadAnswer]]] = {}
        asked = []
        for group, inputs in self._prepared(images, good, self._core.facts.dimensions[names[0]].question, errors):
            answers, searches = self._answer(inputs, names, readouts)
            said.update(zip(group, answers, strict=True))
            asked.append((group, inputs, searches))
        rows = range(len(pictures))
        scores = {
            readout: {
                name: to_scores(
                    [said[row][readout][name] if row in said else ReadAnswer(error=errors[row]) for row in rows]
                )
                for name in names
            }
            for readout in readouts
        }
        return scores, asked

    def _prepared(
        self, images: ImageInput, good: dict[int, Image.Image], question: str, errors: list[str | None]
    ) -> Iterator[tuple[list[int], Inputs]]:
        """Yield the processor's output for groups of images; note in `errors` the images it cannot take."""
        groups = [list(good)] if self._core.batched else [[index] for index in good]
        while groups:
            group = groups.pop(0)
            if not group:
                continue
            try:
                inputs = self._core.prepare([good[index] for index in group], question)
            except (ValueError, RuntimeError, ZeroDivisionError) as error:
                if len(group) > 1:
                    groups = [[index] for index in group] + groups  # find out which one it is
                else:
                    (row,) = group
                    name, size = name_of(images[row], row), "x".join(map(str, good[row].size))
                    errors[row] = f"{name}: refused by the model's processor at {size} ({error})"
                continue
            yield group, inputs

    def _answer(
        self, inputs: Inputs, names: list[str], readouts: list[str]
    ) -> tuple[list[dict[str, dict[str, ReadAnswer]]], Searches]:
        core = self._core
        asked = core.questions[names[0]]
        for row, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
            if inputs["input_ids"][row, length - len(asked) : length].tolist() != asked:
                raise ModelError(f"{self.model_name}: its chat template does not put the question after the image")
        prefix, lengths = cut_prefix(inputs, len(asked))
        branches: Continuation = core.continuation(prefix, lengths)
        questions = {name: core.questions[name] for name in names}
        dims = core.facts.dimensions
        answers: list[dict[str, dict[str, ReadAnswer]]] = [{} for _ in lengths]
        searches: Searches = {}
        if "expected" in readouts:
            trees = {name: core.tree(dims[name]) for name in names}
            searches = search_answers(branches, questions, trees, len(lengths))
            for row, said in enumerate(answers):
                readings = {n: of[row].read() for n, of in searches.items()}
                said["expected"] = {n: from_reading(readings[n], dims[n], self.min_mass) for n in names}
        if "greedy" in readouts:  # on the same prefix: nothing is computed twice but the question
            tokenizer: Any = core.processor.tokenizer
            stop = stop_tokens(core.model, core.processor)
            texts = read_greedy(branches, questions, stop, len(lengths), self.max_new_tokens)
            for said, text in zip(answers, texts, strict=True):
                decoded = {n: tokenizer.decode(text[n], skip_special_tokens=True) for n in names}
                said["greedy"] = {n: from_text(decoded[n], dims[n]) for n in names}
        return answers, searches


def _plus(scores: Scores, rows: list[int], zeros: torch.Tensor) -> Scores:
    """Scores with zeros that carry a gradient added to some rows."""
    values = scores.values.to(zeros.device).index_add(0, torch.tensor(rows, device=zeros.device), zeros)
    return Scores(values, scores.std, None, scores.labels, scores.mass, scores.errors)
