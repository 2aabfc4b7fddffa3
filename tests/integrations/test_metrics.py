"""`CogScore` under torchmetrics' own contract, with torchmetrics itself, over two processes."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cogguided import FakeScorer
from cogguided._errors import MissingExtraError

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import sys, torch, torch.distributed as dist
from cogguided import FakeScorer
from cogguided.integrations import CogScore
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
images = torch.rand(5, 3, 4, 5, generator=torch.Generator().manual_seed(0))
metric = CogScore(FakeScorer())
metric.update(images[:2] if rank == 0 else images[2:])
if rank:
    metric.update(["no-such.png"])
print(float(metric.compute()), float(FakeScorer()(images).values.mean()))
metric.sync()
print(int(metric.invalid))
dist.destroy_process_group()
"""


def test_without_torchmetrics_the_error_says_what_to_install(monkeypatch):
    from cogguided import integrations

    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "cogguided.integrations.metrics", raising=False)
    monkeypatch.delitem(vars(integrations), "CogScore", raising=False)
    with pytest.raises(MissingExtraError, match=r"cogguided\[torchmetrics\]"):
        integrations.CogScore  # noqa: B018


@pytest.mark.slow  # needs the extra "torchmetrics"
def test_the_class_equals_the_function_in_batches_copies_and_resets():
    from torchmetrics import MeanMetric, MetricCollection
    from torchmetrics.utilities.checks import check_forward_full_state_property

    from cogguided.integrations import CogScore, cog_score

    images = torch.rand(6, 3, 4, 5)
    metric = CogScore(FakeScorer())
    assert metric(images[:2]) == pytest.approx(float(cog_score(images[:2], FakeScorer())))  # of this batch
    metric.update(images[2:].permute(0, 2, 3, 1))
    expected = float(cog_score(images, FakeScorer()))
    assert float(metric.compute()) == pytest.approx(expected)
    for copy in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert float(copy.compute()) == pytest.approx(expected)
    mean = MeanMetric()
    mean.update(FakeScorer()(images).values)
    assert float(metric.compute()) == pytest.approx(float(mean.compute()))
    both = MetricCollection({"a": CogScore(FakeScorer()), "b": CogScore({FakeScorer("light"): -1})})
    assert both(images)["b"] == pytest.approx(-expected)
    metric.reset()
    metric.update(["no-such.png"])
    assert torch.isnan(metric.compute())
    check_forward_full_state_property(
        CogScore, {"scorer": FakeScorer()}, {"images": images}, num_update_to_compare=[2], reps=2
    )


@pytest.mark.slow  # needs the extra "torchmetrics"
def test_it_plots_between_its_bounds():
    import matplotlib

    matplotlib.use("Agg")
    from cogguided.integrations import CogScore

    metric = CogScore(FakeScorer(low=0.0, high=2.0))
    metric.update(torch.ones(1, 3, 4, 5))
    _, axis = metric.plot()
    low, high = axis.get_ylim()
    assert low <= 0
    assert high >= 2


@pytest.mark.slow  # needs the extra "torchmetrics"
def test_two_processes_share_one_mean(tmp_path):
    command = [sys.executable, "-c", WORKER]
    env = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT.parent))}
    workers = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], env=env, stdout=-1, stderr=-1, text=True)
        for rank in range(2)
    ]
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
        found, expected, invalid = (float(part) for part in out.split())
        assert found == pytest.approx(expected)
        assert invalid == 1


@pytest.mark.slow  # needs a checkout of torchmetrics, the extra, and cachier
def test_torchmetrics_own_tester_finds_nothing(tmp_path):
    """Its package leaves out the tester: classes and functions against a reference, two processes, scripting, ..."""
    checkout = Path(os.environ["COGGUIDED_TORCHMETRICS"])
    here = ROOT / "tests" / "integrations"
    path = [str(checkout / "tests"), str(here), os.environ.get("PYTHONPATH", str(ROOT.parent))]
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "unittests.conftest", "-p", "no:cacheprovider",
            "-c", os.devnull, "--rootdir", str(tmp_path), str(here / "torchmetrics_tester.py"),
        ],
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join(path), "USE_PYTEST_POOL": "1",
            "PYTEST_REFERENCE_CACHE": str(tmp_path),
        },
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert "14 passed" in done.stdout


@pytest.mark.slow  # needs the extra "torchmetrics"
def test_docstrings():
    import doctest

    from cogguided.integrations import metrics

    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(metrics, optionflags=flags).failed == 0
