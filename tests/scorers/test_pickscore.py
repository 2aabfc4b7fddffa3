import warnings

import pytest
import tiny_judges
import torch
import transformers as tf
from judge_checks import PROMPTS, check_frame, check_gradient, check_half
from PIL import Image

from cogguided._errors import ModelError
from cogguided.scorers import load_scorer, load_target
from cogguided.scorers.base import TruncationWarning
from cogguided.scorers.models.pickscore import PickScorer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny random model as the authors publish theirs, and beside it the processor that they name."""
    return tiny_judges.pickscore(tmp_path_factory.mktemp("pick"))


@pytest.fixture(scope="module")
def judge(folders):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        return PickScorer.from_pretrained(*folders)


def reference(folders, picture, prompt):
    """The formula of the paper, one image at a time, on arrays made by hand from the picture."""
    model = tf.CLIPModel.from_pretrained(folders[0]).double()
    tokenizer = tf.AutoTokenizer.from_pretrained(folders[1])
    short = min(picture.size)
    size = [int(32 * side / short) for side in picture.size]
    scaled = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (scaled.width - 32) // 2, (scaled.height - 32) // 2
    cut = scaled.crop((left, top, left + 32, top + 32))
    pixels = torch.tensor(list(cut.get_flattened_data()), dtype=torch.float64).reshape(32, 32, 3) / 255
    pixels = (pixels - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    ids = torch.tensor([[*tokenizer(prompt)["input_ids"][:-1][:76], tokenizer.eos_token_id]])
    with torch.no_grad():
        image = model.visual_projection(model.vision_model(pixels.permute(2, 0, 1)[None]).pooler_output)[0]
        hidden = model.text_model(ids).last_hidden_state[0, -1]  # of the end mark
        text = model.text_projection(hidden)
        return float(model.logit_scale.exp() * (image @ text) / (image.norm() * text.norm()))


def test_it_is_the_published_formula(folders, judge, pictures):
    expected = torch.tensor([reference(folders, i, p) for i, p in zip(pictures, PROMPTS, strict=True)])
    torch.testing.assert_close(judge(pictures, PROMPTS).values, expected, atol=1e-3, rtol=0)  # 1e-4 of 10


def test_frame(folders, judge, pictures, tmp_path):
    check_frame(judge, pictures, tmp_path, atol=1e-3)
    check_half(PickScorer.from_pretrained(*folders, dtype=torch.bfloat16), judge, pictures)


def test_gradient(judge, pictures):
    check_gradient(judge, pictures[0], atol=0.5)


def test_a_long_prompt_is_not_cut_in_silence(folders, judge, pictures):
    long = "very high picture " * 60
    with pytest.warns(TruncationWarning, match="reads 77 tokens"):
        cut = judge(pictures[:1], [long]).values
    torch.testing.assert_close(cut, torch.tensor([reference(folders, pictures[0], long)]), atol=1e-3, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge(pictures[:1], ["a low picture"])


def test_loading(folders, tmp_path, pictures):
    model, processor = folders
    scorer = load_scorer("pickscore", model=model, processor=processor, batch_size=2)
    assert (scorer.name, scorer.needs_prompt, scorer.batch_size) == ("pickscore", True, 2)
    target = load_target({scorer: 1})(pictures, PROMPTS)
    torch.testing.assert_close(target.total, (scorer(pictures, PROMPTS).values - 16) / 10)
    with pytest.raises(ModelError, match="cannot be loaded from safetensors"):
        PickScorer.from_pretrained(tmp_path, processor)
    with pytest.raises(ModelError, match="no usable processor"):
        PickScorer.from_pretrained(model, tmp_path)
    tf.CLIPModel.from_pretrained(model).vision_model.save_pretrained(tmp_path / "half")
    with pytest.raises(ModelError, match="does not compare images with texts"):
        PickScorer.from_pretrained(tmp_path / "half", processor)
