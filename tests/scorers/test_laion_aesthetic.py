import pickle

import pytest
import torch
import transformers as tf
from judge_checks import check_frame, check_gradient, check_half
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from cogguided._errors import InputError, ModelError, UnknownNameError
from cogguided.scorers import load_scorer
from cogguided.scorers.models.laion_aesthetic import LAIONAestheticScorer
from cogguided.scorers.models.parts.files import fetch_file

V1, V2 = "sa_0_4_vit_l_14_linear.pth", "sac+logos+ava1-l14-linearMSE.pth"
WIDTHS = {0: (24, 20), 2: (20, 16), 4: (16, 12), 6: (12, 8), 7: (8, 1)}  # the places of the published file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both heads and the whole CLIP (its text half is not needed), of random weights."""
    home = tmp_path_factory.mktemp("laion")
    torch.manual_seed(0)
    head = {}
    for place, (wide, narrow) in WIDTHS.items():
        head[f"layers.{place}.weight"] = torch.randn(narrow, wide) / 2
        head[f"layers.{place}.bias"] = torch.randn(narrow)
    torch.save(head, home / V2)
    torch.save({"weight": torch.randn(1, 24), "bias": torch.randn(1)}, home / V1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = tf.CLIPConfig(
        text_config={**sizes, "vocab_size": 64}, vision_config={**sizes, "image_size": 32, "patch_size": 8}
    )
    config.projection_dim = config.vision_config.projection_dim = config.text_config.projection_dim = 24
    model = tf.CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.ndim > 1 else None
    model.save_pretrained(home / "clip")
    return home


def load(folder, version="v2", head=None):
    return LAIONAestheticScorer.from_pretrained(head or folder, version, folder / "clip")


def reference(folder, version, picture):
    """Unit vector of CLIP's own preprocessing, then the layers by hand, one image at a time."""
    model = tf.CLIPModel.from_pretrained(folder / "clip").double()
    see = transforms.Compose(
        [
            transforms.Resize(32, interpolation=Image.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    with torch.no_grad():
        x = model.visual_projection(model.vision_model(see(picture)[None].double()).pooler_output)[0]
    x = x / x.pow(2).sum().sqrt()
    weights = {k: v.double() for k, v in torch.load(folder / (V2 if version == "v2" else V1)).items()}
    for place in [f"layers.{p}." for p in WIDTHS] if version == "v2" else [""]:
        x = weights[place + "weight"] @ x + weights[place + "bias"]
    return float(x)


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_it_is_the_published_formula(folder, pictures, version):
    expected = torch.tensor([reference(folder, version, picture) for picture in pictures])
    torch.testing.assert_close(load(folder, version)(pictures).values, expected, atol=9e-4, rtol=0)


def test_frame_and_gradient(folder, pictures, tmp_path):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        judge = load(folder)
    check_frame(judge, pictures, tmp_path, atol=9e-4)
    half = LAIONAestheticScorer.from_pretrained(folder, clip=folder / "clip", dtype=torch.bfloat16)
    check_half(half, judge, pictures)
    check_gradient(judge, pictures[0], atol=0.2)


def test_loading(folder, tmp_path, pictures, monkeypatch):
    judge = load_scorer("laion_aesthetic", head=folder / V2, clip=folder / "clip")
    assert (judge.low, judge.high, load(folder, "v1").low) == (1, 10, 0)
    assert not judge.needs_prompt
    save_file(torch.load(folder / V2), tmp_path / V2.replace(".pth", ".safetensors"))
    torch.testing.assert_close(load(folder, head=tmp_path)(pictures).values, judge(pictures).values)
    with pytest.raises(UnknownNameError, match="version of laion_aesthetic"):
        load(folder, "v3")
    with pytest.raises(ModelError, match="the head of version 1 not found there"):
        load(folder, "v1", tmp_path)
    with pytest.raises(ModelError, match=r"expected 'layers.0.weight'"):
        load(folder, "v2", folder / V1)
    with pytest.raises(ModelError, match="expected 'weight' and 'bias'"):
        load(folder, "v1", folder / V2)
    with pytest.raises(InputError, match="no such file or folder"):
        load(folder, "v2", "nowhere")
    torch.save({"weight": torch.randn(1, 512), "bias": torch.randn(1)}, tmp_path / "b32.pth")
    with pytest.raises(ModelError, match="made for vectors of 512 numbers"):
        load(folder, "v1", tmp_path / "b32.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    repository = "christophschuhmann/improved-aesthetic-predictor"
    kept = tmp_path / "cogguided/github.com" / repository / "raw/main" / V2
    kept.parent.mkdir(parents=True)
    kept.write_bytes((folder / V2).read_bytes())
    LAIONAestheticScorer.from_pretrained(clip=folder / "clip")  # the file is in the cache: nothing is fetched
    with pytest.raises(ModelError, match="could not be fetched"):
        fetch_file("no-such-scheme://nowhere/file.pth")


class Evil:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pickle_that_is_more_than_weights_is_refused_and_does_not_run(folder, tmp_path):
    torch.save({"layers.0.weight": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(tmp_path / "ran"), protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("evil.pth", "plain.pth", "list.pth"):
        with pytest.raises(ModelError, match=name):
            load(folder, "v2", tmp_path / name)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be read as plain weights"):
        load(folder, "v2", tmp_path / "none.safetensors")
