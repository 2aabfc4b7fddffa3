"""The processes of a service on Ray Serve: a front that speaks HTTP, a judge, and a generator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..._errors import GenerationError, InputError, ModelError, missing_extra
from ...guidance import BestOfN
from ...pipelines import CogGuidedPipeline
from ...scorers import Scores, Target
from ..ray.cluster import Workers, ask_a_worker, connected
from ..ray.scoring import loaded
from .limits import Limits

if TYPE_CHECKING:
    from .app import Drawn, Scored
    from .bodies import Ask, GenerateIn

NAME = "cogguided"
DRAWN_TOGETHER = 8
"""Requests whose images are drawn in one call, where their settings agree."""


@dataclass
class Service:
    """A service that runs.

    Attributes:
        url: where it answers.
        terms: name, low, high and needs_prompt of each score.
    """

    url: str
    terms: list[dict[str, Any]]
    _stack: ExitStack

    def close(self) -> None:
        """End it, and the Ray that was started for it."""
        self._stack.close()


def start_service(
    scorer: Callable[[], Any],
    token: bytes,
    pipe: Callable[[], CogGuidedPipeline] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    urls: bool = False,
    workers: Workers | None = None,
) -> Service:
    """Start a service, wait until it answers, and return it.

    Args:
        scorer: returns what is scored by, called in the judge's process.
        token: digest of the token that requests must bear (see `tokens`).
        pipe: returns the pipeline that draws, called in the generator's process; None: no generator.
        host: address to listen on.
        port: 0: any that is free.
        limits: of requests and of the queue.
        urls: whether images are fetched from public URLs.
        workers: the Ray that it runs on; `count` judges of `gpus` each, and one generator.

    Raises:
        InputError: the address cannot be listened on, or there is no such cluster.
        CogGuidedError: what is to be loaded cannot be.
        MissingExtraError: Ray Serve is not installed.

    Executed in ``tests/integrations/test_ray.py``.
    """
    limits, workers = limits or Limits(), workers or Workers(count=1)
    with ExitStack() as stack:
        pool = replace(workers, count=workers.count + (pipe is not None))
        ray = stack.enter_context(connected(pool, quiet=False))
        serve = import_serve()
        port = free_port(host, port)
        http = {"host": host, "port": port, "request_timeout_s": limits.seconds + 10}
        logs = {"log_level": "WARNING", "enable_access_log": False}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=logs)
        stack.callback(serve.shutdown)
        resources = {"num_cpus": pool.cpus, "num_gpus": pool.gpus}
        judge = judges(serve, scorer, limits, workers.count, resources)
        painter = None if pipe is None else generator(serve, pipe, limits, resources)
        front = serve.deployment(
            serve.ingress()(Front),
            name="front",
            ray_actor_options={"num_cpus": 0},
            max_ongoing_requests=64 * limits.queue,
        ).bind(judge, painter, limits, token, urls)
        try:
            serve.run(front, name=NAME, logging_config=logs)
        except RuntimeError as error:  # it tells a traceback
            serve.delete(NAME)
            for load in (scorer, pipe):
                ask_a_worker(ray, pool, can_be_loaded, load)
            raise ModelError("the service cannot be started: Ray's log says why") from error
        terms = serve.get_deployment_handle("judge", NAME).about.remote().result()
        return Service(f"http://{host}:{port}", terms, stack.pop_all())


def can_be_loaded(load: Callable[[], Any] | None) -> None:
    """Load something, on a worker, for the error that this gives.

    >>> can_be_loaded(None)
    """
    if load is not None:
        load()


def judges(
    serve: Any, scorer: Callable[[], Any], limits: Limits, replicas: int, resources: dict[str, float]
) -> Any:
    """Return the deployment of the judges.

    Executed in ``tests/integrations/test_ray.py``.
    """
    most = 1 if limits.batch == 1 else max(limits.batch, limits.images)
    return serve.deployment(
        with_batches(serve, Judge, "score", most, limits.wait),
        name="judge",
        num_replicas=replicas,
        ray_actor_options=resources,
        max_ongoing_requests=2 * limits.batch,
        max_queued_requests=limits.queue,
        max_constructor_retry_count=1,
    ).bind(scorer)


def generator(
    serve: Any, pipe: Callable[[], CogGuidedPipeline], limits: Limits, resources: dict[str, float]
) -> Any:
    """Return the deployment of the generator.

    Executed in ``tests/integrations/test_ray.py``.
    """
    return serve.deployment(
        with_batches(serve, Painter, "draw", DRAWN_TOGETHER, limits.wait),
        name="generator",
        ray_actor_options=resources,
        max_ongoing_requests=2 * DRAWN_TOGETHER,
        max_queued_requests=limits.queue,
        max_constructor_retry_count=1,
    ).bind(pipe)


def import_serve() -> Any:
    """Import Ray Serve and what the service needs beside it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import python_multipart  # noqa: F401
        from ray import serve
    except ImportError as error:
        raise missing_extra("ray[serve]", "ray") from error
    return serve


def free_port(host: str, port: int) -> int:
    """Return a port that can be listened on: this one, or with 0 any.

    Raises:
        InputError: it is taken, or the host is not of this machine.

    >>> free_port("127.0.0.1", 0) > 0
    True
    """
    import socket

    try:
        with socket.create_server((host, port)) as server:
            found: int = server.getsockname()[1]
            return found
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"cannot listen on {host}:{port} ({why}): choose another --port") from error


def with_batches(serve: Any, kind: type, method: str, most: int, wait: float) -> type:
    """Return a class of which a method that takes a list is called for one item, and gathers what comes together.

    Executed in ``tests/integrations/test_ray.py``.
    """
    gather = serve.batch(max_batch_size=most, batch_wait_timeout_s=wait, batch_size_fn=total_size)
    gathered = gather(getattr(kind, method))
    return type(kind.__name__, (kind,), {method: gathered})


def total_size(items: list[Any]) -> int:
    """Return how much of a pass items take.

    >>> total_size([])
    0
    """
    return sum(getattr(item, "size", 1) for item in items)


class Front:
    """Speaks HTTP; has no weights."""

    def __init__(self, judge: Any, painter: Any, limits: Limits, token: bytes, urls: bool) -> None:
        self.judge, self.painter = judge, painter
        self.limits, self.token, self.urls = limits, token, urls
        self.terms: list[dict[str, Any]] | None = None

    def __serve_build_asgi_app__(self) -> Any:
        """Return the ASGI app; Ray Serve calls this."""
        from .app import build_app

        draw = self._draw if self.painter is not None else None
        return build_app(self._score, draw, self._terms, self.limits, self.token, self.urls)

    async def _terms(self) -> list[dict[str, Any]]:
        if self.terms is None:
            self.terms = await self.judge.about.remote()
        return self.terms

    async def _score(self, ask: Ask) -> Scored:
        return await asked(self.judge.score, ask)  # type: ignore[no-any-return]

    async def _draw(self, wish: GenerateIn) -> Drawn:
        return await asked(self.painter.draw, wish)  # type: ignore[no-any-return]


async def asked(method: Any, what: Any) -> Any:
    """Ask a deployment.

    Raises:
        Full: it has no room.
    """
    from ray.serve.exceptions import BackPressureError

    from .app import Full

    try:
        return await method.remote(what)
    except BackPressureError:
        raise Full from None


class Judge:
    """Holds one loaded target, and scores what several requests brought in one pass."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self.target: Target = loaded(load)
        self.thread = ThreadPoolExecutor(1)

    def about(self) -> list[dict[str, Any]]:
        """Return the facts of each term."""
        return facts_of(self.target)

    async def score(self, asks: list[Ask]) -> list[Scored]:
        """Score the images of several requests in one pass."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, score_asks, self.target, asks)


def facts_of(target: Target) -> list[dict[str, Any]]:
    """Return name, range and needs_prompt of each term of a target.

    >>> from ...scorers import load_target
    >>> facts_of(load_target("fake"))
    [{'name': 'fake', 'low': 0.0, 'high': 1.0, 'needs_prompt': False}]
    """
    return [
        {"name": t.name, "low": t.scorer.low, "high": t.scorer.high, "needs_prompt": t.scorer.needs_prompt}
        for t in target.terms
    ]


def score_asks(target: Target, asks: list[Ask]) -> list[Scored]:
    """Score the images of several requests in one pass, and give each its own.

    >>> from PIL import Image
    >>> from ...scorers import load_target
    >>> from .bodies import Ask
    >>> white, black = (Ask([Image.new("RGB", (2, 2), colour)], None, 1) for colour in ("white", "black"))
    >>> [scored.scores[0]["fake"]["value"] for scored in score_asks(load_target("fake"), [white, black])]
    [1.0, 0.0]
    """
    from .app import Scored

    pictures = [picture for ask in asks for picture in ask.pictures]
    prompts = [text for ask in asks for text in (ask.prompts or [""] * len(ask.pictures))]
    terms = target(pictures, prompts if target.needs_prompt else None).terms
    columns = {name: rows_of(scores) for name, scores in terms.items()}
    rows = [{name: column[i] for name, column in columns.items()} for i in range(len(pictures))]
    found, start = [], 0
    for ask in asks:
        found.append(Scored(rows[start : start + len(ask.pictures)], len(pictures)))
        start += len(ask.pictures)
    return found


def rows_of(scores: Scores) -> list[dict[str, Any]]:
    """Return scores in JSON's types, None where there is none; a reason that names a machine's file is cut.

    >>> import torch
    >>> rows_of(Scores(torch.tensor([0.5])))
    [{'value': 0.5, 'std': None, 'label': None, 'mass': None, 'error': None}]
    """
    valid = scores.valid.tolist()

    def column(tensor: Any) -> list[float | None]:
        if tensor is None:
            return [None] * len(valid)
        return [v if ok and v == v else None for v, ok in zip(tensor.detach().tolist(), valid, strict=True)]

    values, std, mass = column(scores.values), column(scores.std), column(scores.mass)
    labels, errors = scores.labels or [None] * len(valid), scores.errors or [None] * len(valid)
    return [
        {"value": v, "std": s, "label": label, "mass": m, "error": None if ok else error or "not valid"}
        for v, s, label, m, error, ok in zip(values, std, labels, mass, errors, valid, strict=True)
    ]


class Painter:
    """Holds one loaded pipeline, and draws what several requests want in as few calls as can be."""

    def __init__(self, load: Callable[[], CogGuidedPipeline]) -> None:
        self.pipe = load()
        self.pipe.set_progress_bar_config(disable=True)
        self.thread = ThreadPoolExecutor(1)

    async def draw(self, wishes: list[GenerateIn]) -> list[Drawn]:
        """Draw for several requests."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, draw_wishes, self.pipe, wishes)


def draw_wishes(pipe: CogGuidedPipeline, wishes: list[GenerateIn]) -> list[Drawn]:
    """Draw for several requests; those whose settings agree in one call.

    Executed in ``tests/integrations/test_serving.py``.
    """
    alike: dict[str, list[int]] = {}
    for i, wish in enumerate(wishes):
        alike.setdefault(wish.model_dump_json(exclude={"prompt", "seed"}), []).append(i)
    found: dict[int, Drawn] = {}
    for members in alike.values():
        found.update(zip(members, _draw_alike(pipe, [wishes[i] for i in members]), strict=True))
    return [found[i] for i in range(len(wishes))]


def _draw_alike(pipe: CogGuidedPipeline, wishes: list[GenerateIn]) -> list[Drawn]:
    from .app import Drawn
    from .pictures import to_base64

    first = wishes[0]
    arguments = first.model_dump(include={"num_inference_steps", "width", "height"}, exclude_none=True)
    seeds = [random.SystemRandom().randrange(2**31) if wish.seed is None else wish.seed for wish in wishes]
    try:
        output = pipe(
            [wish.prompt for wish in wishes], seed=seeds, guidance=BestOfN(first.n, keep=first.keep), **arguments
        )
    except InputError as error:
        return [Drawn(reason=str(error)) for _ in wishes]
    except GenerationError as error:
        if not error.complete:
            raise
        output = error.output
    except ValueError:  # of the base pipeline; its words may tell of the machine
        return [Drawn(reason="the pipeline does not take this size, or number of steps") for _ in wishes]
    drawn = [Drawn() for _ in wishes]
    for candidate in output.chosen:
        facts = {"prompt": candidate.prompt, "seed": candidate.seed, "score": finite(candidate.score)}
        scores = {name: finite(value) for name, value in candidate.scores.items()}
        drawn[candidate.request].images.append({**facts, "scores": scores, "png": to_base64(candidate.image)})
    return [found if found.images else Drawn(reason="no candidate has a valid score") for found in drawn]


def finite(value: float) -> float | None:
    """Return a number, None for NaN.

    >>> finite(float("nan")), finite(1.0)
    (None, 1.0)
    """
    return value if value == value else None
