"""Reaching a Ray cluster, or starting a small one here, and sending blocks of work through a pool of its actors."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from ..._errors import CogGuidedError, InputError, ScoringError, missing_extra
from ..._version import __version__

LOCAL = "local"
TRIES = 3
"""How often a block is begun again whose worker died, before the run gives up."""
logger = logging.getLogger("cogguided")


@dataclass(frozen=True)
class Workers:
    """Processes that work, each with one loaded model.

    Attributes:
        address: "local" (a Ray of our own on this machine, until the work is done), "auto" (the one that runs here),
            or its "host:6379".
        count: of processes.
        gpus: of each; a part such as 0.5 lets two share one.

    Raises:
        InputError: a count below 1, or fewer than 0 GPUs.
    """

    address: str = LOCAL
    count: int = 2
    gpus: float = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.gpus < 0:
            raise InputError(f"workers: expected count >= 1 and gpus >= 0, got {self.count} and {self.gpus}")

    @property
    def cpus(self) -> int:
        """Cores of each: of a Ray of our own, its share of this machine; else one."""
        return max(1, cores() // self.count) if self.address == LOCAL else 1


def cores() -> int:
    """Return the number of cores that this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def import_ray() -> Any:
    """Import Ray, quiet and without its usage statistics unless the environment says otherwise.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_extra("ray[data]", "ray") from error
    return ray


@contextmanager
def connected(workers: Workers, quiet: bool = True) -> Iterator[Any]:
    """Connect to Ray, and leave it (or end it, where it is our own) in the end; gives the module `ray`.

    `quiet`: what workers write to their standard error stays in Ray's logs.

    Where this process is connected already, that connection is used and kept.

    Raises:
        InputError: no cluster at that address, or none that could ever hold these workers.
        MissingExtraError: Ray is not installed.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, workers, quiet)
    try:
        _check_room(ray, workers)
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, workers: Workers, quiet: bool) -> None:
    logs = {"log_to_driver": not quiet, "logging_level": logging.ERROR, "configure_logging": True}
    before = signal.getsignal(signal.SIGTERM)
    try:
        if workers.address == LOCAL:
            count = max(workers.count * workers.cpus, cores())
            ray.init(address=LOCAL, num_cpus=count, include_dashboard=False, **logs)
        else:
            _check_answers(workers.address)
            ray.init(address=workers.address, **logs)
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        raise InputError(
            f"no Ray cluster at {workers.address!r} ({why}): `ray start --head` begins one; 'local' needs none"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray puts its own, and what was made would be lost


def _check_answers(address: str) -> None:
    """Raise an OSError soon where nobody listens; Ray itself asks again for many minutes."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), timeout=10).close()


def _check_room(ray: Any, workers: Workers) -> None:
    there = ray.cluster_resources()
    wanted = workers.gpus * workers.count
    if wanted <= there.get("GPU", 0):
        return
    told = f"{workers.count} workers of {workers.gpus:g} GPUs: there are {there.get('GPU', 0):g} GPUs"
    if workers.address == LOCAL or len(ray.nodes()) == 1:
        raise InputError(f"{told}; lower --workers or --gpus-per-worker")
    logger.warning("%s now; those that find none wait for more", told)


T = TypeVar("T")


class OnRay(Iterator[T]):
    """Results that come from workers; the connection ends with them, or by `close`.

    Args:
        workers: which are asked.
        begin: is given the module `ray`, connected; what it returns are the results. An error ends the connection.
    """

    def __init__(self, workers: Workers, begin: Callable[[Any], Generator[T, None, None]]) -> None:
        self._stack = ExitStack()
        ray = self._stack.enter_context(connected(workers))
        try:
            self._results = begin(ray)
        except BaseException:
            self._stack.close()
            raise

    def __next__(self) -> T:
        """Return the next result."""
        try:
            return next(self._results)
        except BaseException:  # the last one, or what ends them
            self.close()
            raise

    def close(self) -> None:
        """Stop the workers."""
        try:
            self._results.close()
        finally:
            self._stack.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # it never began
            self.close()


def ask_a_worker(ray: Any, workers: Workers, question: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function answers on the cluster, in a process with the resources of a worker.

    Raises:
        CogGuidedError: what the function raised, if it is of that tree; else `ScoringError` with its first line.
    """
    asked = ray.remote(question).options(num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=TRIES)
    try:
        return ray.get(asked.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, CogGuidedError):
            raise cause from None
        raise ScoringError(f"a Ray worker failed: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        raise ScoringError(f"a Ray worker failed: {_first_line(error)}") from error


class BlockWorker(Protocol):
    """What works on blocks: made once in each process, from picklable arguments."""

    def __call__(self, block: Any) -> Any:
        """Return a table of what it makes of one."""
        ...

    def refuse(self, reason: str) -> Any:
        """Return a table that says why a block is not worked on."""
        ...


def map_blocks(
    ray: Any, workers: Workers, kind: Callable[..., BlockWorker], arguments: tuple[Any, ...], blocks: Iterable[Any],
    rows: int, failure: type[CogGuidedError] = ScoringError,
) -> Iterator[Any]:  # fmt: skip
    """Send Arrow tables through a pool of actors, and yield what they make of `rows` at once, in order.

    Ray Data runs it: `workers.count` actors, each made once; what a dead one had is begun again by another, `TRIES`
    times.

    Args:
        ray: the module, connected.
        workers: of the pool.
        kind: makes what works, on each actor.
        arguments: of `kind`.
        blocks: tables whose first column tells them apart, each written as one.
        rows: of a call.
        failure: what is raised when a worker fails in a way of its own.
    """
    refs = [ray.put(block) for block in blocks]
    blocks_there = len(refs)
    if not refs:
        return
    data = ray.data
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    tally = begin_tally(ray)
    talk = logging.getLogger("ray.data")
    level = talk.level
    talk.setLevel(logging.CRITICAL)
    try:
        with data.DataContext.current(context):
            made = data.from_arrow_refs(refs).map_batches(
                BlockActor,
                fn_constructor_args=(kind, arguments, tally),
                batch_size=rows,
                batch_format="pyarrow",
                compute=data.ActorPoolStrategy(size=min(workers.count, blocks_there)),
                num_cpus=workers.cpus,
                num_gpus=workers.gpus,
            )
            del refs
            yield from made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except ray.exceptions.RayError as error:
        raise failure(f"a Ray worker failed: {_first_line(error)}") from error
    finally:
        talk.setLevel(level)
        ray.kill(tally)


class Tally:
    """An actor that counts how often a piece of work was begun: Ray itself would begin one that kills for ever.

    >>> tally = Tally()
    >>> tally.begin(b"a"), tally.begin(b"a"), tally.end(b"a"), tally.begin(b"a")
    (1, 2, None, 1)
    """

    def __init__(self) -> None:
        self.begun: Counter[bytes] = Counter()

    def begin(self, key: bytes) -> int:
        """Count, and return how often it was begun and not ended."""
        self.begun[key] += 1
        return self.begun[key]

    def end(self, key: bytes) -> None:
        """Forget a piece of work that is done."""
        del self.begun[key]


def begin_tally(ray: Any) -> Any:
    """Return a `Tally`, on this node: others may go away."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    place = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": place}
    return ray.remote(Tally).options(**lasting).remote()


class BlockActor:
    """An actor of the pool."""

    def __init__(self, kind: Callable[..., BlockWorker], arguments: tuple[Any, ...], tally: Any) -> None:
        self.worker = kind(*arguments)
        self.tally = tally

    def __call__(self, block: Any) -> Any:
        """Work on a block, unless others died of it."""
        ray = import_ray()
        key = hashlib.blake2b(block[0][0].as_py(), digest_size=16).digest()
        if ray.get(self.tally.begin.remote(key)) > TRIES:
            return self.worker.refuse(f"{TRIES} Ray workers died of it, one after the other (out of memory?)")
        made = self.worker(block)
        self.tally.end.remote(key)
        return made


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if "Error" in type(error).__name__ and lines and "Error" in lines[-1] else (lines or [""])[0]


def settle(folder: str, version: str) -> str | None:
    """Make this process, a worker, work in the folder of the one that asked; return why it cannot, or None.

    Raises:
        InputError: another version of cogguided is installed here.
    """
    if version != __version__:
        raise InputError(f"a Ray worker has cogguided {__version__}, not {version}: install one version everywhere")
    try:
        os.chdir(folder)
    except OSError as error:
        return f"the folder {folder} is not on this node ({error.strerror}): give absolute paths on shared storage"
    return None


def here() -> tuple[str, str]:
    """Return the arguments of `settle`."""
    return str(Path.cwd()), __version__
