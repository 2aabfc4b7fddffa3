"""A loaded model with what is derived from it once: shared by the scorers of its dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..._errors import ModelError
from ..dimensions import Dimension
from ..precision import own_precision
from .answer_tree import AnswerTree
from .branching import Branches, Copies, Inputs, Reruns, check_branchable, cut_prefix
from .checkpoints import ScorerFacts
from .prompting import Pictures, build_prompts
from .reading.whole import Whole
from .reading.words import tree_of

FAULTS = (ModelError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, AssertionError)
"""What models and processors of others raise on inputs that they were not made for."""


@dataclass
class Core:
    """One loaded model with what is derived from it once; shared by the scorers of its dimensions.

    `packed`, `batched`, `copied` and `whole` are how it can be asked (`check_packing`). `autocast` is what is
    computed in where the weights are of several types, as in training. `starts` are the tokens of a prompt about one
    grey picture, or about two, up to where questions differ.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    facts: ScorerFacts
    questions: dict[str, list[int]] = field(default_factory=dict)
    starts: dict[int, list[int]] = field(default_factory=dict)
    trees: dict[tuple[str, str], AnswerTree] = field(default_factory=dict)
    packed: bool = True
    batched: bool = False
    copied: bool = False
    whole: bool = False
    autocast: torch.dtype | None = None

    def undisturbed(self) -> AbstractContextManager[None]:
        """Context to run the model in, whatever autocast or default type its caller has set."""
        return own_precision(self.model.device, self.autocast)

    def prepare(self, pictures: Pictures, question: str | Sequence[str]) -> Inputs:
        """Run the processor: right-padded prompts of image, question (or one each) and the start of the answer."""
        questions = [question] * len(pictures) if isinstance(question, str) else question
        tensors = build_prompts(self.processor, pictures, questions, self.facts.system_prompt)
        place, dtype = self.model.device, self.model.dtype
        return {k: v.to(place, dtype) if v.is_floating_point() else v.to(place) for k, v in tensors.items()}

    def tree(self, dim: Dimension, readout: str = "expected") -> AnswerTree:
        """Valid answers of a dimension in this model's tokens; made when first asked for."""
        numbered = readout if readout != "greedy" else "expected"
        if (dim.name, numbered) not in self.trees:
            tokenizer: Any = self.processor.tokenizer
            encode = lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"]  # noqa: E731
            self.trees[dim.name, numbered] = tree_of(encode, dim, numbered)
        return self.trees[dim.name, numbered]

    def split_questions(self) -> None:
        """Find what follows the image in the prompt of each dimension: the tokens after the common start.

        Raises:
            ModelError: a processor that takes no chat of a picture and a question.
        """
        self.questions, self.starts = {}, {}
        texts = {name: dim.question for name, dim in self.facts.dimensions.items()}
        try:
            found = self.question_tokens(list(texts.values()))
        except FAULTS as error:
            raise ModelError(
                f"{self.facts.name}: {type(self.processor).__name__} cannot take one picture and a question as a "
                f"chat ({type(error).__name__}: {error})"
            ) from error
        self.questions = {name: tokens for name, (tokens, _) in zip(texts, found, strict=True)}

    def question_tokens(self, texts: Sequence[str], num_images: int = 1) -> list[tuple[list[int], int]]:
        """Tokens that follow the image, or the images, in prompts with these questions.

        Prompts are alike up to there, which `starts` keeps. Where a question begins so that the tokenizer joins it
        with what stands before, it takes tokens of the start with it: how many, is the second number.
        """
        picture = Image.new("RGB", (64, 64), "gray")
        shown: Any = picture if num_images == 1 else (picture,) * num_images

        @cache
        def ids(text: str) -> list[int]:
            found: list[int] = self.prepare([shown], text)["input_ids"][0].tolist()
            return found

        if num_images not in self.starts:
            questions = [dim.question for dim in self.facts.dimensions.values()]
            prompts = [ids(text) for text in (".", *questions)]
            common = 0
            while all(len(p) > common + 1 and p[common] == prompts[0][common] for p in prompts):
                common += 1
            self.starts[num_images] = prompts[0][:common]
        start = self.starts[num_images]
        found = []
        for prompt in map(ids, texts):
            alike = 0
            while alike < min(len(start), len(prompt) - 1) and prompt[alike] == start[alike]:
                alike += 1
            found.append((prompt[alike:], len(start) - alike))
        return found

    def check_packing(self) -> None:
        """Compare each fast way with a plain run once; go on with the fastest that is right, and say so.

        `Branches` of a batch, `Branches` of one image at a time, `Copies`, `Reruns`; or `Whole`, where a question is
        read in both directions.

        Raises:
            ModelError: not even a plain run works, or answers are not said from left to right.
        """
        name, question = next(iter(self.questions.items()))
        text, path = self.facts.dimensions[name].question, [*range(-1, len(question) - 1)]
        pictures = [Image.new("RGB", (64, 64), "gray"), Image.linear_gradient("L").resize((96, 48)).convert("RGB")]
        alone = [cut_prefix(self.prepare([picture], text), len(question)) for picture in pictures]
        self.packed = self.batched = self.copied = False
        self.whole = bool(self.model.config.is_encoder_decoder)
        expected = [self._plain(*one, question) for one in alone]
        if self.whole:
            warnings.warn(
                f"{self.facts.name}: {type(self.model).__name__} reads a question as a whole before it answers; each "
                "branch of an answer is run by itself, which is slow",
                stacklevel=4,
            )
            return
        tree = [[*reversed(question), *question]], [[*path, -1, *range(len(question), 2 * len(question) - 1)]]

        def fault(kind: type[Branches] | type[Reruns]) -> str | None:
            """Why it does not give what a plain run gives."""
            try:
                if kind is Branches:
                    check_branchable(self.model)
                got = kind(self.model, *alone[0]).extend(*tree, [2 * len(question) - 1])[0, 0]
            except FAULTS as error:
                return str(error)
            return self._apart(got, expected[0])

        def batch_fault() -> str | None:
            """Why two images in a batch do not get what they get alone."""
            try:
                both = cut_prefix(self.prepare(pictures, text), len(question))
                got = Branches(self.model, *both).extend([question] * 2, [path] * 2, [len(question) - 1])[:, 0]
            except FAULTS as error:
                return str(error)
            return self._apart(got[0], expected[0]) or self._apart(got[1], expected[1])

        reason = fault(Branches)
        self.packed, self.copied = reason is None, reason is not None and fault(Copies) is None
        if reason is not None:
            how = "goes on from a copy of the model's memory of it, which is slower"
            how = how if self.copied else "is run from the start, which is slow"
            reason = f"answers cannot share one pass over the image ({reason}); each branch {how}"
        else:
            reason = batch_fault()
            self.batched = reason is None
            reason = reason and f"images are looked at one at a time: in a batch they get other answers ({reason})"
        if reason:
            warnings.warn(f"{self.facts.name}: {reason}", stacklevel=4)

    def _apart(self, got: torch.Tensor, expected: torch.Tensor) -> str | None:
        """How far logits are from the log probabilities they should have, if that is too far."""
        gap = (expected - got.float().log_softmax(-1)).abs().max().item()
        return None if gap < self.tolerance else f"log probabilities differ by {gap:.2g}"

    @property
    def tolerance(self) -> float:
        """What log probabilities of the same may differ by, in the precision of the weights."""
        return 1e-2 if self.model.dtype == torch.float32 else 0.5

    def _plain(self, prefix: Inputs, lengths: Sequence[int], question: list[int]) -> torch.Tensor:
        """Log probabilities (vocabulary,) after a question, from the start; see that no answer is looked ahead to.

        Where a question is, `whole` becomes true.
        """

        def run(path: Sequence[int]) -> torch.Tensor:
            branches = self.continuation(prefix, lengths, [question])
            logits = branches.extend([path], [[*range(-1, len(path) - 1)]])[0]
            return logits.float().log_softmax(-1)

        def looks_ahead() -> bool:
            said = slice(len(question) - 1 if self.whole else 0, None)
            return bool((run([*question, *question[:2]])[: len(begun)] - begun)[said].abs().max() > self.tolerance)

        try:
            begun = run([*question, question[0]])
            if not self.whole and looks_ahead():
                self.whole = True
                begun = run([*question, question[0]])
            if self.whole and looks_ahead():
                raise ModelError("it attends in both directions, so its answers have no probability token by token")
        except FAULTS as error:
            raise ModelError(
                f"{self.facts.name}: {type(self.model).__name__} cannot go on from a picture and a question "
                f"({type(error).__name__}: {error})"
            ) from error
        return begun[len(question) - 1]

    def continuation(
        self,
        prefix: Inputs,
        lengths: Sequence[int],
        questions: Iterable[Sequence[int]],
        gradients: bool = False,
    ) -> Branches | Reruns:
        """Prompts to go on from, in the fastest way that was found to be right; several only where `packed`.

        `questions` are those that will follow. With `gradients` there is a graph back to the inputs.
        """
        if self.whole:
            return Whole(self.model, prefix, lengths, questions)
        kind = Branches if self.packed else Copies if self.copied and not gradients else Reruns
        return kind(self.model, prefix, lengths)
