"""Scoring files on Ray: the rows, and the table, of `score_files`."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..._errors import CogGuidedError, InputError, ScoringError
from ...scorers import FileScore, Scorer, ScoreTable, Target, load_target
from ...scorers.bulk import table_settings
from ...scorers.bulk.scoring import CHUNK, score_chunk
from ...scorers.bulk.table import key_of
from .cluster import OnRay, Workers, ask_a_worker, here, map_blocks, settle

LONGEST = 8
"""Batches of the longest blocks."""

Load = Callable[[], Target | Scorer]


def score_files_on_ray(
    files: Iterable[str | Path],
    scorer: str | Mapping[str, float] | Load,
    prompt: str | None = None,
    *,
    workers: Workers | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    told: Mapping[str, Any] | None = None,
) -> ScoreStream:
    """Score files by a pool of processes, here or on a cluster; yields what each got, in the order of the files.

    The rows are those of `score_files`, and so is the table: either goes on with what the other began. Files and
    models are read by the workers, so on several nodes they must be where each node finds them.

    Args:
        files: any iterable; all names are gathered, in Ray's object store, before the first is scored.
        scorer: a name, weights of names, or a function that returns a target or a scorer, called on each worker;
            never a loaded scorer.
        prompt: text to compare with, for scorers that need one.
        workers: how many, where, with how many GPUs.
        out: as for `score_files`.
        overwrite: drop another table of that name.
        told: what the table is to remember of the settings beside what the target says.

    Raises:
        InputError: a loaded scorer, or no such cluster.
        ScoringError: the scorer failed, or a worker died several times on the same files; what was scored is kept.
        RecordError: `out` cannot be written, or holds something else.
        MissingExtraError: Ray is not installed.

    Executed in ``tests/integrations/test_ray.py``.
    """
    if isinstance(scorer, Scorer) or (isinstance(scorer, Mapping) and not all(isinstance(n, str) for n in scorer)):
        raise InputError("scorer: expected a name, weights of names, or a function that loads one on each worker")
    load = scorer if callable(scorer) else NamedTarget(scorer)
    table = {"file": out, "overwrite": overwrite, "told": told or {}}
    return ScoreStream(files, load, prompt, workers or Workers(), table)


class NamedTarget:
    """Loads a target by name, on the GPU that this process was given, if any.

    >>> NamedTarget("fake")().name
    'fake'
    """

    def __init__(self, spec: str | Mapping[str, float]) -> None:
        self.spec = spec

    def __call__(self) -> Target:
        """Load it."""
        import torch

        return load_target(self.spec).to("cuda" if torch.cuda.is_available() else "cpu")


class ScoreStream(OnRay[FileScore]):
    """Scores as they come from the workers.

    Attributes:
        terms: names of the scores.
        table: where they are written; None without `out`.
    """

    def __init__(
        self, files: Iterable[str | Path], load: Load, prompt: str | None, workers: Workers, table: dict[str, Any]
    ) -> None:
        self.terms: list[str] = []
        self.table: ScoreTable | None = None

        def begin(ray: Any) -> Generator[FileScore, None, None]:
            facts = ask_a_worker(ray, workers, describe, load, prompt, here())
            self.terms = facts["terms"]
            if table["file"] is not None:
                settings = {**facts["settings"], **table["told"]}
                self.table = ScoreTable(table["file"], self.terms, settings, table["overwrite"])
            blocks = cut(_waiting(files, self.table), facts["batch"], workers.count)
            return self._scores(
                map_blocks(ray, workers, ScoreWorker, (load, prompt, here()), blocks, facts["batch"])
            )

        super().__init__(workers, begin)

    def _scores(self, made: Iterator[Any]) -> Generator[FileScore, None, None]:
        for block in made:
            scores = from_block(block, self.terms)
            if self.table is not None:
                self.table.append(scores)
            yield from scores
        if self.table is not None:
            self.table.finish()


def _waiting(files: Iterable[str | Path], table: ScoreTable | None) -> Iterator[str]:
    """Names that have no row yet; with a table, each once."""
    seen: set[int] = set()
    for file in files:
        name = str(Path(file))
        if table is not None:
            if Path(name) in table or (key := key_of(name)) in seen:
                continue
            seen.add(key)
        yield name


def cut(names: Iterable[str], batch: int, workers: int) -> Iterator[Any]:
    """Cut names into blocks of whole batches: short ones first, which come soon, then longer ones, which cost less.

    >>> [block.num_rows for block in cut(map(str, range(30)), 4, 1)]
    [4, 4, 4, 4, 8, 6]
    """
    import pyarrow

    names = iter(names)
    number = 0
    while texts := list(islice(names, batch * min(LONGEST, 1 + number // (4 * workers)))):
        yield pyarrow.table({"file": pyarrow.array(map(os.fsencode, texts), pyarrow.binary())})
        number += 1


def describe(load: Load, prompt: str | None, where: tuple[str, str]) -> dict[str, Any]:
    """Say, on a worker, what will be scored: terms, settings of the table, and files of a batch.

    Raises:
        InputError: the target needs a prompt and there is none.
    """
    settle(*where)
    target = loaded(load)
    if target.needs_prompt and prompt is None:
        needy = ", ".join(term.name for term in target.terms if term.scorer.needs_prompt)
        raise InputError(f"scorer '{needy}' compares images with a text: pass prompt=, --prompt")
    sizes = [getattr(term.scorer, "batch_size", CHUNK) for term in target.terms]
    return {"terms": list(target.weights), "settings": table_settings(target, prompt), "batch": min(sizes)}


def loaded(load: Load) -> Target:
    """Return the target that a function loads.

    >>> loaded(lambda: load_target("fake")).name
    'fake'
    """
    found = load()
    return found if isinstance(found, Target) else load_target(found)


class ScoreWorker:
    """An actor of the pool: one loaded target."""

    def __init__(self, load: Load, prompt: str | None, where: tuple[str, str]) -> None:
        self.trouble = settle(*where)
        self.target = loaded(load)
        self.prompt = prompt

    def __call__(self, block: Any) -> Any:
        """Score the files of a block; a scorer that raises is a row that says so."""
        paths = [Path(os.fsdecode(name)) for name in block["file"].to_pylist()]
        try:
            if self.trouble and not all(path.is_absolute() for path in paths):
                raise InputError(self.trouble)
            return to_block(score_chunk(paths, self.target, self.prompt), list(self.target.weights))
        except CogGuidedError as error:
            return self.refuse(str(error))

    def refuse(self, reason: str) -> Any:
        """Return the row that says why files are not scored."""
        return to_block([], list(self.target.weights), reason)


def to_block(scores: list[FileScore], terms: list[str], failure: str | None = None) -> Any:
    """Return scores as an Arrow table; or, as its only row, why there are none."""
    import pyarrow

    if failure is not None:
        scores = [FileScore(Path(), dict.fromkeys(terms, float("nan")), failure)]
    values = [pyarrow.array([score.values[term] for score in scores], pyarrow.float64()) for term in terms]
    texts = [None if score.error is None else score.error.encode("utf-8", "surrogatepass") for score in scores]
    columns = {
        "file": pyarrow.array([os.fsencode(score.file) for score in scores], pyarrow.binary()),
        "failed": pyarrow.array([failure is not None] * len(scores), pyarrow.bool_()),
        **{f"value {i}": column for i, column in enumerate(values)},
        "error": pyarrow.array(texts, pyarrow.binary()),
    }
    return pyarrow.table(columns)


def from_block(block: Any, terms: list[str]) -> list[FileScore]:
    """Return the scores of an Arrow table.

    Raises:
        ScoringError: it says that the scorer failed.

    >>> scores = [FileScore(Path("a.png"), {"fake": 0.5}), FileScore(Path("b.png"), {"fake": float("nan")}, "gone")]
    >>> [score.error for score in from_block(to_block(scores, ["fake"]), ["fake"])]
    [None, 'gone']
    """
    scores = []
    for row in block.to_pylist():
        error = None if row["error"] is None else row["error"].decode("utf-8", "surrogatepass")
        if row["failed"]:
            raise ScoringError(error)
        values = {term: row[f"value {i}"] for i, term in enumerate(terms)}
        scores.append(FileScore(Path(os.fsdecode(row["file"])), values, error))
    return scores
