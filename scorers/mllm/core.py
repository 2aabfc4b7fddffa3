"""A loaded model with what is derived from it once: shared by the scorers of its dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
from .branching import Branches, Inputs, Reruns, check_branchable, cut_prefix
from .checkpoints import ScorerFacts
from .prompting import Pictures, build_prompts
from .reading.words import tree_of


@dataclass
class Core:
    """One loaded model with what is derived from it once; shared by the scorers of its dimensions.

    `autocast` is what is computed in where the weights are of several types, as in training. `starts` are the tokens
    of a prompt about one grey picture, or about two, up to where questions differ.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    facts: ScorerFacts
    questions: dict[str, list[int]] = field(default_factory=dict)
    starts: dict[int, list[int]] = field(default_factory=dict)
    trees: dict[tuple[str, str], AnswerTree] = field(default_factory=dict)
    packed: bool = True
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
        """Find what follows the image in the prompt of each dimension: the tokens after the common start."""
        self.questions, self.starts = {}, {}
        texts = {name: dim.question for name, dim in self.facts.dimensions.items()}
        found = self.question_tokens(list(texts.values()))
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
        """Compare `Branches` with a plain run once; where they differ, go on with `Reruns` and say so."""
        name, question = next(iter(self.questions.items()))
        inputs = self.prepare([Image.new("RGB", (64, 64), "gray")], self.facts.dimensions[name].question)
        prefix, lengths = cut_prefix(inputs, len(question))
        expected = Reruns(self.model, prefix, lengths).extend([question], [[*range(-1, len(question) - 1)]])[0, -1]
        size = len(question)
        parents = [*range(-1, size - 1), -1, *range(size, 2 * size - 1)]
        try:
            check_branchable(self.model)
            branches = Branches(self.model, prefix, lengths)
            got = branches.extend([[*reversed(question), *question]], [parents], [2 * size - 1])[0, 0]
            gap = (expected.float().log_softmax(-1) - got.float().log_softmax(-1)).abs().max().item()
            reason = f"log probabilities differ by {gap:.2g}"
            self.packed = gap < (1e-2 if self.model.dtype == torch.float32 else 0.5)
        except (ModelError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            self.packed, reason = False, str(error)
        if not self.packed:
            warnings.warn(
                f"{self.facts.name}: answers cannot share one pass over the image ({reason}); "
                "each branch is run from the start, which is slow",
                stacklevel=4,
            )
