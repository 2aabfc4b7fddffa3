"""Pages of a study: the report, side by side and open; and the blinded one, on which people choose."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ...scorers.benchmark.folder import write_json, write_page

SHOWN = 320
"""Longest side of a picture in the pages, in pixels; smaller ones are enlarged."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2433; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid #dfe3ea }
th:first-child, td:first-child { text-align: left } figure { margin: 0 }
figcaption { font-size: 13px; color: #5d6778 }
.row { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0 2rem } img { image-rendering: auto }
.row img { width: 220px } .choice { border: 3px solid transparent; padding: 4px; background: none; cursor: pointer }
.choice.taken { border-color: #2457d6 } .choice img { width: 300px; display: block } button { font: inherit }
"""
SCRIPT = """
const study = document.body.dataset.study, kept = "study-" + study;
let choices = {}; try { choices = JSON.parse(localStorage.getItem(kept)) || {}; } catch (e) {}
const pairs = [...document.querySelectorAll(".pair")];
function show() {
  for (const pair of pairs) for (const button of pair.querySelectorAll("button"))
    button.classList.toggle("taken", choices[pair.id] === button.dataset.side);
  document.getElementById("count").textContent = `${Object.keys(choices).length} of ${pairs.length} chosen`;
}
for (const pair of pairs) for (const button of pair.querySelectorAll("button")) button.onclick = () => {
  choices[pair.id] = button.dataset.side;
  try { localStorage.setItem(kept, JSON.stringify(choices)); } catch (e) {}
  show();
};
document.getElementById("save").onclick = () => {
  const person = document.getElementById("person").value;
  const text = JSON.stringify({study, person, choices}, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = "choices" + (person ? "-" + person.replace(/[^a-z0-9]+/gi, "-") : "") + ".json";
  link.click();
};
show();
"""


def write_pages(
    folder: Path,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    means: Mapping[str, Mapping[str, float]],
    differences: Mapping[str, Mapping[str, Mapping[str, float]]],
    notes: Sequence[str],
) -> None:
    """Write report.html, vote.html, and key.json, which says what is behind each side of a pair."""
    write_page(folder / "report.html", _report(folder, facts, rows, means, differences, notes))
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
    parts = []
    for number, ((prompt, seed), found) in enumerate(whole, 1):
        sides = ["original", "aligned"]
        shuffle.shuffle(sides)
        name = f"pair{number}"
        pairs[name] = {"prompt": prompt, "seed": seed, "left": sides[0], "right": sides[1]}
        button = '<button class="choice" data-side="{0}"><img alt="{0}" src="{1}"></button>'
        both = zip(("left", "right"), sides, strict=True)
        choices = "".join(button.format(side, _data(folder / found[encoder])) for side, encoder in both)
        neither = '<button class="choice" data-side="neither">no difference</button>'
        parts.append(f'<div class="pair" id="{name}"><h3>{number}. {escape(prompt)}</h3>{choices}{neither}</div>')
    page = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Which image?</title>',
        f'<style>{STYLE}</style><body data-study="{study}"><h1>Which image?</h1>',
        f"<p>Of each pair, choose the one that has more of: <b>{escape(_asked(facts['target']))}</b>.</p>",
        *parts,
        '<p><label>Name (optional): <input id="person"></label> <button id="save">Save my choices</button> '
        '<span id="count"></span></p>',
        f"<script>{SCRIPT}</script></body></html>",
    ]
    return "\n".join(page), {"study": study, "pairs": pairs}


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
    folder: Path,
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    means: Mapping[str, Mapping[str, float]],
    differences: Mapping[str, Mapping[str, Mapping[str, float]]],
    notes: Sequence[str],
) -> str:
    names = list(next(iter(means.values())))
    table = ["<table><tr><th>arm</th>" + "".join(f"<th>{escape(n)}</th><th>difference</th>" for n in names) + "</tr>"]
    for arm, values in means.items():
        cells = []
        for name in names:
            told = differences.get(arm, {}).get(name)
            change = "" if told is None else f"{told['mean']:+.3f} [{told['low']:+.3f}, {told['high']:+.3f}]"
            cells.append(f"<td>{values[name]:.3f}</td><td>{change}</td>")
        table.append(f"<tr><td>{escape(arm)}</td>{''.join(cells)}</tr>")
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Study</title>',
        f"<style>{STYLE}</style><h1>{escape(facts['model'])} with {escape(facts['aligned'])}</h1>",
        f"<p>{len(facts['prompts'])} prompts, first seeds {', '.join(map(str, facts['seeds']))}, strength "
        f"{facts['strength']:g}, target {escape(facts['target'])}. Target and judges in shares of their range. "
        "Differences are from the original, paired over prompts, with 95 % bootstrap intervals.</p>",
        *(f"<p>{escape(note)}</p>" for note in notes), *table, "</table>",
        '<p>For people to choose: <a href="vote.html">vote.html</a> (blinded).</p>',
    ]  # fmt: skip
    for (prompt, seed), found in _images(rows).items():
        parts.append(f'<h3>{escape(prompt)}</h3><div class="row">')
        for arm in means:
            if arm in found:
                caption = f"{arm}, seed {seed}" if ", best" not in arm else arm
                figure = f'<img alt="" src="{found[arm]}" loading="lazy"><figcaption>{escape(caption)}</figcaption>'
                parts.append(f"<figure>{figure}</figure>")
        parts.append("</div>")
    return "\n".join([*parts, "</html>"])


def _data(file: Path) -> str:
    """A picture inside the page: its name must not tell which encoder it is of."""
    with Image.open(file) as image:
        shown = image.convert("RGB")
        if max(shown.size) > SHOWN:
            shown.thumbnail((SHOWN, SHOWN))
        buffer = io.BytesIO()
        shown.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
