"""Many prompts, one group after the other: an iterator over outputs, and over a folder that goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..._errors import CogGuidedError, GenerationError, InputError, RecordError
from ...guidance import Budget, Guidance, as_guidance
from ...scorers import TargetSpec
from ..cog_guided import CogGuidedPipeline
from ..output import CogGuidedOutput
from .folder import RunFolder
from .groups import Group, grouped
from .settings import check_streamable, settings_of

GROUP = 8
"""Prompts that are made at once: as many as images are."""

MakeAll = Callable[[Iterator[Group]], Iterator[tuple[Group, CogGuidedOutput]]]
"""Makes groups, in their order."""


class Stream(Iterator[CogGuidedOutput]):
    """The outputs of groups of prompts, one after the other.

    Attributes:
        folder: where they are written, with how far it has come; None without one.
    """

    def __init__(self, outputs: Generator[CogGuidedOutput, None, None], folder: RunFolder | None) -> None:
        self._outputs = outputs
        self.folder = folder

    def __next__(self) -> CogGuidedOutput:
        """Make the next group."""
        return next(self._outputs)

    def close(self) -> None:
        """Make no more; the pages of the folder are written now."""
        self._outputs.close()


def stream(
    pipe: CogGuidedPipeline,
    prompts: Iterable[str],
    folder: str | Path | None = None,
    *,
    group: int = GROUP,
    target: TargetSpec | None = None,
    guidance: Guidance | Sequence[Guidance] | None = None,
    seed: int | Sequence[int] | None = None,
    budget: Budget | float | str | None = None,
    diversity: float = 1.0,
    keep_candidates: str = "all",
    resume: bool = False,
    overwrite: bool = False,
    **arguments: Any,
) -> Stream:
    """Make images of any number of prompts, a group at a time, and yield each group's output.

    Nothing but the group under way is held. With a folder, each group is in it when it is yielded, whole; a run that
    was cut short, by whatever, goes on in it with `resume=True` and comes to the same images, pixel for pixel. Groups
    that are done are not made again, and not yielded. A prompt without any valid score does not stop the others.

    Args:
        pipe: the pipeline.
        prompts: read as they are needed.
        folder: where to write them, or None; see `docs/bulk.md` for what is in it.
        group: prompts that are made in one call; what a kill can cost. Images depend on it by rounding, at most.
        target: as in the pipeline's call, like `guidance`, `diversity` and `arguments`.
        guidance: see `target`.
        seed: as in one call of all prompts. None: each prompt draws its own, which the folder remembers.
        budget: of all prompts together, each group has its share; needs a list of prompts.
        diversity: see `target`.
        keep_candidates: images to write: "all", "chosen" ones, or "none" (contact sheets and rows only).
        resume: go on with the run in the folder; where there is none, begin it.
        overwrite: drop another record there.
        **arguments: of the base pipeline's call, none that ties the images of a call together.

    Raises:
        RecordError: the folder holds another record or other settings, or cannot be written.
        GenerationError: a group could not be made; what there is of it is in the folder's `unfinished`.
        InputError: arguments that cannot be used.

    >>> pipe = CogGuidedPipeline.from_pretrained("embedded")
    >>> pipe.set_progress_bar_config(disable=True)
    >>> outputs = stream(pipe, ["a cat", "a dog", "a face"], group=2, seed=0, num_inference_steps=1)
    >>> [len(out.images) for out in outputs]
    [2, 1]
    """
    if not isinstance(group, int) or group < 1:
        raise InputError(f"group: expected a whole number from 1, got {group!r}")
    if isinstance(prompts, str):
        raise InputError("prompts: expected several texts; for one, call the pipeline")
    check_streamable(pipe, arguments)
    limit = Budget.parse(budget)
    if limit != Budget() and not isinstance(prompts, Sequence):
        raise InputError("budget: is shared by all prompts, so give them as a list")
    facts = settings_of(pipe, prompts, group, target, guidance, seed, limit, diversity, arguments)
    run = None if folder is None else RunFolder(Path(folder), facts, keep_candidates, resume, overwrite)
    steps = pipe.guidance if guidance is None else as_guidance(guidance)
    drawn = facts["drawn"] if run is None else run.settings["drawn"]
    groups = grouped(prompts, group, seed, drawn, guided=bool(steps))
    share = 1 / len(prompts) if isinstance(prompts, Sequence) and prompts else 0.0

    call = {"target": target, "guidance": guidance, "diversity": diversity, **arguments}

    def make_all(of_all: Iterator[Group]) -> Iterator[tuple[Group, CogGuidedOutput]]:
        return ((of, make_group(pipe, of, share_of(limit, share * len(of.prompts)), call)) for of in of_all)

    return Stream(outputs_of(groups, make_all, run), run)


def share_of(budget: Budget, part: float) -> Budget:
    """Return a part of a budget.

    >>> share_of(Budget(seconds=60), 0.5).seconds
    30.0
    """
    return Budget(*(None if of_all is None else of_all * part for of_all in (budget.seconds, budget.nfe)))


def make_group(pipe: CogGuidedPipeline, of: Group, budget: Budget, call: Mapping[str, Any]) -> CogGuidedOutput:
    """Make one group; a prompt without any valid score is a note.

    Raises:
        GenerationError: it could not be made.

    Executed by every `stream`.
    """
    try:
        output: CogGuidedOutput = pipe(of.prompts, seed=of.seeds, budget=budget, **call)
    except GenerationError as error:
        if not error.complete:
            raise
        output = error.output
        output.notes.append(str(error).partition("; all that was made")[0])
    return output


def outputs_of(
    groups: Iterator[Group], make_all: MakeAll, folder: RunFolder | None
) -> Generator[CogGuidedOutput, None, None]:
    """Make groups and yield their outputs; with a folder those that it lacks, each written when it is yielded.

    The pages that show the folder are written when this ends, however it does.
    """
    if folder is None:
        for _, output in make_all(groups):
            yield output
            if output.interrupted:
                return
        return
    try:
        for prompts in folder.done():
            of = next(groups, None)
            if of is None or of.prompts != prompts:
                raise RecordError(f"{folder.folder}: was begun with other prompts, such as {prompts[0]!r}")
        try:
            for of, output in make_all(groups):
                if output.interrupted:
                    folder.keep_unfinished(output)
                    yield output
                    return
                folder.commit(of, output)
                yield output
                del output
        except GenerationError as error:
            if error.output is not None:
                with suppress(CogGuidedError):  # the first error is the one to tell
                    folder.keep_unfinished(error.output)
            raise
    finally:
        with suppress(CogGuidedError):
            folder.write_index()
