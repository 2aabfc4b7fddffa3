"""A multimodal LLM behind an OpenAI-compatible server as a scorer."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image

from ..._errors import InputError, unknown_name
from ..base import ImageInput, Scores, check_prompts
from ..dimensions import DIMENSIONS, Dimension
from ..images import load_images
from ..mllm.answers import ReadAnswer, from_reading, from_text, to_scores
from ..mllm.options import MAX_NEW_TOKENS, MIN_MASS
from ..mllm.reading.templates import PLACE
from .answers import Tokens, ValidAnswers, Walk
from .client import Server, ServerError

READOUTS = ("expected", "greedy", "levels", "yes_no")
GUIDES = ("structured_outputs", "guided_regex", "regex")
SHOWS = f'Does this image show "{PLACE}"? Answer yes or no.'


@dataclass(frozen=True)
class ServedOptions:
    """How a served model is asked and read.

    Args:
        readout: "expected", "greedy", "levels" or "yes_no".
        min_mass: probability of valid answers below which a score is not valid.
        max_new_tokens: where an answer that does not end is cut.
        max_requests: requests for one image and question at most; 1 reads along the likeliest answer only.
        top_logprobs: how many of the likeliest tokens to ask for at each place; servers allow 20 or so.
        guide: field by which the server takes a regular expression that answers must match, if it is to be sent:
            "structured_outputs" (vLLM), "guided_regex" (older vLLM) or "regex" (SGLang).

    >>> ServedOptions("yes_no").max_requests
    32
    """

    readout: str = "expected"
    min_mass: float = MIN_MASS
    max_new_tokens: int = MAX_NEW_TOKENS
    max_requests: int = 32
    top_logprobs: int = 20
    guide: str | None = None

    def __post_init__(self) -> None:
        if self.readout not in READOUTS:
            raise unknown_name("readout", self.readout, READOUTS)
        if self.guide is not None and self.guide not in GUIDES:
            raise unknown_name("guide", self.guide, GUIDES)
        if min(self.max_new_tokens, self.max_requests) < 1 or self.top_logprobs < 1 or not 0 <= self.min_mass <= 1:
            raise InputError(
                "expected max_new_tokens, max_requests and top_logprobs >= 1 and min_mass in [0, 1], got "
                f"{self.max_new_tokens}, {self.max_requests}, {self.top_logprobs} and {self.min_mass}"
            )


@dataclass
class ServedCore:
    """What scorers of one server share: the connection, the questions, and what was found out about the server.

    `continues` is whether it goes on with an answer that is begun for it, None while that is not known.
    """

    server: Server
    dimensions: dict[str, Dimension]
    continues: bool | None = None
    told: set[str] = field(default_factory=set)
    valid: dict[str, ValidAnswers] = field(default_factory=dict)

    def answers(self, name: str) -> ValidAnswers:
        """Valid answers of a dimension; made when first asked for."""
        if name not in self.valid:
            self.valid[name] = ValidAnswers.of(self.dimensions[name])
        return self.valid[name]

    def note(self, text: str) -> None:
        """Warn of something once."""
        if text not in self.told:
            self.told.add(text)
            warnings.warn(f"{self.server.url}: {text}", stacklevel=2)


class ServedScorer:
    """Score images by a model behind an OpenAI-compatible server (vLLM, SGLang, ``transformers serve``, ...).

    Images go as PNG data URLs, at full size. From the log probabilities of the likeliest tokens, "expected" is the
    mean of the model's answers as for local models, to what `top_logprobs` and `max_requests` show; "levels" is
    the mean over words with values, "yes_no" P(yes). A server that cannot go on with a begun answer is read along the
    likeliest answer only, one without log probabilities greedily; a warning says so. What fails is NaN with the
    reason. No gradients.

    Attributes:
        dimension: the dimension that a plain call scores.
        options: how the model is asked and read (`ServedOptions`).
    """

    differentiable = False

    def __init__(self, core: ServedCore, dimension: str, options: ServedOptions | None = None) -> None:
        if dimension not in core.dimensions:
            raise unknown_name(f"dimension of {core.server.model}", dimension, core.dimensions)
        self._core = core
        self.dimension = dimension
        self.options = options or ServedOptions()

    @classmethod
    def at(
        cls,
        model: str,
        dimension: str = "emotional_valence",
        readout: str = "expected",
        question: str | None = None,
        levels: Mapping[str, float] | None = None,
        low: float | None = None,
        high: float | None = None,
        min_mass: float = MIN_MASS,
        max_new_tokens: int = MAX_NEW_TOKENS,
        max_requests: int = 32,
        top_logprobs: int = 20,
        guide: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        backoff: float = 0.5,
        concurrency: int = 8,
        key_variable: str = "OPENAI_API_KEY",
    ) -> ServedScorer:
        """Score by the model at an address, ``http://host:8000#name``; nothing is sent before the first image.

        Args:
            model: the address.
            dimension: what a plain call scores.
            readout: "expected", "greedy", "levels" or "yes_no".
            question: asked instead of the dimension's own; ``{}`` in it stands for the image's prompt.
            levels: words with their values, for "levels".
            low: lowest value of the levels, if not the smallest of theirs.
            high: highest value of the levels, if not the largest of theirs.
            min_mass, max_new_tokens, max_requests, top_logprobs, guide: see `ServedOptions`.
            timeout, retries, backoff, concurrency, key_variable: see `Server`.

        Raises:
            InputError: an argument out of range; MissingExtraError without the extra "remote".

        Executed examples are in ``tests/scorers/test_served.py``.
        """
        server = Server(model, timeout, retries, backoff, concurrency, key_variable)
        options = ServedOptions(readout, min_mass, max_new_tokens, max_requests, top_logprobs, guide)
        core = ServedCore(server, dict(DIMENSIONS))
        if (readout == "levels") != (levels is not None):
            raise InputError("levels={word: value, ...} go with readout='levels', and only there")
        if readout in ("levels", "yes_no"):
            values = {word.strip(): float(v) for word, v in (levels or {"yes": 1, "no": 0}).items()}
            dim = _of_words(readout, values, low, high, question)
            core.dimensions, core.valid, dimension = {dim.name: dim}, {dim.name: ValidAnswers(values)}, dim.name
        elif question is not None:
            if dimension not in core.dimensions:
                raise unknown_name("dimension", dimension, core.dimensions)
            core.dimensions = {dimension: replace(core.dimensions[dimension], question=question)}
        return cls(core, dimension, options)

    @property
    def name(self) -> str:
        """The dimension's name."""
        return self.dimension

    @property
    def model_name(self) -> str:
        """The model's name on its server."""
        return self._core.server.model

    @property
    def low(self) -> float:
        """Lowest value of the dimension."""
        return self._core.dimensions[self.dimension].low

    @property
    def high(self) -> float:
        """Highest value of the dimension."""
        return self._core.dimensions[self.dimension].high

    @property
    def needs_prompt(self) -> bool:
        """Whether the question holds the image's prompt."""
        return PLACE in self._core.dimensions[self.dimension].question

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Every dimension that the model can be asked for."""
        return tuple(self._core.dimensions)

    @property
    def core(self) -> object:
        """The server; scorers with the very same core share its cache."""
        return self._core

    def with_dimension(self, name: str) -> ServedScorer:
        """Return a scorer of another dimension by the same server.

        Raises:
            UnknownNameError: there is no such dimension.
        """
        return ServedScorer(self._core, name, self.options)

    def to(self, device: torch.device | str) -> ServedScorer:
        """Return the scorer itself: the weights are elsewhere."""
        return self

    def __call__(self, images: ImageInput, prompts: Sequence[str] | None = None) -> Scores:
        """Score B images in the scorer's dimension.

        Raises:
            InputError: not a batch of images, or no prompts for a question that needs them.
        """
        return self._score(images, [self.dimension], prompts)[self.dimension]

    def score_all(self, images: ImageInput, dimensions: Sequence[str] | None = None) -> dict[str, Scores]:
        """Score B images in all dimensions, or those named.

        Raises:
            InputError: not a batch of images; UnknownNameError for an unknown dimension.
        """
        names = list(dict.fromkeys(self.dimensions if dimensions is None else dimensions))
        for name in names:
            self.with_dimension(name)
        return self._score(images, names, None)

    def _score(self, images: ImageInput, names: list[str], prompts: Sequence[str] | None) -> dict[str, Scores]:
        pictures, errors = load_images(images, on_error="nan")
        texts = check_prompts(prompts, len(pictures), self.name) if self.needs_prompt else [""] * len(pictures)

        def answer(job: tuple[str, int]) -> ReadAnswer:
            name, row = job
            picture = pictures[row]
            if picture is None:
                return ReadAnswer(error=errors[row])
            question = self._core.dimensions[name].question.replace(PLACE, texts[row])
            try:
                return self._read(_messages(picture, question), name)
            except ServerError as error:
                return ReadAnswer(error=str(error))

        jobs = [(name, row) for name in names for row in range(len(pictures))]
        with ThreadPoolExecutor(self._core.server.concurrency) as pool:
            read = list(pool.map(answer, jobs))
        size = len(pictures)
        return {name: to_scores(read[at * size :][:size]) for at, name in enumerate(names)}

    def _read(self, messages: list[dict[str, Any]], name: str) -> ReadAnswer:
        """Ask one question of one image."""
        dim, greedy = self._core.dimensions[name], self.options.readout == "greedy"
        body: dict[str, Any] = {"messages": messages, "max_tokens": self.options.max_new_tokens, "temperature": 0}
        body |= {} if greedy else {"logprobs": True, "top_logprobs": self.options.top_logprobs}
        body |= self._guide(dim)
        choice = self._core.server.ask(body)
        steps = [] if greedy else _steps(choice)
        if not steps:
            if not greedy:
                self._core.note("gives no log probabilities: its likeliest answer is read instead (greedy)")
            return self._from_text(choice["message"].get("content") or "", name)
        walk, start = Walk(self._core.answers(name)), ""
        for token, likeliest in steps:
            if not walk.add(start, likeliest):
                break
            start = start + token if start else token.lstrip()
        self._refine(walk, body, steps)
        return from_reading(walk.read(), dim.labels, self.options.min_mass)

    def _from_text(self, text: str, name: str) -> ReadAnswer:
        """The score that an answer in words says."""
        dim = self._core.dimensions[name]
        if self.options.readout not in ("levels", "yes_no"):
            return from_text(text, dim)
        said = re.sub(r"\W+$", "", text.strip()).casefold()
        found = self._core.answers(name).beneath(said) if self._core.answers(name).ends(said) else None
        if found is None:
            return ReadAnswer(error=f"none of {', '.join(dim.labels)} in the answer {text[:80]!r}")
        return ReadAnswer(found[0], label=dim.labels[found[2]])

    def _guide(self, dim: Dimension) -> dict[str, Any]:
        """The field that holds the server to valid answers."""
        if self.options.guide is None:
            return {}
        number = rf"-?\d{{1,2}}\.\d{{{dim.decimals}}}"
        words = "|".join(map(re.escape, dim.labels))
        pattern = f"({words})" if self.options.readout in ("levels", "yes_no") else f"({words}) {number}"
        plain = self.options.guide != "structured_outputs"
        return {self.options.guide: pattern if plain else {"regex": pattern}}

    def _refine(self, walk: Walk, body: dict[str, Any], steps: list[tuple[str, Tokens]]) -> None:
        """Go on with the branches that leave most open, if the server goes on with begun answers."""
        for _ in range(self.options.max_requests - 1):
            start = walk.next()
            if start is None or not self._can_continue(body, steps):
                return
            walk.add(start, self._after(body, start))

    def _after(self, body: dict[str, Any], start: str) -> Tokens:
        """Likeliest tokens after a begun answer."""
        begun = {"role": "assistant", "content": start}
        more = {"max_tokens": 1, "continue_final_message": True, "add_generation_prompt": False}
        found = _steps(self._core.server.ask({**body, "messages": [*body["messages"], begun], **more}))
        return found[0][1] if found else []

    def _can_continue(self, body: dict[str, Any], steps: list[tuple[str, Tokens]]) -> bool:
        """Whether an answer begun as the model began it is gone on with as the model did; found out once."""
        core = self._core
        if core.continues is None and len(steps) > 1:
            try:
                again = dict(self._after(body, steps[0][0].lstrip()))
            except ServerError:
                again = {}
            token, logprob = max(steps[1][1], key=lambda pair: pair[1])
            core.continues = abs(again.get(token, float("inf")) - logprob) < 0.25
            if not core.continues:
                core.note("does not go on with begun answers: they are read along the likeliest answer only")
        return bool(core.continues)


def _of_words(
    name: str, values: Mapping[str, float], low: float | None, high: float | None, question: str | None
) -> Dimension:
    """A scale whose answers are words; its edges only hold the range."""
    bottom, top = min(values.values()) if low is None else low, max(values.values()) if high is None else high
    if len(values) < 2 or not bottom < top or min(values.values()) < bottom or max(values.values()) > top:
        raise InputError(f"levels: expected two or more words with values in a range, got {dict(values)}")
    if question is None and name == "levels":
        raise InputError("readout='levels' needs a question, such as 'How good is this picture? Answer in one word.'")
    count = len(values)
    edges = [bottom + (top - bottom) * step / count for step in range(count)] + [top]
    return Dimension(name, f"{name} by a served model", tuple(values), tuple(edges), question or SHOWS)


def _messages(picture: Image.Image, question: str) -> list[dict[str, Any]]:
    """One picture and a question, as OpenAI's chats have them."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    parts = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def _steps(choice: Mapping[str, Any]) -> list[tuple[str, Tokens]]:
    """The tokens of an answer, each with the likeliest at its place; empty without log probabilities."""
    given = choice.get("logprobs")
    content = given.get("content") if isinstance(given, dict) else None
    try:
        return [
            (str(step["token"]), [(str(t["token"]), float(t["logprob"])) for t in step["top_logprobs"]])
            for step in content or ()
            if step["top_logprobs"]
        ]
    except (LookupError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ServerError(f"log probabilities in another form than OpenAI's ({said})") from error
