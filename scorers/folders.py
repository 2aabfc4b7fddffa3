"""Where the tokenizer and the processor of a model's folder lie."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model", "tekken.json")
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def home_of(files: Collection[str], *folders: Path) -> Path | None:
    """First folder that has one of some files: of these, else of those beside a part of a diffusers pipeline.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     pipeline = Path(name).resolve()
    ...     for part in ("text_encoder", "tokenizer"):
    ...         (pipeline / part).mkdir()
    ...     for file in ("model_index.json", "tokenizer/tokenizer.json"):
    ...         _ = (pipeline / file).write_text("{}")
    ...     found = home_of(TOKENIZER_FILES, pipeline / "text_encoder")
    ...     found == pipeline / "tokenizer", home_of(PROCESSOR_FILES, pipeline / "text_encoder")
    (True, None)
    """
    pipelines = [above for folder in folders if ((above := folder.resolve().parent) / "model_index.json").is_file()]
    homes = [*folders, *(above / part for above in pipelines for part in ("tokenizer", "processor"))]
    return next((home for home in homes if any((home / file).is_file() for file in files)), None)
