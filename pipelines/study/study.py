"""The experiment of arXiv 2511.22805 on any pipeline: the same prompts and seeds with and without aligned encoder.

Four arms: "original"; "aligned", with the aligned model as text encoder; and both again with the best of N by the
target ("original, best of N", "aligned, best of N"). All begin with the same seeds, so they are compared in pairs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DiffusionPipeline
from scipy.stats import binomtest, bootstrap
from tqdm import tqdm

from ..._errors import InputError, RecordError
from ..._texts import read_text as read_user_text
from ..._texts import to_json_text
from ..._version import __version__
from ...guidance import BestOfN
from ...guidance.finetuning.judging import Panel
from ...guidance.text_encoder.swap import swap_text_encoder
from ...scorers import Scorer, TargetSpec
from ...scorers.benchmark.folder import write_json
from ..arguments import check_arguments
from ..cog_guided import CogGuidedPipeline
from .judges import guided_view, load_faithfulness, load_judges, read_lines
from .page import write_pages

RUN_FILE, ROWS_FILE = "study.json", "rows.jsonl"
ENCODERS = ("original", "aligned")


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Attributes:
        folder: with report.html, vote.html, the images, rows.jsonl.
        means: of each arm and measure ("target", "faithfulness", the judges).
        differences: of each arm from "original", paired over prompts.
        notes: what could not be checked.
    """

    folder: Path
    means: dict[str, dict[str, float]]
    differences: dict[str, dict[str, Interval]]
    notes: list[str]


def run_study(
    pipe: DiffusionPipeline | str | Path,
    aligned: Any,
    prompts: Sequence[str] | str | Path,
    target: TargetSpec,
    output: str | Path,
    *,
    seeds: Sequence[int] = (55, 56),
    n: int = 8,
    strength: float = 1.0,
    scorer: Any = None,
    judges: Mapping[str, TargetSpec] | Sequence[str] | None = None,
    faithfulness: str | Scorer | None = "clip",
    overwrite: bool = False,
    progress: bool = True,
    **arguments: Any,
) -> StudyResult:
    """Compare the original text encoder with an aligned one, alone and with best-of-N, by scorers and by people.

    A run that was cut short goes on where it was. Besides the report it writes `vote.html`, in which people choose
    between images of the two encoders without knowing which is which; `tally` counts the files that it saves.

    Args:
        pipe: a pipeline that is conditioned by a language model, or what `CogGuidedPipeline.from_pretrained` loads.
        aligned: the aligned model (see `swap_text_encoder`).
        prompts: texts, or a file with one a line or a JSON list, as the paper's prompt files are.
        target: what best-of-N chooses by, and the first measure.
        output: folder.
        seeds: first seed of each comparison; the k-th of its N candidates has seed + k.
        n: candidates of best-of-N; 1: these two arms are left out.
        strength: of the aligned encoder.
        scorer: scores the target's terms.
        judges: measures that nothing is chosen by (see `finetune`).
        faithfulness: scorer of images against prompts, or None.
        overwrite: drop another study in the folder.
        progress: show a bar.
        **arguments: of the pipeline's call.

    Raises:
        InputError: prompts or settings that cannot be used, or another study in the folder.
        ModelError: the aligned model does not fit, or cannot reach the image.

    An executed example is in ``tests/pipelines/test_study.py``.
    """
    texts = read_lines(prompts)
    if not texts:
        raise InputError("prompts: there are none")
    if n < 1 or len(set(seeds)) != len(seeds) or not seeds:
        raise InputError(f"expected n of at least 1 and seeds that differ, got n={n}, seeds={list(seeds)}")
    guided = guided_view(pipe, target, scorer)
    check_arguments(guided.base_class, arguments)
    wanted = guided.load_target()
    assert wanted is not None
    folder = Path(output)
    name = aligned if isinstance(aligned, str | Path) else getattr(aligned, "name", type(aligned).__name__)
    facts = {
        "cogguided": __version__, "model": str(guided.config.get("_name_or_path")), "aligned": str(name),
        "target": wanted.name, "prompts": texts, "seeds": list(seeds), "n": n, "strength": strength,
        "arguments": {k: repr(v) for k, v in arguments.items()},
    }  # fmt: skip
    panel = Panel(wanted, load_judges(guided, wanted, judges), load_faithfulness(guided, faithfulness))
    guided.set_progress_bar_config(disable=True)
    jobs = [(p, s) for p in texts for s in seeds]
    with swap_text_encoder(guided, aligned, strength) as swap:
        notes = list(swap.notes)
        _claim(folder, facts, overwrite)  # once the model is known to fit
        done = {(row["prompt"], row["seed"], row["encoder"]) for row in read_rows(folder)}
        with tqdm(total=2 * len(jobs), desc="study", unit="image set", disable=not progress) as bar:
            for place, (prompt, seed) in enumerate(jobs):
                for encoder in ENCODERS:
                    if (prompt, seed, encoder) not in done:
                        swap.strength = strength if encoder == "aligned" else 0.0
                        _append(folder, _row(guided, panel, folder, place, (prompt, seed, encoder), n, arguments))
                    bar.update(1)
    return _finish(folder, facts, notes)


def _claim(folder: Path, facts: Mapping[str, Any], overwrite: bool) -> None:
    file = folder / RUN_FILE
    if overwrite:
        (folder / ROWS_FILE).unlink(missing_ok=True)
    elif file.exists():
        try:
            before = json.loads(file.read_text("utf-8"))["facts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{file}: cannot be read ({error}); begin again with overwrite") from error
        changed = [key for key in facts if before.get(key) != facts[key]]
        if changed:
            raise InputError(f"{folder} holds another study; it differs in {', '.join(changed)} (overwrite drops it)")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty and holds no study: take another folder")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_json(file, {"facts": facts})


def _row(
    guided: CogGuidedPipeline,
    panel: Panel,
    folder: Path,
    place: int,
    what: tuple[str, int, str],
    n: int,
    arguments: dict[str, Any],
) -> dict[str, Any]:
    """Make one prompt's N images with one encoder, keep the first and the best, and measure them."""
    prompt, seed, encoder = what
    out = guided(prompt, seed=seed, guidance=BestOfN(n), **arguments)
    first = min(out.candidates, key=lambda c: c.seed or 0)
    made = {encoder: first.image}
    if n > 1:
        made[f"{encoder}, best of {n}"] = out.chosen[0].image
    looked = panel.look(list(made.values()), [prompt] * len(made), [True] * len(made))
    looked.pop("features", None)
    arms = {}
    for i, (arm, image) in enumerate(made.items()):
        file = f"images/{place:04d}_{arm.replace(', ', '_').replace(' ', '-')}.png"
        image.save(folder / file)
        arms[arm] = {"image": file, "values": {name: float(values[i]) for name, values in looked.items()}}
    return {"prompt": prompt, "seed": seed, "encoder": encoder, "arms": arms}


def _append(folder: Path, row: Mapping[str, Any]) -> None:
    from ...scorers.benchmark.folder import without_nan

    with (folder / ROWS_FILE).open("a", encoding="utf-8") as file:
        file.write(to_json_text(without_nan(row)) + "\n")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a study; a line that a kill cut off is dropped from the file.

    >>> read_rows(Path("no/such/folder"))
    []
    """
    file = folder / ROWS_FILE
    if not file.exists():
        return []
    text = file.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, "utf-8")
    try:
        return [json.loads(line) for line in whole.split("\n")[:-1]]  # a prompt may hold other ends of lines
    except ValueError as error:
        raise RecordError(f"{file}: a line is not JSON ({error})") from error


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return the mean of second - first over P prompts and its 95 % bootstrap interval (BCa); NaNs are left out.

    >>> found = paired_difference([0.0, 0.0, 0.0, 0.0], [1.0, 1.2, 0.8, 1.0])
    >>> round(found.mean, 2), found.low < 1 < found.high
    (1.0, True)
    """
    differences = np.array(second, dtype=float) - np.array(first, dtype=float)
    found = differences[np.isfinite(differences)]
    if len(found) < 3 or np.ptp(found) == 0:
        mean = float(found.mean()) if len(found) else math.nan
        return Interval(mean, mean if len(found) > 2 else -math.inf, mean if len(found) > 2 else math.inf)
    ends = bootstrap((found,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
    return Interval(float(found.mean()), float(ends.low), float(ends.high))


def _finish(folder: Path, facts: dict[str, Any], notes: list[str]) -> StudyResult:
    rows = read_rows(folder)
    arms = list(dict.fromkeys(arm for row in rows for arm in row["arms"]))
    arms = sorted(arms, key=lambda arm: (", best" in arm, arm.startswith("aligned")))
    names = list(next(iter(rows[0]["arms"].values()))["values"])
    by_arm: dict[str, dict[str, list[float]]] = {}
    for arm in arms:
        by_arm[arm] = {}
        for name in names:
            per_prompt: dict[str, list[float]] = {}
            for row in rows:
                if arm in row["arms"]:
                    value = row["arms"][arm]["values"][name]
                    per_prompt.setdefault(row["prompt"], []).append(math.nan if value is None else value)
            by_arm[arm][name] = [float(np.mean(per_prompt[prompt])) for prompt in facts["prompts"]]
    means = {arm: {name: float(np.nanmean(of)) for name, of in values.items()} for arm, values in by_arm.items()}
    differences = {
        arm: {name: paired_difference(by_arm["original"][name], by_arm[arm][name]) for name in names}
        for arm in arms
        if arm != "original"
    }
    plain = {arm: {name: vars(estimate) for name, estimate in of.items()} for arm, of in differences.items()}
    write_json(folder / RUN_FILE, {"facts": facts, "notes": notes, "means": means, "differences": plain})
    write_pages(folder, facts, rows, means, plain, notes)
    return StudyResult(folder, means, differences, notes)


@dataclass(frozen=True)
class Tally:
    """What people chose.

    Attributes:
        voters: files that were counted.
        wins: choices of the aligned encoder's image.
        losses: of the original's.
        ties: of neither.
        share: wins over wins and losses, with Wilson's 95 % interval, each pair of images counted once.
        ratio: wins over losses, with its interval.
        names: what "aligned" and "original" stand for, where the pairs are not those of a study.
    """

    voters: int
    wins: int
    losses: int
    ties: int
    share: Interval
    ratio: Interval
    names: tuple[str, str] = ENCODERS[::-1]


def tally(folder: str | Path, choices: Sequence[str | Path]) -> Tally:
    """Count what people chose on a study's `vote.html`, whose button saves one file a person.

    Args:
        folder: of the study.
        choices: files saved by the page.

    Raises:
        RecordError: a file that is not of this study, or cannot be read.
    """
    key_file = Path(folder) / "key.json"
    try:
        key = json.loads(key_file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{key_file}: cannot be read ({error}); is {folder} the folder of a study?") from error
    per_pair: dict[str, list[int]] = {}
    ties = 0
    for file in choices:
        try:
            told = json.loads(read_user_text(Path(file)))
            votes = dict(told["choices"])
            study = told["study"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{file}: no choices can be read from it ({error})") from error
        if study != key["study"] or not set(votes) <= set(key["pairs"]):
            raise RecordError(f"{file}: these are choices of another study than {folder}")
        for pair, side in votes.items():
            if side not in ("left", "right", "neither"):
                raise RecordError(f"{file}: pair {pair}: expected left, right or neither, got {side!r}")
            if side == "neither":
                ties += 1
            else:
                per_pair.setdefault(pair, []).append(int(key["pairs"][pair][side] == "aligned"))
    wins = sum(sum(of) for of in per_pair.values())
    losses = sum(len(of) for of in per_pair.values()) - wins
    share = _share([(sum(of), len(of)) for of in per_pair.values()])
    ratio = Interval(*(_odds(p) for p in (share.mean, share.low, share.high)))
    original, aligned = (str(key.get("names", {}).get(name, name)) for name in ENCODERS)
    return Tally(len(choices), wins, losses, ties, share, ratio, (aligned, original))


def _share(pairs: Sequence[tuple[int, int]]) -> Interval:
    """Share of wins of (wins, votes) per pair of images, with Wilson's interval.

    Votes of several people on one pair go together, so each pair counts as one observation: the interval is rather
    too wide than too narrow.
    """
    if not pairs:
        return Interval(math.nan, math.nan, math.nan)
    wins, votes = (sum(of) for of in zip(*pairs, strict=True))
    found = binomtest(round(wins / votes * len(pairs)), len(pairs)).proportion_ci(method="wilson")
    return Interval(wins / votes, min(float(found.low), wins / votes), max(float(found.high), wins / votes))


def _odds(share: float) -> float:
    return math.inf if share >= 1 else share / (1 - share)
