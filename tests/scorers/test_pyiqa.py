"""The bridge to pyiqa, on a module that behaves as pyiqa 0.1.16 does where it is touched."""

import os
import sys
import types

import pytest
import torch
from judge_checks import check_frame, check_gradient

from cogguided._errors import InputError, MissingExtraError, ModelError, UnknownNameError
from cogguided.scorers import load_scorer, load_target, parse_weights
from cogguided.scorers.models.pyiqa import PyIQAScorer

CONFIGS = {
    "musiq": {"metric_mode": "NR", "score_range": "~0, ~100"},
    "niqe": {"metric_mode": "NR", "score_range": "~0, ~100", "lower_better": True},
    "open": {"metric_mode": "NR", "score_range": "0, ~"},
    "blind": {"metric_mode": "NR", "score_range": "0, 1"},
    "psnr": {"metric_mode": "FR", "score_range": "~0, ~40"},
}


class Metric(torch.nn.Module):
    """As `InferenceModel`: it decides itself about gradients, and reduces as it is told."""

    def __init__(self, name, as_loss=False, device=None, loss_reduction="mean", check_input_range=True):
        super().__init__()
        config = CONFIGS[name]
        self.name, self.as_loss, self.reduction = name, as_loss, loss_reduction
        self.lower_better = config.get("lower_better", False)
        self.metric_mode, self.score_range = config["metric_mode"], config["score_range"]
        torch.manual_seed(0)
        self.net = torch.nn.Conv2d(3, 1, 5)
        self.dummy_param = torch.nn.Parameter(torch.empty(0))

    def forward(self, x):
        assert min(x.shape[2:]) >= 8, "too small"
        with torch.set_grad_enabled(self.as_loss):
            x = x.detach() if self.name == "blind" else x
            out = 50 + 40 * self.net(x).tanh().mean(dim=(1, 2, 3))[:, None]
        return out.mean() if self.reduction == "mean" else out


@pytest.fixture
def pyiqa(monkeypatch):
    module = types.ModuleType("pyiqa")
    module.list_models = lambda mode=None: [n for n, c in CONFIGS.items() if mode in (None, c["metric_mode"])]
    module.create_metric = lambda name, **options: Metric(name, **options).eval()
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module


def test_values_are_the_metrics_own_one_image_at_a_time(pyiqa, pictures):
    from torchvision.transforms.functional import to_tensor

    alone = Metric("musiq").eval()
    expected = torch.tensor([float(alone(to_tensor(picture)[None]).detach()) for picture in pictures])
    torch.testing.assert_close(load_scorer("pyiqa:musiq")(pictures).values, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(load_scorer("pyiqa:niqe")(pictures).values, -expected, atol=1e-3, rtol=0)


def test_frame_and_gradient(pyiqa, pictures, tmp_path):
    judge = load_scorer("pyiqa:musiq", batch_size=4)
    check_frame(judge, pictures, tmp_path, atol=1e-2)
    check_gradient(judge, pictures[0], atol=1e-2)
    assert not load_scorer("pyiqa:blind").differentiable
    same = [pictures[0], pictures[1], pictures[0].rotate(180), pictures[2]]
    alone = torch.cat([judge([picture]).values for picture in same])
    torch.testing.assert_close(judge(same).values, alone, atol=1e-2, rtol=0)


def test_ranges_and_direction(pyiqa, pictures):
    more, less = load_scorer("pyiqa:musiq"), load_scorer("pyiqa:niqe")
    assert (more.name, more.low, more.high) == ("pyiqa:musiq", 0, 100)
    assert (less.low, less.high) == (-100, 0)
    assert load_scorer("pyiqa:open", low=0, high=9).high == 9
    with pytest.raises(InputError, match="pass low= and high="):
        load_scorer("pyiqa:open")
    assert parse_weights("pyiqa:musiq=1,fake=0.5") == {"pyiqa:musiq": 1.0, "fake": 0.5}
    total = load_target("pyiqa:musiq=1,fake=-0.5")(pictures).total
    assert total.isfinite().all()


def test_an_image_that_the_metric_refuses_spoils_no_other(pyiqa, pictures):
    scores = load_scorer("pyiqa:musiq")([pictures[0].resize((5, 40)), pictures[1], pictures[2].resize((5, 40))])
    assert scores.valid.tolist() == [False, True, False]
    assert "pyiqa:musiq: refused at 5x40 (too small)" in scores.errors[0]


def test_weights_are_read_as_tensors_only(pyiqa, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"x": Evil()}, tmp_path / "weights.pth")

    def create(name, **options):
        torch.load(tmp_path / "weights.pth", weights_only=False)  # as pyiqa does
        return Metric(name, **options).eval()

    pyiqa.create_metric = create
    with pytest.raises(ModelError, match="trust_pickles=True"):
        load_scorer("pyiqa:musiq")
    assert not (tmp_path / "ran").exists()
    assert load_scorer("pyiqa:musiq", trust_pickles=True).high == 100
    assert (tmp_path / "ran").exists()


def test_what_it_does_not_take(pyiqa, monkeypatch):
    with pytest.raises(UnknownNameError, match="did you mean 'musiq'"):
        load_scorer("pyiqa:musik")
    with pytest.raises(ModelError, match="compares an image with a reference"):
        load_scorer("pyiqa:psnr")
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(MissingExtraError, match=r"cogguided\[iqa\]"):
        PyIQAScorer.from_pretrained("musiq")
