import json

import numpy as np
import open_clip
import pytest
import tiny_judges
import torch
from judge_checks import PROMPTS, check_frame, check_gradient, check_half
from safetensors.torch import save_file

from cogguided._errors import ModelError, UnknownNameError
from cogguided.scorers import load_scorer
from cogguided.scorers.base import TruncationWarning
from cogguided.scorers.models.hpsv2 import HPSv2Scorer

NAME = "tiny-hps"
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both versions as the authors publish them: a pickle with 'state_dict' and what else training left there."""
    home = tmp_path_factory.mktemp("hps")
    (home / f"{NAME}.json").write_text(json.dumps(tiny_judges.HPS_CONFIG))
    open_clip.add_model_config(home / f"{NAME}.json")
    return tiny_judges.hpsv2(home)


def load(folder, version="2.1"):
    return HPSv2Scorer.from_pretrained(folder, version, NAME)


def squared(picture):
    """Longer side to 32, black around: a picture's own pixels by numpy where nothing has to be resized."""
    array = np.zeros((32, 32, 3))
    top, left = (32 - picture.height) // 2, (32 - picture.width) // 2
    array[top : top + picture.height, left : left + picture.width] = np.asarray(picture) / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    return torch.tensor((array - mean) / std).permute(2, 0, 1)[None]


def reference(folder, file, picture, prompt):
    model = open_clip.CLIP(**tiny_judges.HPS_CONFIG).double()
    model.load_state_dict(torch.load(folder / file)["state_dict"])
    with torch.no_grad():
        image = model.encode_image(squared(picture))[0]
        text = model.encode_text(open_clip.tokenize([prompt]))[0]
    return float(image @ text / image.norm() / text.norm())


@pytest.mark.parametrize(("version", "file"), [("2.0", "HPS_v2_compressed.pt"), ("2.1", "HPS_v2.1_compressed.pt")])
def test_it_is_the_published_formula(folder, pictures, version, file):
    exact = [p.resize(s) for p, s in zip(pictures, [(20, 32), (32, 11), (32, 32)], strict=True)]
    expected = torch.tensor([reference(folder, file, i, p) for i, p in zip(exact, PROMPTS, strict=True)])
    torch.testing.assert_close(load(folder, version)(exact, PROMPTS).values, expected, atol=2.5e-5, rtol=0)


def test_the_longer_side_is_scaled_and_nothing_is_cut(folder, pictures):
    """Bicubic with smoothing, as Pillow's to a level of rounding."""
    judge = load(folder)
    wide = pictures[1]  # 90 x 30
    by_pillow = wide.resize((32, 11), 3)
    torch.testing.assert_close(judge([wide], ["a"]).values, judge([by_pillow], ["a"]).values, atol=5e-3, rtol=0)


def test_frame_and_gradient(folder, pictures, tmp_path):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        judge = load(folder)
    check_frame(judge, pictures, tmp_path, atol=2.5e-5)
    check_half(HPSv2Scorer.from_pretrained(folder, architecture=NAME, dtype=torch.bfloat16), judge, pictures)
    check_gradient(judge, pictures[0], atol=1e-4)


def test_loading(folder, tmp_path, pictures):
    judge = load_scorer("hpsv2", model=folder / "HPS_v2.1_compressed.pt", architecture=NAME)
    with pytest.warns(TruncationWarning, match="reads 77 tokens"):
        judge(pictures[:1], ["very high picture " * 40])
    weights = torch.load(folder / "HPS_v2.1_compressed.pt")["state_dict"]
    save_file(weights, tmp_path / "HPS_v2.1_compressed.safetensors")
    same = load(tmp_path)
    torch.testing.assert_close(same(pictures, PROMPTS).values, judge(pictures, PROMPTS).values)
    with pytest.raises(ModelError, match=r"the weights of HPS v2.0 not found there"):
        load(tmp_path, "2.0")
    with pytest.raises(UnknownNameError, match="version of hpsv2"):
        load(folder, "2")
    with pytest.raises(UnknownNameError, match="did you mean 'ViT-H-14"):
        HPSv2Scorer.from_pretrained(folder, architecture="ViT-H14")
    (tmp_path / "other-hps.json").write_text(json.dumps({**tiny_judges.HPS_CONFIG, "embed_dim": 8}))
    open_clip.add_model_config(tmp_path / "other-hps.json")
    with pytest.raises(ModelError, match="weights of another shape"):
        HPSv2Scorer.from_pretrained(folder, architecture="other-hps")
