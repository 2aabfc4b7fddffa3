"""Model cards: what a published folder says of itself, in metadata that the Hub understands and in words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from PIL import Image

from ..._errors import InputError
from ..images import load_images

CARD = "README.md"
MARK = "<!-- Written by cogguided. Without this line the text is yours: pushing again changes the metadata only. -->"
LONGEST_SIDE = 1024
"""Of a picture in a card, in pixels."""


@dataclass(frozen=True)
class CardFacts:
    """What you say of something published, beside what its folder says.

    Attributes:
        license: the Hub's identifier, such as "apache-2.0"; "other" goes with the next two. Default: the folder's.
        license_name: where it is "other": its name.
        license_link: where it is "other": where it can be read.
        base_model: hub name of what it was made from, where the folder does not name it, or names a folder.
        datasets: hub names of data it learned from.
        tags: beside those that say what it is.
        pictures: images or files to show, by the prompt that each was drawn from.

    >>> CardFacts(license="other")
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: license 'other': give license_name and license_link too
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    datasets: Sequence[str] = ()
    tags: Sequence[str] = ()
    pictures: Mapping[str, Image.Image | str | Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.license is not None and licence_id(self.license) != self.license:
            told = licence_id(self.license)
            raise InputError(
                f"license {self.license!r}: expected the Hub's identifier, such as {told or 'apache-2.0'!r}, or "
                "'other' with license_name and license_link"
            )
        if self.license == "other" and not (self.license_name and self.license_link):
            raise InputError("license 'other': give license_name and license_link too")
        for name in (*self.datasets, *([] if self.base_model is None else [self.base_model])):
            check_hub_name(name)


def licence_id(text: str) -> str | None:
    """Return a licence's name as the Hub writes it, or None where that is no name.

    >>> licence_id("CC BY-SA 4.0"), licence_id("see the paper, then ask")
    ('cc-by-sa-4.0', None)
    """
    told = re.sub(r"\s+", "-", text.strip().lower())
    return (
        told if re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,40}", told) and told.count("-") < 5 and "," not in text else None
    )


def check_hub_name(name: str) -> None:
    """Check that a text can be the name of a repository.

    Raises:
        InputError: it cannot.

    >>> check_hub_name("me/face/s")
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: 'me/face/s' is no name on the Hub: expected OWNER/NAME
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"{name!r} is no name on the Hub: expected OWNER/NAME") from error


def is_hub_name(name: str | None) -> bool:
    """Whether a model's name is that of a repository, by its form, and no folder here.

    >>> [is_hub_name(name) for name in ("Qwen/Qwen2.5-VL-7B-Instruct", "/data/qwen", "embedded", None)]
    [True, False, False, False]
    """
    if not name or name.count("/") != 1 or Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def figure(
    task: str,
    dataset: tuple[str, str],
    metric: tuple[str, str],
    value: float,
    interval: tuple[float, float] = (math.nan, math.nan),
    **facts: Any,
) -> EvalResult | None:
    """Return a figure with its 95 % interval for a card's `model-index`; None where there is no value.

    Args:
        task: the Hub's name of it.
        dataset: the Hub's name, or one of the same form, and how people call it.
        metric: likewise.
        value: what was measured.
        interval: lower and upper end; not finite where there is none.
        **facts: what else belongs to the metric, such as items=3200.

    >>> figure("text-to-image", ("mine", "Mine"), ("spearmanr", "Spearman"), 0.5, (0.4, 0.6)).metric_args
    {'confidence_interval': [0.4, 0.6], 'confidence': 0.95}
    """
    if not math.isfinite(value):
        return None
    told: dict[str, Any] = dict(facts)
    if all(map(math.isfinite, interval)):
        told |= {"confidence_interval": [round(end, 6) for end in interval], "confidence": 0.95}
    return EvalResult(
        task_type=task, dataset_type=dataset[0], dataset_name=dataset[1], metric_type=metric[0],
        metric_name=metric[1], metric_value=round(value, 6), metric_args=told or None,
    )  # fmt: skip


def write_card(
    folder: Path, title: str, text: str, said: CardFacts, figures: Sequence[EvalResult | None], **data: Any
) -> ModelCard:
    """Write README.md and its pictures into a folder, read it back as the Hub's own client does, and return it.

    Args:
        folder: what is to be published.
        title: the repository's name.
        text: Markdown beneath the title.
        said: what its publisher says.
        figures: for the `model-index`; None are left out.
        **data: further fields of `ModelCardData`.

    Raises:
        InputError: the metadata are not what the Hub understands; or a picture that cannot be read.

    Executed in ``tests/integrations/test_hub.py``.
    """
    found = [result for result in figures if result is not None]
    widget = []
    for number, (prompt, picture) in enumerate(said.pictures.items()):
        file = folder / "pictures" / f"{number:02d}.png"
        file.parent.mkdir(exist_ok=True)
        (image,), _ = load_images([picture])
        assert image is not None  # what cannot be read is an error
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        image.save(file)
        widget.append({"text": prompt, "output": {"url": file.relative_to(folder).as_posix()}})
    shown = ["<Gallery />"] if widget else []  # the Hub draws the widget's pictures there
    facts: dict[str, Any] = {
        "base_model": said.base_model, "license": said.license, "license_name": said.license_name,
        "license_link": said.license_link, "datasets": list(said.datasets) or None, "widget": widget or None,
    }  # fmt: skip
    facts |= {name: value for name, value in data.items() if value is not None}
    facts["tags"] = ["cogguided", *data.get("tags", ()), *said.tags]
    try:
        header = ModelCardData(eval_results=found or None, model_name=title if found else None, **facts).to_yaml()
        body = "\n\n".join([f"# {title}", *shown, text.strip(), MARK])
        card = ModelCard(f"---\n{header.strip()}\n---\n\n{body}\n")
    except ValueError as error:
        raise InputError(f"model card of {title}: {error}") from error
    (folder / CARD).write_text(str(card), "utf-8")
    return card


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table.

    >>> print(markdown_table(["a", "b"], [[1, "x|y"]]))
    | a | b |
    |---|---|
    | 1 | x\\|y |
    """
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    written = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(head), *written[1:]])


def with_interval(value: float, low: float, high: float) -> str:
    """Write a figure with its interval.

    >>> with_interval(0.51234, 0.4, 0.6), with_interval(0.5, math.nan, math.nan)
    ('0.512 [0.400, 0.600]', '0.500')
    """
    told = f"{value:.3f}"
    return f"{told} [{low:.3f}, {high:.3f}]" if math.isfinite(low) and math.isfinite(high) else told
