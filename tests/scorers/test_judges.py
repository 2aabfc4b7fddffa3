"""The table of judges: what it tells without loading anything is what the judges say themselves."""

import inspect
from pathlib import Path

import pytest

from cogguided.scorers import list_scorers
from cogguided.scorers.judges import JUDGES
from cogguided.scorers.registry import scorer_arguments

DOCS = (Path(__file__).resolve().parents[2] / "docs/scorers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("info", "factory"), JUDGES, ids=[info.name for info, _ in JUDGES])
def test_facts_are_the_judges_own(info, factory):
    judge = factory._resolve().__self__
    assert "batch_size" in scorer_arguments(info.name)
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in inspect.signature(factory).parameters.values())
    if info.name != "pyiqa":  # a metric tells its own
        assert judge.name == info.name
        assert (judge.high, judge.needs_prompt) == (info.high, info.needs_prompt)
        assert getattr(judge, "low", 0.0) == info.low  # SigLIP's depends on its output
    assert info.licence
    assert info.commercial in ("yes", "no", "")
    assert info.source
    assert f"| `{info.name}" in DOCS
    assert "icence" in inspect.getmodule(judge).__doc__


def test_they_are_listed():
    listed = {info.name: info for info in list_scorers()}
    assert all(listed[info.name] == info for info, _ in JUDGES)
