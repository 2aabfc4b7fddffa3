"""ResMem: with a small stand-in for its package everywhere, and with the real one where it is installed."""

import importlib.util
import sys
import types
import warnings

import pytest
import torch
from torchvision import transforms

from cogguided._errors import InputError, MissingExtraError, ModelError
from cogguided.scorers import list_scorers, load_scorer
from cogguided.scorers.images import to_tensor
from cogguided.scorers.models import resmem as module
from cogguided.scorers.models.resmem import ResMemScorer

needs_resmem = pytest.mark.skipif(
    importlib.util.find_spec("resmem") is None,
    reason='ResMem is not installed (0.5 GB, non-commercial licence): pip install "cogguided[resmem]"',
)


class Evil:
    """Pickles to a call that would write a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module like resmem 1.1.6, with a small network: it loads `path` itself, by torch's defaults."""
    found = types.ModuleType("resmem")
    found.path = tmp_path / "model.pt"

    class ResMem(torch.nn.Module):
        def __init__(self, pretrained=False):
            super().__init__()
            assert pretrained, "would download ImageNet's weights"
            self.drop = torch.nn.Dropout(0.5)
            self.last = torch.nn.Linear(3 * 4 * 4, 1)
            self.load_state_dict(torch.load(found.path, map_location="cpu"))

        def forward(self, x):
            return torch.sigmoid(self.last(self.drop(x.flatten(1))))

    found.ResMem = ResMem
    found.transformer = transforms.Compose([transforms.Resize((4, 4)), transforms.ToTensor()])
    torch.manual_seed(0)
    torch.save(torch.nn.ModuleDict({"last": torch.nn.Linear(3 * 4 * 4, 1)}).state_dict(), found.path)
    monkeypatch.setitem(sys.modules, "resmem", found)
    module._tell_licence.cache_clear()
    return found


def load(**kwargs):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ResMem is licensed")
        return load_scorer("resmem", device="cpu", **kwargs)


def test_batches_equal_singles_and_broken_images_are_flagged(package, pictures, tmp_path):
    scorer = load(batch_size=2)
    scores = scorer([*pictures, tmp_path / "missing.png"])
    assert scores.valid.tolist() == [True, True, True, False]
    assert "missing.png" in scores.errors[3]
    assert ((scores.values[:3] > 0) & (scores.values[:3] < 1)).all()
    singles = torch.cat([scorer([picture]).values for picture in pictures])
    torch.testing.assert_close(scores.values[:3], singles)  # also: no dropout
    torch.testing.assert_close(scorer(to_tensor(pictures[:1])).values, singles[:1])
    assert len(scorer([])) == 0


def test_it_judges_and_does_not_teach(package, pictures):
    scorer = load()
    assert not scorer.differentiable
    assert all(not parameter.requires_grad for parameter in scorer.model.parameters())
    assert not scorer(to_tensor(pictures[:1]).requires_grad_()).values.requires_grad


def test_its_licence_is_told_once(package):
    with pytest.warns(UserWarning, match="non-commercial use only"):
        load_scorer("resmem", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_scorer("resmem", device="cpu")
    info = next(info for info in list_scorers() if info.name == "resmem")
    assert "Non-commercial" in info.licence
    assert (info.low, info.high) == (ResMemScorer.low, ResMemScorer.high) == (0, 1)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "resmem", None)
    with pytest.raises(MissingExtraError, match=r"cogguided\[resmem\]"):
        load_scorer("resmem")


def test_weights_that_are_absent_or_none(package, tmp_path):
    package.path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"model\.pt: cannot be read as ResMem's weights.*--force-reinstall"):
        load()
    torch.save(Evil(tmp_path / "written"), package.path)
    with pytest.raises(ModelError, match="cannot be read as ResMem's weights"):
        load()
    assert not (tmp_path / "written").exists()
    package.path.unlink()
    with pytest.raises(ModelError, match=r"no file .*model\.pt.*pip install"):
        load()


def test_arguments(package):
    with pytest.raises(InputError, match="batch_size"):
        load(batch_size=0)


@needs_resmem
def test_the_real_one(pictures):
    scorer = load()
    scores = scorer(pictures)
    assert scores.valid.all()
    assert ((scores.values > 0) & (scores.values < 1)).all()
    singles = torch.cat([scorer([picture]).values for picture in pictures])
    torch.testing.assert_close(scores.values, singles, atol=1e-5, rtol=0)
