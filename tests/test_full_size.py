"""The full-size benchmark runs at tiny shapes: what it measures on a GPU is not broken when one is at hand."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def main(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import full_size

    yield full_size.main
    for name in ("full_size", "full_size_bench", "full_size_judge", "full_size_models", "alignment_step"):
        sys.modules.pop(name, None)


def run(main, folder, parts):
    assert main(["--device", "cpu", "--tiny", "--out", str(folder), *(f"--part={part}" for part in parts)]) == 0
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert list(dict.fromkeys(row["part"] for row in rows)) == parts
    assert not [row for row in rows if "error" in row]
    return rows


@pytest.mark.filterwarnings("default")
def test_parts_run_and_leave_their_tables(main, tmp_path):
    rows = run(main, tmp_path, ["swap"])
    exact = [row["same_to_the_bit"] for row in rows if "same_to_the_bit" in row]
    assert exact == [True, False, False, True], "strengths 0, 0.5, 1, and undone"
    table = (tmp_path / "results.md").read_text()
    assert "Tiny shapes" in table
    assert "### swap" in table


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_other_parts_run(main, tmp_path):
    others = ["sdxl", "judge", "invariance", "flux", "qwen_image", "alignment", "finetune_sdxl", "finetune_flux"]
    rows = run(main, tmp_path, others)
    assert next(row["pixel_gap"] for row in rows if row["what"].endswith("wrapped")) == 0
    assert "### sdxl" in (tmp_path / "results.md").read_text()
    assert all(row["memorability"] < 1e-4 for row in rows if "memorability" in row)


def test_without_a_gpu_full_shapes_are_refused(main, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--device", "cpu", "--out", str(tmp_path)])
    assert "--device cpu --tiny" in capsys.readouterr().err
