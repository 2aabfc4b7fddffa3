"""A judge to be published: an adapter or model as `cogguided align` leaves it, with its card and its agreement."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..._defaults import EMBEDDED
from ..._errors import InputError, ModelError, RecordError
from ..benchmark.folder import folder_digest
from ..mllm.checkpoints import ADAPTER_FILE, FACTS_FILE, ScorerFacts, base_of
from .cards import CardFacts, figure, is_hub_name, licence_id, markdown_table, with_interval, write_card
from .uploading import place

KEPT = {".safetensors", ".json", ".jinja", ".txt", ".model"}
"""Endings of what a judge is loaded from."""
RECORD = "alignment.json"
METRICS = {
    "spearman": ("spearmanr", "Spearman's rank correlation"), "pearson": ("pearsonr", "Pearson's correlation"),
    "kendall": ("kendalltau", "Kendall's tau-b"), "mae": ("mae", "mean absolute error"),
    "mse": ("mse", "mean squared error"), "label_accuracy": ("accuracy", "accuracy of the label"),
    "unread": ("unread", "share without a score"),
}  # fmt: skip
"""Of the benchmark: the Hub's names, and in words."""
Row = tuple[str, str, str, float, float, float, int]
"""Dimension, read-out, metric, value, lower and upper end, items."""


def stage_judge(
    source: Path,
    target: Path,
    name: str,
    said: CardFacts,
    benchmark: Path | None = None,
    link: bool = False,
    same: bool = True,
) -> ModelCard:
    """Put into a folder what is to be published of a judge, with its card.

    Args:
        source: an adapter or a plain model that `load_scorer` takes.
        target: the new folder.
        name: of the repository.
        said: what its publisher says.
        benchmark: a finished run of `cogguided bench` with this judge, whose figures and intervals go into the card.
        link: link the weights in place of copying them.
        same: whether `source` is the folder that was judged, so that a run with another judge is refused.

    Raises:
        InputError: `benchmark` is of another judge; or the base is a folder of this machine, and `said.base_model`
            does not name it.
        ModelError: not a judge's folder, or without weights in safetensors.
        RecordError: no finished run in `benchmark`.

    Executed in ``tests/integrations/test_hub.py``.
    """
    is_adapter = (source / ADAPTER_FILE).is_file()
    if not is_adapter and not (source / "config.json").is_file():
        raise ModelError(f"{source}: neither an adapter ({ADAPTER_FILE}) nor a model (config.json)")
    files = [file for file in sorted(source.iterdir()) if file.is_file() and file.suffix in KEPT]
    if not any(file.suffix == ".safetensors" for file in files):
        raise ModelError(f"{source}: no weights in safetensors")
    facts = ScorerFacts.read(source)
    said = replace(said, license=said.license or licence_id(facts.licence))
    target.mkdir(parents=True, exist_ok=True)
    place([f for f in files if f.name not in (ADAPTER_FILE, FACTS_FILE, RECORD)], source, target, link)
    if is_adapter:
        base, said = published_base(source, said)
        config = json.loads((source / ADAPTER_FILE).read_text("utf-8"))
        config["base_model_name_or_path"] = base
        (target / ADAPTER_FILE).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", "utf-8")
    facts = replace(facts, licence=facts.licence or said.license_name or said.license or "")
    facts.write(target)
    digest = folder_digest(source) if same else None
    rows, dataset = read_record(source) if benchmark is None else read_benchmark(benchmark, digest)
    kind = (
        {"library_name": "peft", "base_model_relation": "adapter"} if is_adapter else {"library_name": "transformers"}
    )
    if said.base_model is None:
        kind.pop("base_model_relation", None)
    metrics = [METRICS[metric][0] for _, _, metric, *_ in rows if metric != "unread"]
    return write_card(
        target, name, describe(name, facts, rows, dataset), said, figures(rows, dataset),
        pipeline_tag="image-text-to-text", tags=["image-scoring", "human-ratings", *facts.dimensions],
        metrics=list(dict.fromkeys(metrics)) or None, **kind,
    )  # fmt: skip


def published_base(source: Path, said: CardFacts) -> tuple[str, CardFacts]:
    """Return how a published adapter names its base, and what is said of it.

    Raises:
        InputError: the base is a folder, and nothing says what it is called on the Hub.

    Executed in ``tests/integrations/test_hub.py``.
    """
    base = base_of(source)
    if said.base_model is not None:
        return said.base_model, said
    if Path(base).resolve() == (EMBEDDED / "text_encoder").resolve():
        return "embedded", said
    if not is_hub_name(str(base)):
        raise InputError(
            f"{source}: its base is {base}, which nobody else has: say what that is called on the Hub "
            "(CardFacts(base_model='OWNER/NAME'), --base-model), or publish a plain model (cogguided align merge)"
        )
    return str(base), replace(said, base_model=str(base))


def read_benchmark(folder: Path, digest: str | None = None) -> tuple[list[Row], tuple[str, str]]:
    """Return the figures of a run of the benchmark, and the data's name for the Hub and for people.

    Raises:
        InputError: the run is of a model whose files have another `digest`.
        RecordError: no finished run there.

    >>> read_benchmark(Path("no/such/folder"))
    Traceback (most recent call last):
    ...
    cogguided._errors.RecordError: no/such/folder: no finished run of cogguided bench (no results.json)
    """
    file = folder / "results.json"
    if not file.is_file():
        raise RecordError(f"{folder}: no finished run of cogguided bench (no results.json)")
    try:
        found: Mapping[str, Any] = json.loads(file.read_text("utf-8"))
        of = (found["settings"].get("model_files") or {}).values()
        readouts = set(found["plan"]["readouts"])
        rows: list[Row] = []
        for row in found["rows"]:
            if row["who"] not in readouts or row["subset"] != "all":
                continue
            for metric in METRICS:
                told = row["metrics"].get(metric)
                if told is not None and told["value"] is not None:
                    ends = [math.nan if told[end] is None else float(told[end]) for end in ("low", "high")]
                    rows.append((row["dimension"], row["who"], metric, float(told["value"]), *ends, row["items"]))
        data = str(found["about"].get("data", "the publisher's ratings"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{file}: not the results of cogguided bench ({type(error).__name__}: {error})") from error
    if digest is not None and of and digest not in of:
        raise InputError(f"benchmark: {folder} is a run with another judge ({found['settings'].get('scorer')})")
    return rows, ((data, data) if is_hub_name(data) else ("ratings", Path(data).name))


def read_record(source: Path) -> tuple[list[Row], tuple[str, str]]:
    """Return the figures of training's own evaluation, which have no intervals; none where there was none.

    >>> read_record(Path("no/such/folder"))
    ([], ('ratings', "ratings held out of the judge's training"))
    """
    rows: list[Row] = []
    if (source / RECORD).is_file():
        told: Mapping[str, Any] = json.loads((source / RECORD).read_text("utf-8"))
        for name, value in (told.get("metrics") or {}).items():
            metric, _, dimension = name.partition("_")
            if metric in METRICS and dimension and isinstance(value, int | float):
                rows.append((dimension, "expected", metric, float(value), math.nan, math.nan, 0))
    return rows, ("ratings", "ratings held out of the judge's training")


def figures(rows: Sequence[Row], dataset: tuple[str, str]) -> list[EvalResult | None]:
    """Return the figures as the Hub's `model-index` has them.

    >>> figures([("memorability", "expected", "mae", 0.2, 0.1, 0.3, 9)], ("x", "X"))[0].metric_name
    'mean absolute error of memorability, expected'
    """
    found = []
    for dimension, who, metric, value, low, high, items in rows:
        kind, words = METRICS[metric]
        facts = {"items": items} if items else {}
        told = (kind, f"{words} of {dimension}, {who}")
        found.append(figure("image-text-to-text", dataset, told, value, (low, high), **facts))
    return found


def describe(name: str, facts: ScorerFacts, rows: Sequence[Row], dataset: tuple[str, str]) -> str:
    """Write the text of a judge's card."""
    first = next(iter(facts.dimensions))
    parts = [
        f"{facts.description or 'A judge of images'}: a multimodal LLM that is asked what an image does to a person, "
        "and answers with a number. Made with cogguided.",
        f'```python\nfrom cogguided import load_scorer\n\njudge = load_scorer("{name}", dimension="{first}")\n'
        'judge(["a.png", "b.png"]).values        # higher is more\n```',
        "## What it judges",
        markdown_table(
            ["dimension", "range", "aligned with", "question"],
            [
                [n, f"{d.low:g} to {d.high:g}", facts.grounding.get(n, "not said"), d.question]
                for n, d in facts.dimensions.items()
            ],
        ),
    ]  # fmt: skip
    if rows:
        intervals = any(math.isfinite(low) for *_, low, _, _ in rows)
        kind = "In brackets: 95 % bootstrap intervals over images." if intervals else "Without intervals."
        table = [[d, who, METRICS[m][1], with_interval(v, low, high), n or ""] for d, who, m, v, low, high, n in rows]
        parts += [
            "## How far it agrees with people", f"On {dataset[1]}. {kind}",
            markdown_table(["dimension", "read-out", "metric", "value", "images"], table),
        ]  # fmt: skip
    else:
        parts.append("How far it agrees with people was not measured (`cogguided bench` does).")
    return "\n\n".join(parts)
