"""Many prompts on Ray: the folder, and the images, of `stream`."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._errors import CogGuidedError, GenerationError, InputError
from ...guidance import Budget, Guidance, as_guidance
from ...pipelines import CogGuidedPipeline
from ...pipelines.bulk import GROUP, RunFolder
from ...pipelines.bulk.groups import Group, grouped, told_prompts
from ...pipelines.bulk.settings import check_streamable, settings_of
from ...pipelines.bulk.streaming import make_group, outputs_of, share_of
from ...pipelines.output import CogGuidedOutput
from .cluster import OnRay, Workers, ask_a_worker, here, map_blocks, settle

Load = Callable[[], CogGuidedPipeline]


def stream_on_ray(
    pipe: str | Path | Load,
    prompts: Sequence[str],
    folder: str | Path | None = None,
    *,
    workers: Workers | None = None,
    group: int = GROUP,
    target: str | Mapping[str, float] | None = None,
    guidance: Guidance | Sequence[Guidance] | None = None,
    seed: int | Sequence[int] | None = None,
    budget: Budget | float | str | None = None,
    diversity: float = 1.0,
    keep_candidates: str = "all",
    resume: bool = False,
    overwrite: bool = False,
    **arguments: Any,
) -> RayStream:
    """Make images of many prompts by a pool of processes, here or on a cluster; yields each group's output, in order.

    The folder is that of `stream`, written by this process, and either goes on with what the other began. Images are
    the same pixel for pixel where the workers' hardware and number of threads are.

    Args:
        pipe: a model's name or folder, or a function that returns the pipeline, called on each worker; never a loaded
            pipeline.
        prompts: all of them.
        folder: as for `stream`, like all that follow.
        workers: how many, where, with how many GPUs.
        group: see `folder`.
        target: a name or weights of names.
        guidance: see `folder`.
        seed: see `folder`.
        budget: see `folder`.
        diversity: see `folder`.
        keep_candidates: see `folder`.
        resume: see `folder`.
        overwrite: see `folder`.
        **arguments: see `folder`.

    Raises:
        InputError: a loaded pipeline, arguments that cannot be used, or no such cluster.
        RecordError: the folder holds another record or other settings, or cannot be written.
        GenerationError: a group could not be made, or workers died of it; those before it are kept.
        MissingExtraError: Ray is not installed.

    Executed in ``tests/integrations/test_ray.py``.
    """
    if not isinstance(pipe, str | Path) and (isinstance(pipe, CogGuidedPipeline) or not callable(pipe)):
        raise InputError("pipe: expected a model's name or folder, or a function that loads one on each worker")
    if not isinstance(group, int) or group < 1:
        raise InputError(f"group: expected a whole number from 1, got {group!r}")
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise InputError("prompts: expected a list of texts")
    load = NamedPipeline(str(pipe)) if isinstance(pipe, str | Path) else pipe
    call = {"target": target, "guidance": guidance, "diversity": diversity, **arguments}
    place = None if folder is None else (Path(folder), keep_candidates, resume, overwrite)
    return RayStream(load, list(prompts), place, workers or Workers(), group, seed, Budget.parse(budget), call)


class NamedPipeline:
    """Loads a pipeline by name, on the GPU that this process was given, if any.

    >>> NamedPipeline("embedded").model
    'embedded'
    """

    def __init__(self, model: str) -> None:
        self.model = model

    def __call__(self) -> CogGuidedPipeline:
        """Load it."""
        import torch

        pipe: CogGuidedPipeline = CogGuidedPipeline.from_pretrained(self.model)
        pipe.to("cuda" if torch.cuda.is_available() else "cpu")
        return pipe


class RayStream(OnRay[CogGuidedOutput]):
    """The outputs of groups of prompts, one after the other, as workers make them.

    Attributes:
        folder: where they are written, with how far it has come; None without one.
    """

    def __init__(
        self,
        load: Load,
        prompts: list[str],
        place: tuple[Path, str, bool, bool] | None,
        workers: Workers,
        group: int,
        seed: int | Sequence[int] | None,
        budget: Budget,
        call: dict[str, Any],
    ) -> None:
        self.folder: RunFolder | None = None

        def begin(ray: Any) -> Generator[CogGuidedOutput, None, None]:
            facts, guided = ask_a_worker(ray, workers, describe, load, group, seed, budget, call, here())
            facts["prompts"] = told_prompts(prompts)
            self.folder = None if place is None else RunFolder(place[0], facts, *place[1:])
            drawn = facts["drawn"] if self.folder is None else self.folder.settings["drawn"]

            def make_all(of_all: Iterator[Group]) -> Iterator[tuple[Group, CogGuidedOutput]]:
                waiting = list(of_all)
                tasks = (to_task(of, share_of(budget, len(of.prompts) / len(prompts))) for of in waiting)
                made = map_blocks(ray, workers, GroupWorker, (load, call, here()), tasks, 1, GenerationError)
                for of, block in zip(waiting, made, strict=True):
                    yield of, result_of(block)

            return outputs_of(grouped(prompts, group, seed, drawn, guided), make_all, self.folder)

        super().__init__(workers, begin)


def describe(
    load: Load,
    group: int,
    seed: int | Sequence[int] | None,
    budget: Budget,
    call: dict[str, Any],
    where: tuple[str, str],
) -> tuple[dict[str, Any], bool]:
    """Say, on a worker, what images will depend on, and whether they are guided.

    Raises:
        InputError: arguments that tie a call's images together.
        UnknownNameError: the pipeline does not take one.
    """
    settle(*where)
    pipe = load()
    arguments = dict(call)
    target, guidance, diversity = (arguments.pop(name) for name in ("target", "guidance", "diversity"))
    check_streamable(pipe, arguments)
    facts = settings_of(pipe, [], group, target, guidance, seed, budget, diversity, arguments)
    return facts, bool(pipe.guidance if guidance is None else as_guidance(guidance))


def to_task(of: Group, budget: Budget) -> Any:
    """Return the Arrow table, of one row, of a group to make."""
    import pyarrow

    return pyarrow.table({"task": pyarrow.array([pickle.dumps((of, budget))], pyarrow.large_binary())})


def to_result(made: CogGuidedOutput | CogGuidedError) -> Any:
    """Return the Arrow table, of one row, of what became of a group."""
    import pyarrow

    return pyarrow.table({"made": pyarrow.array([pickle.dumps(made)], pyarrow.large_binary())})


def result_of(block: Any) -> CogGuidedOutput:
    """Return what a worker made of a group, or raise what it raised."""
    made = pickle.loads(block["made"][0].as_py())  # of our own workers
    if isinstance(made, CogGuidedError):
        raise made
    output: CogGuidedOutput = made
    return output


class GroupWorker:
    """An actor of the pool: one loaded pipeline."""

    def __init__(self, load: Load, call: dict[str, Any], where: tuple[str, str]) -> None:
        settle(*where)
        self.pipe = load()
        self.pipe.set_progress_bar_config(disable=True)
        self.call = call

    def __call__(self, block: Any) -> Any:
        """Make a group; a deliberate error is its result."""
        of, budget = pickle.loads(block["task"][0].as_py())
        made: CogGuidedOutput | CogGuidedError
        try:
            made = make_group(self.pipe, of, budget, self.call)
        except CogGuidedError as error:
            made = error
        except Exception as error:  # of the base pipeline, which is anybody's
            asked = ", ".join(map(repr, of.prompts[:3])) + (", ..." if len(of.prompts) > 3 else "")
            made = GenerationError(f"the pipeline failed on {asked}: {type(error).__name__}: {error}")
        return to_result(made)

    def refuse(self, reason: str) -> Any:
        """Return the result of a group that is not made."""
        return to_result(GenerationError(f"a group of prompts cannot be made: {reason}"))
