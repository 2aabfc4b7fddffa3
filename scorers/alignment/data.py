"""From human ratings to batches: questions, answers, and what each token of an answer should be."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import ProcessorMixin

from ..._errors import ImageError, InputError
from ..images import as_pil
from ..mllm.branching import Inputs
from ..mllm.checkpoints import ScorerFacts
from ..mllm.prompting import build_prompts, end_token
from ..ratings.reading import Rating
from .config import AlignmentConfig
from .soft_labels import AnswerSpace, Step, answer_steps, draw_number, one_hot, token_steps, with_values
from .training.losses import Targets

IGNORE = -100
"""Label of a token without a loss."""


def split_by_image(ratings: Sequence[Rating], share: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """Indices of ratings to train on and to hold out; all ratings of an image are on one side.

    Which images are held out depends on the bytes of their files and the seed only: not on where they lie or
    how their paths are written, on order, or on other images. So the share is met on average, and an image
    that is there twice is on one side.

    Raises:
        InputError: the share is not in [0, 1), or one side comes out empty; ImageError: no such file.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> ratings = [Rating(folder / f"{i % 50}.png", "funniness", 5.0, str(i)) for i in range(100)]
    >>> sizes = [rating.image.write_bytes(rating.image.name.encode()) for rating in ratings]
    >>> kept, held = split_by_image(ratings, 0.2)
    >>> {ratings[i].image for i in kept} & {ratings[i].image for i in held}, len(kept) + len(held)
    (set(), 100)
    """
    if not 0 <= share < 1:
        raise InputError(f"held_out: expected a share in [0, 1), got {share}")
    if share == 0:
        return list(range(len(ratings))), []

    def held(image: Path) -> bool:
        try:
            content = hashlib.sha256(image.read_bytes()).hexdigest()
        except OSError as error:
            raise ImageError(f"{image}: cannot be read ({error.strerror})") from error
        digest = hashlib.sha256(f"{seed}\n{content}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    paths = list(dict.fromkeys(rating.image for rating in ratings))
    with ThreadPoolExecutor() as threads:
        side = dict(zip(paths, threads.map(held, paths), strict=True))
    sides: tuple[list[int], list[int]] = ([], [])
    for index, rating in enumerate(ratings):
        sides[side[rating.image]].append(index)
    if not all(sides):
        raise InputError(
            f"held_out={share:g} of {len(paths)} images leaves one side empty: "
            "take another share or seed, or give the ratings to evaluate on"
        )
    return sides


@dataclass(frozen=True)
class Example:
    """One rating as it is taught.

    Attributes:
        rating: image, dimension and score.
        std: how sure the rating is, in the dimension's unit.
        question: the wording to ask in.
        uniform: in [0, 1), the source of chance for what is drawn about it.
    """

    rating: Rating
    std: float
    question: str
    uniform: float


class Stream(Dataset[Example]):
    """All examples of a run in order: permutation after permutation of the ratings, as long as the run.

    What lies at an index depends on the seed and the index only. So a resumed run, any number of processes
    and any split of a batch see the same examples, each with the same wording and draw.
    """

    def __init__(
        self,
        ratings: Sequence[Rating],
        stds: Sequence[float],
        questions: dict[str, list[str]],
        length: int,
        seed: int,
    ) -> None:
        """Stream `length` examples; `stds` (one a rating) are in the unit of its dimension."""
        self.ratings, self.stds, self.questions = list(ratings), list(stds), questions
        self.length, self.seed = length, seed
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Number of examples in the whole run."""
        return self.length

    def __getitem__(self, index: int) -> Example:
        """Return the example at an index of the run."""
        epoch, place = divmod(index, len(self.ratings))
        if self._order[0] != epoch:
            order = list(range(len(self.ratings)))
            random.Random(f"{self.seed} {epoch}").shuffle(order)
            self._order = (epoch, order)
        chosen = self._order[1][place]
        rng = random.Random(f"{self.seed} {epoch} {chosen}")
        rating = self.ratings[chosen]
        question = rng.choice(self.questions[rating.dimension])
        return Example(rating, self.stds[chosen], question, rng.random())


@dataclass
class Collator:
    """Makes batches of examples: right-padded chats with the answer told, labels on the answer only.

    A batch is the model's inputs, ``labels`` (B, L) with -100 where nothing is learnt, ``positions`` (N,) in
    the flattened (B * L) sequence, each the token before a supervised one, and ``targets``, a dict of the
    tensors of `Targets`.

    Attributes:
        processor: the model's processor.
        facts: dimensions and system prompt of the scorer to be.
        config: which loss is to be computed.
        eta: weight of the triangular soft label.
    """

    processor: ProcessorMixin
    facts: ScorerFacts
    config: AlignmentConfig
    eta: float
    spaces: dict[str, AnswerSpace] = field(default_factory=dict)
    known: dict[tuple[str, float, float, int], list[Step]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look up the tokens that every answer shares."""
        self.end = end_token(self.processor)
        written = self.encode([str(digit) for digit in range(10)])
        self.digit_ids = [tokens[-1] for tokens in written]
        self.digits = {token: digit for digit, token in enumerate(self.digit_ids)}

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, without special tokens."""
        tokenizer: Any = self.processor.tokenizer
        ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def is_number(self, token: int) -> bool:
        """Whether a token is one or more digits and nothing else."""
        tokenizer: Any = self.processor.tokenizer
        return bool(str(tokenizer.decode([token])).strip().isdecimal())

    def space(self, dimension: str) -> AnswerSpace:
        """The answers of a dimension in this model's tokens; made when first asked for."""
        if dimension not in self.spaces:
            self.spaces[dimension] = AnswerSpace.of(self.encode, self.facts.dimensions[dimension])
        return self.spaces[dimension]

    def answer(self, example: Example) -> tuple[list[Step], float]:
        """What each token of the answer should be, the end of the turn included, and the number told."""
        space, config, score = self.space(example.rating.dimension), self.config, example.rating.score
        told = space.index(score)
        if config.loss == "answers" and config.sample_prefix:
            told = draw_number(space, score, example.std, example.uniform)
        key = (space.dim.name, score, example.std, told)
        if key not in self.known:
            steps = answer_steps(space, score, example.std, told)
            if config.loss != "answers":
                eta = self.eta if config.loss == "triangular" else 0.0
                tokens = [int(step.tokens[step.told]) for step in steps]
                several = [token for token in tokens if token not in self.digits and self.is_number(token)]
                soft = token_steps(tokens, self.digits, eta, config.digit_weight, self.digit_ids, several)
                pairs = zip(soft, steps, strict=True)
                steps = [with_values(*pair) for pair in pairs] if config.value_weight else soft
            self.known[key] = [*steps, one_hot(self.end)]
        return self.known[key], float(space.values[told])

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Make a batch.

        Raises:
            ImageError: an image cannot be read.
        """
        answers = [self.answer(example) for example in examples]
        prompts = build_prompts(
            self.processor,
            [as_pil(example.rating.image) for example in examples],
            [example.question for example in examples],
            self.facts.system_prompt,
        )
        told = [[int(step.tokens[step.told]) for step in steps] for steps, _ in answers]
        batch, labels = answered(prompts, told)
        before = labels[:, 1:] != IGNORE  # the logits at a token are for the next one
        rows, columns = before.nonzero(as_tuple=True)
        dims = [self.facts.dimensions[example.rating.dimension] for example in examples]
        targets = Targets.stack(
            [steps for steps, _ in answers],
            [value for _, value in answers],
            [example.rating.score for example in examples],
            [(dim.low, dim.high) for dim in dims],
        )
        return {
            **batch,
            "labels": labels,
            "positions": rows * labels.shape[1] + columns,
            "targets": vars(targets),
        }


def answered(prompts: Inputs, answers: Sequence[Sequence[int]]) -> tuple[dict[str, Tensor], Tensor]:
    """Put each answer right behind its prompt; return the inputs, and labels (B, L) that are -100 elsewhere.

    >>> ids, mask = torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    >>> inputs, labels = answered({"input_ids": ids, "attention_mask": mask}, [[1], [2, 3]])
    >>> inputs["input_ids"].tolist(), labels.tolist()
    ([[5, 6, 7, 1], [8, 9, 2, 3]], [[-100, -100, -100, 1], [-100, -100, 2, 3]])
    """
    lengths = prompts["attention_mask"].sum(dim=1).tolist()
    width = max(length + len(answer) for length, answer in zip(lengths, answers, strict=True))
    extra = max(0, width - prompts["input_ids"].shape[1])
    inputs = dict(prompts)
    for key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask"):
        if key in prompts:
            tail = prompts[key].new_zeros(len(lengths), extra, *prompts[key].shape[2:])
            inputs[key] = torch.cat([prompts[key], tail], dim=1)
    labels = torch.full_like(inputs["input_ids"], IGNORE)
    for row, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
        said = slice(length, length + len(answer))
        inputs["input_ids"][row, said] = labels[row, said] = torch.tensor(answer)
        inputs["attention_mask"][row, said] = 1
        if "cross_attention_mask" in inputs:  # an answer sees the image as the end of its prompt does
            inputs["cross_attention_mask"][row, said] = inputs["cross_attention_mask"][row, length - 1]
    return inputs, labels
