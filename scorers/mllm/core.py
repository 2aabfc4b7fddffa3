"""A loaded model with what is derived from it once: shared by the scorers of its dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..._errors import ModelError
from ..dimensions import Dimension
from ..precision import own_precision
from .answer_tree import AnswerTree, answer_tree
from .branching import Branches, Inputs, Reruns, check_branchable, cut_prefix
from .checkpoints import ScorerFacts
from .prompting import build_prompts


@dataclass
class Core:
    """One loaded model with what is derived from it once; shared by the scorers of its dimensions.

    `autocast` is what is computed in where the weights are of several types, as in training.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    facts: ScorerFacts
    questions: dict[str, list[int]] = field(default_factory=dict)
    trees: dict[str, AnswerTree] = field(default_factory=dict)
    packed: bool = True
    autocast: torch.dtype | None = None

    def undisturbed(self) -> AbstractContextManager[None]:
        """Context to run the model in, whatever autocast or default type its caller has set."""
        return own_precision(self.model.device, self.autocast)

    def prepare(self, pictures: Sequence[Image.Image] | Sequence[torch.Tensor], question: str) -> Inputs:
        """Run the processor: right-padded prompts of image, question and the start of the answer."""
        tensors = build_prompts(self.processor, pictures, [question] * len(pictures), self.facts.system_prompt)
        place, dtype = self.model.device, self.model.dtype
        return {k: v.to(place, dtype) if v.is_floating_point() else v.to(place) for k, v in tensors.items()}

    def tree(self, dim: Dimension) -> AnswerTree:
        """Valid answers of a dimension in this model's tokens; made when first asked for."""
        if dim.name not in self.trees:
            tokenizer: Any = self.processor.tokenizer
            self.trees[dim.name] = answer_tree(lambda t: tokenizer(t, add_special_tokens=False)["input_ids"], dim)
        return self.trees[dim.name]

    def split_questions(self) -> None:
        """Find what follows the image in the prompt of each dimension: the tokens after the common start."""
        picture = Image.new("RGB", (64, 64), "gray")
        prompts = {
            name: self.prepare([picture], dim.question)["input_ids"][0].tolist()
            for name, dim in self.facts.dimensions.items()
        }
        other = self.prepare([picture], ".")["input_ids"][0].tolist()
        common = 0
        while all(len(ids) > common + 1 and ids[common] == other[common] for ids in (other, *prompts.values())):
            common += 1
        self.questions = {name: ids[common:] for name, ids in prompts.items()}

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
