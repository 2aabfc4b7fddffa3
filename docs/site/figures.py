"""The figures of the concept pages: from tables that the docs already have, and from runs of the embedded model.

    python docs/site/figures.py          draw them all into docs/images (a minute on one core)

Colours are Okabe and Ito's, which colour-blind people tell apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parents[1]
IMAGES = DOCS / "images"
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
NUMBER = re.compile(r"[+−-]?\d+(?:\.\d+)?")
STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "svg.fonttype": "none", "svg.hashsalt": "cogguided", "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"], "figure.constrained_layout.use": True,
}  # fmt: skip


def table(page: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table of a page whose first line begins so, without emphasis and backticks.

    Raises:
        ValueError: there is none.
    """
    lines = (DOCS / page).read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(heading)]
    if not starts:
        raise ValueError(f"{page} has no table that begins with {heading!r}")
    rows = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([re.sub(r"[*`]", "", cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def figure(cell: str) -> tuple[float, float, float]:
    """Return a figure and the ends of its interval (itself where there is none).

    >>> figure("+0.28 [+0.15, +0.42]")
    (0.28, 0.15, 0.42)
    """
    numbers = [float(n.replace("−", "-")) for n in NUMBER.findall(cell)]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) >= 3 else (numbers[0], numbers[0], numbers[0])


def bars(axis: Any, x: float, y: tuple[float, float, float], colour: str, **how: Any) -> None:
    """A point with its interval."""
    how = {"fmt": "o", "capsize": 2, **how}
    axis.errorbar([x], [y[0]], yerr=[[y[0] - y[1]], [y[2] - y[0]]], color=colour, **how)


def save(drawn: Any, name: str) -> None:
    """Write a figure as SVG, the same bytes each time."""
    from matplotlib import pyplot as plt

    drawn.savefig(IMAGES / f"{name}.svg", metadata={"Date": None, "Creator": None})
    plt.close(drawn)
    print(IMAGES / f"{name}.svg")


def search_gain() -> None:
    """What search gives for what it costs, of docs/search.md."""
    from matplotlib import pyplot as plt

    drawn, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
    rows = table("search.md", "| method | time, of best-of-16's | network evaluations, of best-of-16's | gain")
    best = [row for row in rows if row[0].startswith("best of")]
    cost = [figure(row[2])[0] for row in best]
    gain = [figure(row[3]) for row in best]
    left.plot(cost, [g[0] for g in gain], color=BLACK, lw=1)
    for row, x, y in zip(best, cost, gain, strict=True):
        bars(left, x, y, BLACK, ms=4)
        n = row[0].removeprefix("best of ")
        left.annotate(n, (x, y[0]), xytext=(4, -11), textcoords="offset points", fontsize=8)
    colours = iter([BLUE, ORANGE, GREEN, PINK, SKY, RED])
    for row in rows[len(best) :]:
        name = row[0].split("(")[0].removeprefix("[").split(",")[0]
        name = "RewritePrompt, Drafts" if row[0].startswith("[") else name
        bars(left, figure(row[2])[0], figure(row[3]), next(colours), fmt="s", ms=5, label=name)
    left.set(xscale="log", xlabel="network evaluations, of best-of-16's", ylabel="gain, of best-of-16's")
    left.set_xticks([0.125, 0.25, 0.5, 1, 2], ["1/8", "1/4", "1/2", "1", "2"])
    left.minorticks_off()
    left.legend(fontsize=7, frameon=False, loc="lower right")
    left.set_title("best of N (line), and searches", fontsize=9)
    for column, name, colour, shift in ((4, "upward", BLUE, 0.96), (5, "downward", RED, 1.04)):
        values = [figure(row[column]) for row in best]
        ns = [int(row[0].split()[2]) for row in best]
        right.plot([n * shift for n in ns], [v[0] for v in values], color=colour, lw=1, label=name)
        for n, v in zip(ns, values, strict=True):
            bars(right, n * shift, v, colour, ms=4)
    right.set(xscale="log", xlabel="N of best-of-N", ylabel="gain, points of −3 to 3")
    right.set_xticks([2, 4, 8, 16, 32], ["2", "4", "8", "16", "32"])
    right.minorticks_off()
    right.axhline(0, color=BLACK, lw=0.6)
    right.set_title("what the judge that did not choose sees", fontsize=9)
    right.legend(fontsize=8, frameon=False)
    save(drawn, "concept_search")


def readouts() -> None:
    """Greedy and expected read-outs beside people, of docs/alignment.md."""
    from matplotlib import pyplot as plt

    rows = table("alignment.md", "| aligned by | greedy: Spearman")
    names = ["nothing (base)", "the paper's loss", "... and the value term", "... then GRPO"]
    drawn, axis = plt.subplots(figsize=(7, 2.6))
    for i, row in enumerate(rows):
        for column, name, colour, shift in ((1, "likeliest answer", ORANGE, 0.12), (2, "expected", BLUE, -0.12)):
            if not NUMBER.search(row[column]):
                axis.text(0.02, i + shift, "nothing could be read", fontsize=8, va="center", color=colour)
                continue
            v = figure(row[column])
            how = {"fmt": "o", "color": colour, "capsize": 2, "ms": 4, "label": name if i == 1 else None}
            axis.errorbar([v[0]], [i + shift], xerr=[[v[0] - v[1]], [v[2] - v[0]]], **how)
    axis.set_yticks(range(len(rows)), names[: len(rows)])
    axis.set(xlim=(0, 0.7), xlabel="Spearman's correlation with people, 201 concepts")
    axis.invert_yaxis()
    axis.legend(fontsize=8, frameon=False, loc="upper right")
    save(drawn, "concept_readouts")


def methods() -> None:
    """What fine-tuning gains and what it pays, of docs/finetuning.md."""
    from matplotlib import pyplot as plt

    rows, last = [], ""
    for row in table("finetuning.md", "| method | direction | runs"):
        last = row[0] or last
        rows.append([last, *row[1:]])
    drawn, axis = plt.subplots(figsize=(7, 3.8))
    kinds = {"nft with": (GREEN, "nft with anchors"), "the same": (SKY, "nft, 18 minutes")}
    kinds |= {"nft, guided": (PINK, "nft, guided"), "nft": (BLUE, "nft")}
    kinds |= {"drtune": (RED, "drtune"), "rwr": (ORANGE, "rwr")}
    seen = set()
    for row in rows:
        colour, name = next(kinds[k] for k in kinds if row[0].startswith(k))
        x, y = figure(row[3]), figure(row[5])
        axis.errorbar([x[0]], [y[0]], xerr=[[x[0] - x[1]], [x[2] - x[0]]], yerr=[[y[0] - y[1]], [y[2] - y[0]]],
                      fmt="^" if row[1] == "up" else "v", color=colour, capsize=2, lw=0.9, ms=6,
                      label=None if name in seen else name)  # fmt: skip
        seen.add(name)
    axis.axhline(1, color=BLACK, lw=0.6)
    axis.axvline(0, color=BLACK, lw=0.6)
    axis.set_xlabel("target, shares of the scale (▲ trained upward, ▼ downward)")
    axis.set_ylabel("faithfulness, of what it was")
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="lower left")
    save(drawn, "concept_methods")


def faces(n: int) -> Any:
    """The embedded model's faces of seeds 0 to n - 1, as the tutorials have them."""
    from cogguided import CogGuidedPipeline

    pipe = CogGuidedPipeline.from_pretrained("embedded")
    pipe.set_progress_bar_config(disable=True)
    return pipe(["a face"] * n, seed=list(range(n)), guidance=[]).images


def answers() -> None:
    """The distribution over answers of the embedded judge about three faces: a run."""
    from matplotlib import pyplot as plt

    from cogguided import load_scorer

    scorer = load_scorer("emotional_valence")
    images = faces(8)
    found = scorer.distributions(images)
    means = [float((d.values * d.probabilities).sum()) for d in found]
    order = np.argsort(means)
    drawn, axes = plt.subplots(1, 3, figsize=(8, 2.7), sharey=True)
    edges = np.linspace(-3, 3, 25)
    for axis, i in zip(axes, (order[0], order[len(order) // 2], order[-1]), strict=True):
        d = found[i]
        heights, _ = np.histogram(d.values, edges, weights=d.probabilities)
        axis.bar(edges[:-1], heights, width=np.diff(edges), align="edge", color=SKY, edgecolor="white", lw=0.4)
        likeliest = edges[int(heights.argmax())] + 0.125
        axis.axvline(means[i], color=BLUE, lw=1.6, label=f"mean {means[i]:+.2f}")
        axis.axvline(likeliest, color=RED, lw=1.2, ls="--", label=f"fullest bar {likeliest:+.2f}")
        axis.set_title(f"seed {i}", fontsize=9)
        axis.set(xlabel="valence", xlim=(-3, 3))
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0, 1.0))
        inset = axis.inset_axes((0.02, 0.42, 0.28, 0.34))
        inset.imshow(np.asarray(images[i]))
        inset.axis("off")
    axes[0].set_ylabel("probability")
    axes[0].set_ylim(0, axes[0].get_ylim()[1] * 1.35)
    save(drawn, "concept_answers")


def climb(steps: int = 60, rate: float = 1.5 / 255) -> Iterator[dict[str, Any]]:
    """Follow the judge's gradient in the pixels of two faces (signs, like FGSM), and let others look at each step."""
    import torch

    from cogguided import load_scorer
    from cogguided.pipelines import embedded_path

    scorer = load_scorer("emotional_valence")
    twin = load_scorer(embedded_path() / "judge", dimension="emotional_valence")
    clip = load_scorer("clip")
    images = torch.stack([torch.from_numpy(np.array(i.convert("RGB"))).permute(2, 0, 1) / 255.0 for i in faces(4)])
    for step in range(steps + 1):
        images = images.detach().requires_grad_()
        values = scorer(images).values
        with torch.no_grad():
            shown = images.detach()
            seen = {"target": values, "twin": twin(shown).values, "clip": clip(shown, ["a face"] * len(shown)).values}
            yield {"step": step, "images": shown, **{name: of.mean().item() for name, of in seen.items()}}
        values.sum().backward()
        with torch.no_grad():
            images = (images + rate * images.grad.sign()).clamp(0, 1)


def hacking() -> None:
    """A judge's gradient followed in pixels: what it says, what others say, and what is to be seen: a run."""
    from matplotlib import pyplot as plt
    from PIL import Image

    path = list(climb())
    steps = [row["step"] for row in path]
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
    left.plot(steps, [row["target"] for row in path], color=BLUE, label="the judge that is followed")
    left.plot(steps, [row["twin"] for row in path], color=ORANGE, label="its twin, taught by other ratings")
    left.set(xlabel="steps", ylabel="valence, −3 to 3")
    left.legend(fontsize=8, frameon=False)
    right.plot(steps, [row["clip"] for row in path], color=GREEN, label='CLIP: is it "a face"?')
    right.set(xlabel="steps", ylabel="cosine", ylim=(0.5, 0.7))
    right.legend(fontsize=8, frameon=False)
    save(drawn, "concept_hacking")
    shown = [path[i]["images"] for i in (0, 5, 15, 30, 60)]
    cells = [(255 * batch[k]).round().byte().permute(1, 2, 0).numpy() for k in range(2) for batch in shown]
    side = 128
    sheet = Image.new("RGB", (len(shown) * side, 2 * side), "white")
    for n, cell in enumerate(cells):
        place = (n % len(shown) * side, n // len(shown) * side)
        sheet.paste(Image.fromarray(cell).resize((side, side), Image.Resampling.NEAREST), place)
    sheet.save(IMAGES / "concept_hacking_faces.webp", quality=85, method=6)
    figures = {key: [round(path[i][key], 3) for i in (0, 5, 15, 30, 60)] for key in ("target", "twin", "clip")}
    print(json.dumps(figures))


def main() -> None:
    """Draw them all."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(STYLE)
    for draw in (search_gain, readouts, methods, answers, hacking):
        draw()


if __name__ == "__main__":
    main()
