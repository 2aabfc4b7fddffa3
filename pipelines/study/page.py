"""Pages of a study: the report, side by side and open; and the blinded one, on which people choose."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..._reports.pages import change, data_url, render
from ...scorers.benchmark.folder import write_json, write_page

SHOWN = 320
"""Longest side of a picture in the pages, in pixels; smaller ones are enlarged."""


def write_pages(
    folder: Path,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    means: Mapping[str, Mapping[str, float]],
    differences: Mapping[str, Mapping[str, Mapping[str, float]]],
    notes: Sequence[str],
) -> None:
    """Write report.html, vote.html, and key.json, which says what is behind each side of a pair."""
    write_page(folder / "report.html", _report(facts, rows, means, differences, notes))
    page, key = vote_page(folder, facts, rows)
    write_json(folder / "key.json", key)
    write_page(folder / "vote.html", page)


def vote_page(
    folder: Path, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Return the page and its key. Sides and order are shuffled, and nothing in the page tells the encoders apart."""
    about = json.dumps([facts["model"], facts["aligned"], facts["prompts"], facts["seeds"], facts["strength"]])
    study = hashlib.sha256(about.encode()).hexdigest()[:12]
    shuffle = random.Random(study)
    whole = [(key, found) for key, found in _images(rows).items() if {"original", "aligned"} <= set(found)]
    shuffle.shuffle(whole)
    pairs: dict[str, dict[str, Any]] = {}
    shown = []
    for number, ((prompt, seed), found) in enumerate(whole, 1):
        encoders = ["original", "aligned"]
        shuffle.shuffle(encoders)
        sides = dict(zip(("left", "right"), encoders, strict=True))
        pairs[f"pair{number}"] = {"prompt": prompt, "seed": seed, **sides}
        pictures = [(side, _data(folder / found[encoder])) for side, encoder in sides.items()]
        shown.append({"name": f"pair{number}", "prompt": prompt, "sides": pictures})
    page = render("vote.html", study=study, asked=_asked(facts["target"]), pairs=shown)
    return page, {"study": study, "pairs": pairs}


def _images(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], dict[str, str]]:
    """File of each arm's image, by prompt and seed."""
    images: dict[tuple[str, int], dict[str, str]] = {}
    for row in rows:
        for arm, of in row["arms"].items():
            images.setdefault((row["prompt"], row["seed"]), {})[arm] = of["image"]
    return images


def _asked(target: str) -> str:
    return target.replace("_", " ").replace(",", ", ")


def _report(
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    means: Mapping[str, Mapping[str, float]],
    differences: Mapping[str, Mapping[str, Mapping[str, float]]],
    notes: Sequence[str],
) -> str:
    names = list(next(iter(means.values())))
    lines = []
    for arm, values in means.items():
        cells = [arm]
        for name in names:
            told = differences.get(arm, {}).get(name)
            cells += [f"{values[name]:.3f}", "" if told is None else change(told["mean"], told["low"], told["high"])]
        lines.append(cells)
    groups = [
        {"prompt": prompt, "arms": [
            {"caption": f"{arm}, seed {seed}" if ", best" not in arm else arm, "file": found[arm]}
            for arm in means if arm in found
        ]}
        for (prompt, seed), found in _images(rows).items()
    ]  # fmt: skip
    about = (
        f"{len(facts['prompts'])} prompts, first seeds {', '.join(map(str, facts['seeds']))}, strength "
        f"{facts['strength']:g}, target {facts['target']}."
    )
    return render(
        "study.html", model=facts["model"], aligned=facts["aligned"], about=about, notes=notes, rows=lines,
        header=["arm", *(text for name in names for text in (name, "difference"))], groups=groups,
    )  # fmt: skip


def _data(file: Path) -> str:
    """A picture inside the page: its name must not tell which encoder it is of."""
    with Image.open(file) as image:
        shown = image.convert("RGB")
        if max(shown.size) > SHOWN:
            shown.thumbnail((SHOWN, SHOWN))
        buffer = io.BytesIO()
        shown.save(buffer, format="PNG")
    return data_url(buffer.getvalue(), "image/png")
