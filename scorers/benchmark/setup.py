"""What a run of the benchmark begins with: ratings, figures to compare with, the scorer, its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._errors import InputError, UnknownNameError
from ..._version import __version__
from ..base import Scorer
from ..dimensions import DIMENSIONS
from ..mllm.checkpoints import FACTS_FILE, ScorerFacts, hub_file
from ..ratings.reading import Rating, read_ratings, read_scores
from ..registry import EMBEDDED, list_scorers, load_scorer, scorer_arguments
from .folder import folder_digest
from .references import COGIP_TRAIN, TrainFigures, train_figures


def choose_ratings(
    data: str | Path,
    images: str | Path | None = None,
    names: Sequence[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> tuple[list[Rating], str | None]:
    """Read the ratings of a split: the one named, or test where there is one, or all ("all"). See `read_ratings`.

    Executed in ``tests/scorers/test_benchmark_cli.py``.
    """
    if split is None:
        try:
            return read_ratings(data, images=images, dimensions=names, split="test", limit=limit), "test"
        except UnknownNameError:  # no split of that name; a wrong dimension is told by the next line
            pass
    only = None if split == "all" else split
    return read_ratings(data, images=images, dimensions=names, split=only, limit=limit), only


def train_of(data: str | Path) -> dict[str, TrainFigures]:
    """Return figures for the reference rows: of the data's own training split, or CogIP-Bench's.

    Raises:
        InputError: a training score is out of range.

    Executed in ``tests/scorers/test_benchmark_cli.py``.
    """
    own = read_scores(data, split="train")
    source = f"the training split of {data}"
    return {**COGIP_TRAIN, **{d: train_figures(scores, DIMENSIONS[d], source) for d, scores in own.items()}}


def answer_settings(
    scorer: str,
    adapter: str | None,
    dtype: str | None,
    min_mass: float | None,
    pixels: tuple[int, int] | None,
) -> dict[str, Any]:
    """Return everything that answers depend on, model files included: a run with other settings is another run.

    >>> answer_settings("fake", None, None, None, None)["model_files"]
    {}
    """
    embedded = {info.name for info in list_scorers() if info.source == "embedded"}
    digests = {}
    for role, name in (("scorer", scorer), ("adapter", adapter)):
        if name is not None and (name in embedded or Path(name).is_dir()):
            digests[role] = folder_digest(EMBEDDED if name in embedded else Path(name))
    return {
        "scorer": scorer,
        "adapter": adapter,
        "dtype": dtype,
        "min_mass": min_mass,
        "pixels": pixels,
        "model_files": digests,
        "cogguided": __version__,
    }


def load_for(
    scorer: str, given: Mapping[str, Any], ratings: Sequence[Rating], batch_size: int, device: str
) -> Scorer:
    """Load a scorer for some ratings: with what was given (None: its own default) and what else it takes.

    Raises:
        InputError: the model knows none of the ratings' dimensions; or an argument that the scorer does not take.

    Executed in ``tests/scorers/test_benchmark_cli.py``.
    """
    takes = scorer_arguments(scorer)
    arguments = {name: value for name, value in given.items() if value is not None}
    own = {"batch_size": batch_size, "device": device, "dimension": first_dimension(scorer, given, ratings)}
    arguments |= {name: value for name, value in own.items() if name in takes}
    loaded = load_scorer(scorer, **arguments)
    return loaded if "device" in takes else loaded.to(device)


def first_dimension(scorer: str, given: Mapping[str, Any], ratings: Sequence[Rating]) -> str:
    """Return the first dimension of the data that a model's folder knows: a model need not know the default one.

    Raises:
        InputError: it knows none of them.

    >>> first_dimension("fake", {"adapter": None}, [Rating(Path("a.png"), "funniness", 1.0, "a")])
    'funniness'
    """
    in_data = list(dict.fromkeys(rating.dimension for rating in ratings))
    for folder in (given.get("adapter"), scorer):
        file = None if folder is None else hub_file(folder, FACTS_FILE)
        if file is not None:
            known = ScorerFacts.read(file.parent).dimensions
            if not any(name in known for name in in_data):
                raise InputError(f"{folder} knows {', '.join(known)}; the data have {', '.join(in_data)}")
            return next(name for name in in_data if name in known)
    return in_data[0]
