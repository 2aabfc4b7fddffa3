"""Scores as columns of Hugging Face data sets, in memory or streamed (a WebDataset tar included)."""

from __future__ import annotations

from typing import Any

from .._errors import InputError, missing_extra
from ..scorers import Target, TargetSpec, load_target


def score_dataset(
    dataset: Any,
    target: TargetSpec | Target = "emotional_valence",
    column: str = "image",
    prompts: str | None = None,
    batch_size: int = 16,
) -> Any:
    """Return a data set with a column for each term (in its own range), "score" (the total) and "score_error".

    A stream stays one: rows are scored as they are asked for. What has no score is NaN, with its reason.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset`; a tar of WebDataset is
            `load_dataset("webdataset", data_files=..., split="train", streaming=True)`; its columns are file endings.
        target: what to score by (see `load_target`).
        column: of images or paths.
        prompts: column of texts that a term such as "clip" compares with.
        batch_size: rows scored together.

    Raises:
        InputError: not a data set, no such column, or a column of a new name is there already.
        MissingExtraError: `datasets` is not installed.

    Executed in ``tests/integrations/test_datasets.py``.
    """
    try:
        from datasets import Dataset, IterableDataset
    except ImportError as error:
        raise missing_extra("datasets", "bench") from error
    if not isinstance(dataset, Dataset | IterableDataset):
        raise InputError(f"score_dataset: expected a (Iterable)Dataset of datasets, got {type(dataset).__name__}")
    found = target if isinstance(target, Target) else load_target(target)
    new = [*found.weights, "score", "score_error"]
    known = dataset.column_names  # None where a stream does not say
    if known is not None:
        missing = [name for name in (column, prompts) if name is not None and name not in known]
        if missing:
            raise InputError(f"score_dataset: no column {missing[0]!r}; the data set has {sorted(known)}")
        if taken := sorted(set(new) & set(known)):
            raise InputError(f"score_dataset: the data set has columns {taken} already; rename_columns first")

    def score(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        scores = found(batch[column], None if prompts is None else batch[prompts])
        values = {name: term.values.tolist() for name, term in scores.terms.items()}
        return {**values, "score": scores.total.tolist(), "score_error": list(scores.errors)}

    return dataset.map(score, batched=True, batch_size=batch_size)
