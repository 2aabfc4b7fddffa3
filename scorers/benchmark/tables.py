"""Figures as rows of text, for the terminal, for Markdown and for HTML alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .metrics import METRICS

TITLES: Mapping[str, str] = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "kendall": "Kendall",
    "mae": "MAE",
    "mse": "MSE",
    "label_accuracy": "label accuracy",
    "unread": "unread",
    "mass": "captured probability",
}
"""Headings of the metrics' columns."""
ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: what it is about.
        header: one text a column.
        rows: as wide as the header.
        notes: why cells are empty.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def tables_of(rows: Sequence[Mapping[str, Any]], signed: bool = False) -> list[Table]:
    """Make a table of each dimension and subset, in the order of the rows; `signed` for differences.

    >>> figure = {"value": 0.51234, "low": 0.4, "high": 0.6, "note": ""}
    >>> row = {"dimension": "funniness", "subset": "all", "who": "expected", "items": 9}
    >>> table = tables_of([{**row, "metrics": {"spearman": figure}}])[0]
    >>> table.title, table.rows[0][:2]
    ('funniness, 9 items', ('expected', '0.512 [0.400, 0.600]'))
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dimension"], row["subset"]), []).append(row)
    tables = []
    for (name, subset), group in groups.items():
        used = [metric for metric in METRICS if any(metric in row["metrics"] for row in group)]
        reasons: dict[str, dict[str, list[str]]] = {}
        lines = []
        for row in group:
            cells = [row["who"]]
            for metric in used:
                figure = row["metrics"].get(metric)
                cells.append("" if figure is None else _cell(figure, name, metric, signed))
                if figure is not None and figure["note"]:
                    of_row = reasons.setdefault(figure["note"], {}).setdefault(row["who"], [])
                    of_row.append(TITLES[metric])
            lines.append(tuple(cells))
        title = name.replace("_", " ") + ("" if subset == "all" else f", {subset}")
        notes = tuple(
            f"{note}: " + "; ".join(f"{who} ({', '.join(metrics)})" for who, metrics in where.items())
            for note, where in reasons.items()
        )
        header = ("", *(TITLES[metric] for metric in used))
        tables.append(Table(f"{title}, {group[0]['items']} items", header, tuple(lines), notes))
    return tables


def _cell(figure: Mapping[str, Any], name: str, metric: str, signed: bool) -> str:
    """Write a value and its interval; errors on a scale of 0 to 1 get a decimal more."""
    value, low, high = (math.nan if figure[k] is None else figure[k] for k in ("value", "low", "high"))
    if math.isnan(value):
        return ABSENT
    decimals = 4 if name == "memorability" and metric in ("mae", "mse") else 3
    sign = "+" if signed else ""
    text = f"{value:{sign}.{decimals}f}"
    return text if math.isnan(low) else f"{text} [{low:{sign}.{decimals}f}, {high:{sign}.{decimals}f}]"


def markdown(table: Table) -> str:
    """Write a table as Markdown, with a heading, and its notes beneath.

    >>> print(markdown(Table("a title", ("", "MAE"), (("expected", "1.0"),), ("a note",))))
    ### a title
    <BLANKLINE>
    |  | MAE |
    |---|---|
    | expected | 1.0 |
    <BLANKLINE>
    *a note*
    <BLANKLINE>
    """
    lines = [f"### {table.title}", "", _line(table.header), "|" + "---|" * len(table.header)]
    lines += [_line(row) for row in table.rows]
    for note in table.notes:
        lines += ["", f"*{note}*"]
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
