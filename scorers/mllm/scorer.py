"""Any Hugging Face image-text-to-text model as a scorer.

The model sees the image, then a question of `dimensions`, and answers "label, then number", as in CogIP-Bench
(arXiv 2511.22805). Read-outs: `expected`, the mean of its answer distribution (`readout`), or `greedy`, the
likeliest text, parsed strictly; `levels`, the mean over some words (Q-Align, arXiv 2312.17090); `yes_no`, the
probability of yes (as VQAScore, arXiv 2404.01291); `pairwise`, which of two images is better.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import CommitInfo
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from ..._errors import InputError, unknown_name
from ..base import ImageInput, Scores, check_prompts
from ..dimensions import Dimension
from ..images import check_images
from ..precision import own_precision
from .checkpoints import ScorerFacts, elsewhere, load_checkpoint
from .core import Core
from .options import MAX_NEW_TOKENS, MIN_MASS, NUMBERED, READOUTS, Option, ReadOptions
from .reading.batch import Ask, distributions_of, score_batch
from .reading.pairs import compare_pairs
from .reading.templates import PLACE, choose
from .readout import Distribution

if TYPE_CHECKING:
    from ..publishing import CardFacts


class MLLMScorer:
    """Score images by asking a multimodal LLM, one dimension a call or all of them in one pass.

    Values are in the dimension's range, e.g. 0 to 10; higher means more. With ``readout="expected"``, `std`
    is the spread of the model's answers and `mass` the probability that it gave to valid ones. An image costs
    one pass over image and question, plus, for a model that answers as asked, some 30 to 50 answer tokens
    packed into three to five short passes. One whose numbers are wholly undecided costs more, and one
    that does not keep to three decimals may cost thousands, since then no branch can be cut short.

    With ``readout="levels"`` or ``"yes_no"`` the answer is a word and costs one short pass. A dimension whose
    question is answered in words is read so whatever `readout` says of the others (`Dimension.readouts`).

    Images given as a tensor with a graph get the score's gradient: of the score that the model gives
    to the same pixels rounded to 8 bits, through the processor's own resizing. It costs one pass more, and the
    memory of a backward pass through the model. Greedy scores have none.

    Make one with `from_pretrained`. Scorers of several dimensions on the same weights: `with_dimension`.

    Attributes:
        dimension: the dimension that a plain call scores.
        options: how answers are read (`ReadOptions`); `batch_size`, `min_mass`, `max_new_tokens` and
            `progress` are its fields, and can be set here.
    """

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
        dimension: str | None = None,
        adapter: str | Path | None = None,
        readout: str | None = None,
        batch_size: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        min_mass: float = MIN_MASS,
        trust_remote_code: bool = False,
        max_new_tokens: int = MAX_NEW_TOKENS,
        bits: int | None = None,
        question: str | None = None,
        levels: Mapping[str, float] | None = None,
        low: float | None = None,
        high: float | None = None,
        words: tuple[str, str] | None = None,
    ) -> MLLMScorer:
        """Load a model from a folder or the hub.

        Args:
            model: folder or hub name of an image-text-to-text model, or folder of a peft adapter, or of a
                ``cogguided_scorer.json`` that names one.
            dimension: what a plain call scores; default: "emotional_valence", or the first that the model has. With
                a question of your own, its name; default: the read-out's.
            adapter: folder or hub name of a peft adapter on `model`.
            readout: "expected", "greedy", "levels", "yes_no" or "pairwise"; default: as the dimension is meant to be
                read, which is "expected" unless the model's folder says otherwise.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32 on a CPU, bfloat16 elsewhere.
            min_mass: probability of valid answers below which an expected score is not valid.
            trust_remote_code: run code that comes with the model.
            max_new_tokens: where a greedy answer that does not end is cut; one that ends costs no more.
            bits: 8 or 4, to load a large model into a small GPU (needs bitsandbytes).
            question: what is asked after the image, ``{}`` in place of its prompt.
            levels: words that may answer the question and their values, for "levels".
            low: lowest value of the scale; default: of the levels.
            high: highest value.
            words: the two that may answer, the one that counts first, for "yes_no" (default "Yes" and "No") and
                "pairwise" ("First" and "Second"); their case does not matter.

        Raises:
            ModelError: the model cannot be loaded or is of another kind.
            InputError: an argument out of range, or a question without what its read-out needs; UnknownNameError for
                a dimension that it does not have.

        Executed examples are in ``tests/scorers/test_mllm.py`` and ``tests/scorers/test_own_questions.py``.
        """
        asked = (readout, question, levels, low, high, words)
        if question is not None and dimension is None:
            choose({}, dimension, *asked)  # before anything large is loaded
        network, processor, facts = load_checkpoint(model, adapter, device, dtype, trust_remote_code, bits)
        dim, way = choose(facts.dimensions, dimension, *asked, default=facts.default)
        home, patch = elsewhere(model, adapter)
        facts = replace(
            facts,
            dimensions={**facts.dimensions, dim.name: dim},
            model=_place(home),
            adapter="" if patch is None else _place(patch),
        )
        own = way == dim.readout and way not in NUMBERED[:2]  # its question can be answered in no other way
        options = ReadOptions(NUMBERED[0] if own else way, batch_size, min_mass, max_new_tokens)
        return cls.from_loaded(network, processor, facts, dim.name, options)

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
    def readout(self) -> str:
        """How the dimension is read: as `options` say, or, where it cannot be read so, as it is meant to be."""
        return self._readout_of(self.dimension)

    @readout.setter
    def readout(self, name: str) -> None:
        self._check_readout(name, self.dimension)
        self.options = replace(self.options, readout=name)

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach image tensors: of all but greedy scores."""
        return self.readout != "greedy"

    @property
    def needs_prompt(self) -> bool:
        """Whether the question is about the image and its prompt."""
        return self._needs_prompt([self._ask(self.dimension)])

    @property
    def low(self) -> float:
        """Lowest value of the scale."""
        return 0.0 if self.readout == "pairwise" else self._dim(self.dimension).low

    @property
    def high(self) -> float:
        """Highest value of the scale."""
        return 1.0 if self.readout == "pairwise" else self._dim(self.dimension).high

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

    def save(self, folder: str | Path) -> None:
        """Write the questions into a folder from which `load_scorer(folder)` makes this scorer again.

        It gets a ``cogguided_scorer.json`` that names the model; the weights stay where they are.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        replace(self.facts, default=self.dimension).write(Path(folder))

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

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the model whole (an adapter it was loaded with is in its weights), with processor and questions.

        Executed in ``tests/integrations/test_hub.py``.
        """
        home, processor = Path(folder), self._core.processor
        self._core.model.save_pretrained(home)
        processor.save_pretrained(home)
        replace(self.facts, model="", adapter="", default=self.dimension).write(home)

    def push_to_hub(
        self, repo_id: str, card: CardFacts | None = None, *, private: bool | None = None, token: str | None = None
    ) -> CommitInfo:
        """Upload the model whole, with processor, questions and a model card, to the Hugging Face Hub.

        `MLLMScorer.from_pretrained(repo_id)` has it back. `cogguided.integrations.push_to_hub` takes folders too, and
        of one with an adapter uploads that alone.

        Raises:
            InputError: no name of a repository, or the Hub does not accept the card.
            HfHubHTTPError: the Hub says no (all of `huggingface_hub`'s own).

        Executed in ``tests/integrations/test_hub.py``.
        """
        from ..publishing import CardFacts, full_name, stage_judge, upload

        name = full_name(repo_id, token)
        with tempfile.TemporaryDirectory() as place:
            saved, staged = Path(place) / "saved", Path(place) / "staged"
            self.save_pretrained(saved)
            stage_judge(saved, staged, name, card or CardFacts(), link=True)
            return upload(staged, name, private=private, token=token)

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images in the scorer's dimension; `prompts` are looked at where the question has a place for them.

        Raises:
            InputError: not a batch of images; no prompts where they are needed; a scorer that compares images.
        """
        return self.score_all(images, [self.dimension], prompts)[self.dimension]

    def score_all(
        self, images: ImageInput, dimensions: Sequence[str] | None = None, prompts: Sequence[str] | None = None
    ) -> dict[str, Scores]:
        """Score B images in all dimensions (or those named), with one pass over image and prompt start.

        By default in all that look at no more than `prompts` has: without them, none that needs them; and in none of
        those that compare images.

        Raises:
            InputError: not a batch of images, or no prompts where they are needed; UnknownNameError for a dimension
                that the model does not have.
        """
        names = dimensions
        if names is None:
            asks = [self._ask(name) for name in self.dimensions]
            names = [
                a[1] for a in asks if a[0] != "pairwise" and (prompts is not None or not self._needs_prompt([a]))
            ]
        found = self._score(images, [self._ask(name) for name in dict.fromkeys(names)], prompts)
        return {name: scores for (_, name), scores in found.items()}

    @property
    def compares(self) -> bool:
        """Whether it is read by "pairwise": it says which of two images is better, and nothing of one."""
        return self.readout == "pairwise"

    def compare(self, first: ImageInput, second: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Probability in [0, 1] that the first image of each of B pairs is better, asked in both orders and averaged.

        Of a scorer that is read by "pairwise". `std` is half of what the orders differ by. An image costs a pass over
        both of its pair, for each order.

        Raises:
            InputError: the scorer does not compare; not two batches of one length; no prompts where they are needed.
        """
        check_images(first)
        check_images(second)
        if not self.compares:
            raise InputError(
                f"scorer '{self.name}' is read by {self.readout!r}, of one image at a time: load it with "
                "readout='pairwise' to compare two"
            )
        if len(first) != len(second):
            raise InputError(f"compare: expected pairs, got {len(first)} and {len(second)} images")
        texts = check_prompts(prompts, len(first), self.name) if self.needs_prompt else None
        parts = []
        with self._core.undisturbed():
            for rows in self._batches(len(first), max(1, self.batch_size // 4)):  # four images a pair
                own = None if texts is None else texts[rows]
                parts.append(compare_pairs(self._core, self.dimension, self.options, first[rows], second[rows], own))
        return Scores.cat(parts)

    def score_readouts(
        self,
        images: ImageInput,
        dimensions: Sequence[str] | None = None,
        readouts: Sequence[str] = READOUTS[:2],
        prompts: Sequence[str] | None = None,
    ) -> dict[str, dict[str, Scores]]:
        """Score B images by several read-outs, all on one pass over the image; scores by read-out, dimension.

        Raises:
            InputError: not a batch of images, or a dimension that cannot be read so; UnknownNameError for an unknown
                dimension or read-out.
        """
        names = list(dict.fromkeys(self.dimensions if dimensions is None else dimensions))
        for readout in readouts:
            for name in names:
                self._check_readout(readout, name)
        found = self._score(
            images, [(readout, name) for readout in dict.fromkeys(readouts) for name in names], prompts
        )
        return {readout: {name: found[readout, name] for name in names} for readout in readouts}

    def distributions(
        self, images: ImageInput, dimension: str | None = None, prompts: Sequence[str] | None = None
    ) -> list[Distribution | None]:
        """Return what the model itself believes of B images in a dimension; None where an image cannot be read.

        The mean of each is the score (of a greedy scorer: the expected one), up to what was cut (see `readout`).

        Raises:
            InputError: not a batch of images; no prompts where they are needed; a dimension that is read by pairs.
            UnknownNameError: a dimension that the model does not have.
        """
        readout, name = self._ask(dimension or self.dimension)
        ask = ("expected" if readout == "greedy" else readout, name)
        texts = self._check([ask], images, prompts)
        found: list[Distribution | None] = []
        with self._core.undisturbed():
            for rows in self._batches(len(images), self.batch_size):
                own = None if texts is None else texts[rows]
                found += distributions_of(self._core, images[rows], own, ask, self.options)
        return found

    def _dim(self, name: str) -> Dimension:
        dims = self._core.facts.dimensions
        if name not in dims:
            raise unknown_name(f"dimension of {self.model_name}", name, dims)
        return dims[name]

    def _readout_of(self, name: str) -> str:
        known = self._dim(name).readouts
        return self.options.readout if self.options.readout in known else known[0]

    def _ask(self, name: str) -> Ask:
        return self._readout_of(name), name

    def _check_readout(self, readout: str, name: str) -> None:
        if readout not in READOUTS:
            raise unknown_name("readout", readout, READOUTS)
        known = self._dim(name).readouts
        if readout not in known:
            raise InputError(f"'{name}' can be read by {', '.join(known)}, not by {readout!r}")

    def _needs_prompt(self, asks: Sequence[Ask]) -> bool:
        dims = [(readout, self._dim(name)) for readout, name in asks]
        return any(PLACE in (dim.comparison if r == "pairwise" else dim.question) for r, dim in dims)

    def _check(self, asks: Sequence[Ask], images: ImageInput, prompts: Sequence[str] | None) -> list[str] | None:
        check_images(images)
        for readout, name in asks:
            if readout == "pairwise":
                raise InputError(
                    f"scorer '{name}' says which of two images is better, and nothing of one: call "
                    "scorer.compare(first, second), or search with Tournament(n)"
                )
        return check_prompts(prompts, len(images), self.name) if self._needs_prompt(asks) else None

    def _score(self, images: ImageInput, asks: Sequence[Ask], prompts: Sequence[str] | None) -> dict[Ask, Scores]:
        texts = self._check(asks, images, prompts)
        parts: dict[Ask, list[Scores]] = {ask: [] for ask in asks}
        with self._core.undisturbed():
            for rows in self._batches(len(images), self.batch_size):
                own = None if texts is None else texts[rows]
                found = score_batch(self._core, images[rows], own, asks, self.options) if asks else {}
                for ask, scores in found.items():
                    parts[ask].append(scores)
            return {ask: Scores.cat(scores) for ask, scores in parts.items()}

    def _batches(self, count: int, size: int) -> Iterator[slice]:
        starts = range(0, count, size)
        hidden = True if len(starts) < 2 else (None if self.progress is None else not self.progress)
        for start in tqdm(starts, desc="scoring", unit="batch", disable=hidden, leave=False):
            yield slice(start, start + size)


def _place(model: str | Path) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else str(model)
