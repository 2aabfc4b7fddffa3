"""The check against published values; with tiny weights it says that they are other weights."""

import pytest
import torch
from typer.testing import CliRunner

from cogguided._cli.app import app
from cogguided._errors import InputError, UnknownNameError
from cogguided.scorers import FakeScorer, published
from cogguided.scorers.published import PUBLISHED, check


@pytest.fixture
def demo(tmp_path, pictures, monkeypatch):
    """Four pictures by the names of ImageReward's, and a judge that gives them what is in `values`."""
    values = list(PUBLISHED["imagereward"].values)
    for number in (1, 2, 3, 4):
        pictures[0].rotate(number).save(tmp_path / f"{number}.webp", lossless=True)
    seen = []

    class Fake(FakeScorer):
        def __call__(self, images, prompts=None):
            seen.append((len(images), set(prompts)))
            scores = super().__call__(images, prompts)
            scores.values.copy_(torch.tensor(values))
            return scores

    fake = Fake("imagereward", -3, 3, needs_prompt=True)
    monkeypatch.setattr(published, "load_scorer", lambda name, **options: fake)
    return tmp_path, values, seen


def test_values_that_agree_and_one_that_does_not(demo):
    folder, values, seen = demo
    rows, allowed = check("imagereward", folder)
    assert [row[0] for row in rows] == ["1.webp", "2.webp", "3.webp", "4.webp"]
    assert seen == [(4, {PUBLISHED["imagereward"].prompt})]
    done = CliRunner().invoke(app, ["check-scorer", "imagereward", "--images", str(folder)])
    assert done.exit_code == 0
    assert done.output.count("agrees") == 4
    values[2] += 2 * allowed
    done = CliRunner().invoke(app, ["check-scorer", "imagereward", "--images", str(folder)])
    assert done.exit_code != 0
    assert "DIFFERS" in done.output


def test_what_cannot_be_checked(tmp_path):
    with pytest.raises(InputError, match=r"pickscore: its authors publish no values .* imagereward, qalign"):
        check("pickscore")
    with pytest.raises(UnknownNameError, match="did you mean 'imagereward'"):
        check("imagerewrd")
    with pytest.raises(InputError, match=r"has no 1\.webp, one of the demo images of github\.com/THUDM"):
        check("imagereward", tmp_path)
