"""One batch of images: several questions to each on one pass over it, and what is read of the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from PIL import Image

from ...._errors import ModelError
from ...base import ImageInput, Scores
from ...images import load_images, name_of
from ...models.parts.asking import fill_in
from ..answers import ReadAnswer, from_reading, from_text, to_scores
from ..branching import Inputs, cut_prefix
from ..core import Core
from ..decoding import Continuation, read_greedy, search_answers
from ..gradients import attach_gradient
from ..options import ReadOptions
from ..prompting import stop_tokens
from ..readout import AnswerSearch, Distribution
from .templates import PLACE
from .words import answers as answers_of

Ask: TypeAlias = tuple[str, str]
"""Read-out and dimension."""
Pictures: TypeAlias = Mapping[int, tuple[Image.Image, ...]]
"""Images by row of the batch: one of each row, or two that are compared."""


@dataclass(frozen=True)
class Pass:
    """Rows that went through the model together: with what inputs, first questions and tokens, and what was found."""

    rows: list[int]
    texts: list[str]
    inputs: Inputs
    questions: dict[Ask, list[list[int]]]
    searches: dict[Ask, list[AnswerSearch]]


@dataclass(frozen=True)
class Batch:
    """What is asked of the rows of a batch.

    Attributes:
        core: the model.
        pictures: by row, those that can be read.
        asks: read-outs and dimensions, all of one number of images.
        prompts: of each row, or None.
        names: how to call each row's image in an error.
        options: how answers are read.
    """

    core: Core
    pictures: Pictures
    asks: Sequence[Ask]
    prompts: Sequence[str] | None
    names: Sequence[str]
    options: ReadOptions

    def read(self, errors: list[str | None]) -> tuple[dict[int, dict[Ask, ReadAnswer]], list[Pass]]:
        """Ask the model; rows that its processor refuses are left out and noted in `errors`."""
        said: dict[int, dict[Ask, ReadAnswer]] = {}
        passes = []
        for group, texts, inputs in self._prepared(errors):
            questions = self._questions(group)
            found, searches = self._answer(inputs, questions)
            said.update(zip(group, found, strict=True))
            passes.append(Pass(group, texts, inputs, questions, searches))
        return said, passes

    def _text(self, ask: Ask, row: int) -> str:
        readout, name = ask
        dim = self.core.facts.dimensions[name]
        text = dim.comparison if readout == "pairwise" else dim.question
        return text if self.prompts is None else fill_in(text, **{PLACE[1:-1]: self.prompts[row]})

    def _prepared(self, errors: list[str | None]) -> Iterator[tuple[list[int], list[str], Inputs]]:
        """Yield the processor's output for groups of rows; note in `errors` those it cannot take."""
        groups = [list(self.pictures)] if self.core.batched else [[row] for row in self.pictures]
        while groups:
            group = groups.pop(0)
            if not group:
                continue
            texts = [self._text(self.asks[0], row) for row in group]
            shown: Any = [
                self.pictures[row] if len(self.pictures[row]) > 1 else self.pictures[row][0] for row in group
            ]
            try:
                inputs = self.core.prepare(shown, texts)
            except (ValueError, RuntimeError, ZeroDivisionError) as error:
                if len(group) > 1:
                    groups = [[row] for row in group] + groups  # find out which one it is
                else:
                    (row,) = group
                    sizes = " and ".join("x".join(map(str, picture.size)) for picture in self.pictures[row])
                    errors[row] = f"{self.names[row]}: refused by the model's processor at {sizes} ({error})"
                continue
            yield group, texts, inputs

    def _questions(self, group: Sequence[int]) -> dict[Ask, list[list[int]]]:
        """Tokens of each question, of each row its own: a question with the prompt in it differs between rows."""
        num_images = len(self.pictures[group[0]])
        texts = {ask: [self._text(ask, row) for row in group] for ask in self.asks}
        tokens: dict[str, tuple[list[int], int]] = {}
        if num_images == 1:
            dims = self.core.facts.dimensions
            tokens = {dim.question: (self.core.questions[name], 0) for name, dim in dims.items()}
        new = [text for text in dict.fromkeys(text for of in texts.values() for text in of) if text not in tokens]
        if new:
            tokens |= zip(new, self.core.question_tokens(new, num_images), strict=True)
        start = self.core.starts[num_images]
        found: dict[Ask, list[list[int]]] = {ask: [] for ask in texts}
        for row in range(len(group)):  # all questions of a row begin where the first of them does
            most = max(tokens[of[row]][1] for of in texts.values())
            for ask, of in texts.items():
                own, more = tokens[of[row]]
                found[ask].append([*start[len(start) - most : len(start) - more], *own])
        return found

    def _answer(
        self, inputs: Inputs, questions: dict[Ask, list[list[int]]]
    ) -> tuple[list[dict[Ask, ReadAnswer]], dict[Ask, list[AnswerSearch]]]:
        core, dims = self.core, self.core.facts.dimensions
        asked = next(iter(questions.values()))
        for row, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
            if inputs["input_ids"][row, length - len(asked[row]) : length].tolist() != asked[row]:
                raise ModelError(f"{core.facts.name}: its chat template does not put the question after the image")
        prefix, lengths = cut_prefix(inputs, [len(question) for question in asked])
        branches: Continuation = core.continuation(prefix, lengths, [of for row in questions.values() for of in row])
        answers: list[dict[Ask, ReadAnswer]] = [{} for _ in lengths]
        weighed = {ask: of for ask, of in questions.items() if ask[0] != "greedy"}
        searches: dict[Ask, list[AnswerSearch]] = {}
        if weighed:
            trees = {ask: core.tree(dims[ask[1]], ask[0]) for ask in weighed}
            searches = search_answers(branches, weighed, trees)
            for ask, of in searches.items():
                labels = answers_of(dims[ask[1]], ask[0])
                for said, search in zip(answers, of, strict=True):
                    said[ask] = from_reading(search.read(), labels, self.options.min_mass)
        told = {ask: of for ask, of in questions.items() if ask[0] == "greedy"}
        if told:  # on the same prefix: nothing is computed twice but the question
            tokenizer: Any = core.processor.tokenizer
            stop = stop_tokens(core.model, core.processor)
            texts = read_greedy(branches, told, stop, self.options.max_new_tokens)
            for said, text in zip(answers, texts, strict=True):
                for ask in told:
                    said[ask] = from_text(tokenizer.decode(text[ask], skip_special_tokens=True), dims[ask[1]])
        return answers, searches

    def gradients(self, found: Pass, pixels: Mapping[int, tuple[torch.Tensor, ...]]) -> dict[Ask, torch.Tensor]:
        """Zeros by ask, (B,) over a pass's rows, with the gradient of the scores in the rows' `pixels`."""
        tensors = [pixels[row] for row in found.rows]
        return attach_gradient(self.core, tensors, found.texts, found.inputs, found.questions, found.searches)


def score_batch(
    core: Core, images: ImageInput, prompts: list[str] | None, asks: Sequence[Ask], options: ReadOptions
) -> dict[Ask, Scores]:
    """Score images that fit one pass; those of a tensor with a graph keep it."""
    pixels = images if isinstance(images, torch.Tensor) and torch.is_grad_enabled() else None
    batch, errors = _batch(core, images, prompts, asks, options)
    with torch.inference_mode():
        said, passes = batch.read(errors)
    blank = [dict.fromkeys(asks, ReadAnswer(error=error)) for error in errors]
    scores = {ask: to_scores([said.get(row, blank[row])[ask] for row in range(len(errors))]) for ask in asks}
    if pixels is not None and pixels.requires_grad:
        for one in passes:
            added = batch.gradients(one, {row: (pixels[row],) for row in one.rows}) if one.searches else {}
            for ask, zeros in added.items():
                scores[ask] = _plus(scores[ask], one.rows, zeros)
    return scores


def distributions_of(
    core: Core, images: ImageInput, prompts: list[str] | None, ask: Ask, options: ReadOptions
) -> list[Distribution | None]:
    """What the model believes of images that fit one pass; None where one cannot be read."""
    batch, errors = _batch(core, images, prompts, [ask], options)
    with torch.inference_mode():
        _, passes = batch.read(errors)
    found = {
        row: search.distribution()
        for one in passes
        for row, search in zip(one.rows, one.searches[ask], strict=True)
    }
    return [found.get(row) for row in range(len(errors))]


def _batch(
    core: Core, images: ImageInput, prompts: list[str] | None, asks: Sequence[Ask], options: ReadOptions
) -> tuple[Batch, list[str | None]]:
    """What is asked of the images that can be read, and of each why it cannot, or None."""
    pictures, errors = load_images(images, on_error="nan")
    readable = {row: (picture,) for row, picture in enumerate(pictures) if picture is not None}
    names = [name_of(image, row) for row, image in enumerate(images)]
    return Batch(core, readable, asks, prompts, names, options), errors


def _plus(scores: Scores, rows: list[int], zeros: torch.Tensor) -> Scores:
    """Scores with zeros that carry a gradient added to some rows."""
    values = scores.values.to(zeros.device).index_add(0, torch.tensor(rows, device=zeros.device), zeros)
    return Scores(values, scores.std, None, scores.labels, scores.mass, scores.errors)
