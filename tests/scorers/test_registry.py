import threading
import time

import pytest
from PIL import Image

from cogguided._errors import InputError, ModelError, UnknownNameError
from cogguided.scorers import FakeScorer, list_scorers, load_scorer, register_scorer, unregister_scorer

PLUGIN = """
from cogguided.scorers import FakeScorer

def sharpness(high=1.0):
    return FakeScorer("sharpness", high=high)

def nothing():
    return 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a plug-in package the way pip does: a module and its metadata on sys.path."""

    def make(package, *lines):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[cogguided.scorers]\n" + "\n".join(lines) + "\n")
        (tmp_path / f"{package}_module.py").write_text(PLUGIN)
        monkeypatch.syspath_prepend(tmp_path)

    return make


def test_a_plug_in_through_the_front_door(install):
    install("outside", "sharpness = outside_module:sharpness")
    assert load_scorer("sharpness", high=2.0).high == 2.0
    info = next(info for info in list_scorers() if info.name == "sharpness")
    assert info.source == "outside"
    with pytest.raises(UnknownNameError, match="did you mean 'sharpness'"):
        load_scorer("sharpnes")


def test_a_plug_in_that_takes_a_built_in_name(install):
    install("greedy", "clip = greedy_module:sharpness")
    with pytest.raises(InputError, match="greedy"):
        load_scorer("clip")
    with pytest.raises(InputError, match="taken"):
        list_scorers()
    assert load_scorer("fake").name == "fake"  # the others are not harmed


def test_a_plug_in_that_makes_no_scorer(install):
    install("wrong", "wrong = wrong_module:nothing")
    with pytest.raises(ModelError, match="int"):
        load_scorer("wrong")


def test_built_in_facts():
    infos = {info.name: info for info in list_scorers()}
    assert {"aesthetics", "funniness", "emotional_valence", "memorability", "clip", "fake"} <= infos.keys()
    assert (infos["emotional_valence"].low, infos["emotional_valence"].high) == (-3.0, 3.0)
    assert infos["clip"].needs_prompt
    assert all(info.summary for info in infos.values())


def test_objects_are_taken_as_they_are():
    scorer = FakeScorer()
    assert load_scorer(scorer) is scorer
    with pytest.raises(InputError, match="no arguments"):
        load_scorer(scorer, high=2.0)
    with pytest.raises(InputError, match="expected a scorer's name"):
        load_scorer(3)


def test_registering():
    register_scorer("mine", lambda: FakeScorer("mine"))
    try:
        assert load_scorer("mine").name == "mine"
        with pytest.raises(InputError, match="registered already"):
            register_scorer("mine", FakeScorer)
    finally:
        unregister_scorer("mine")
    for name in ("", "a/b", "a=1", "a,b", "a b"):
        with pytest.raises(InputError):
            register_scorer(name, FakeScorer)


@pytest.mark.parametrize("name", ["CLIP", "memorabilty", "Fake"])
def test_lookup_is_case_exact_with_near_misses(name):
    with pytest.raises(UnknownNameError, match="did you mean"):
        load_scorer(name)


def test_arguments_that_a_factory_does_not_take():
    with pytest.raises(InputError, match=r"'fake'.*it takes: name, low, high"):
        load_scorer("fake", hihg=2.0)
    with pytest.raises(InputError, match="it takes: model, adapter, readout"):
        load_scorer("emotional_valence", modle="x")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        load_scorer(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no folder"):
        load_scorer("./nowhere")


def test_folders_go_to_the_right_kind(model_folder):
    assert load_scorer(model_folder("qwen2_vl"), dimension="memorability", min_mass=0.0).name == "memorability"
    assert load_scorer("funniness", model=model_folder("qwen2_vl"), min_mass=0.0).name == "funniness"


def test_pixels_are_what_the_model_sees(model_folder):
    picture = Image.new("RGB", (300, 200))

    def num_patches(**kwargs):
        scorer = load_scorer("memorability", model=model_folder("qwen2_vl"), min_mass=0.0, **kwargs)
        return int(scorer.processor.image_processor(images=[picture])["image_grid_thw"].prod())

    # sides are multiples of 28, so a patch of 14 pixels is a quarter of the smallest picture
    assert num_patches(pixels=(28 * 28, 28 * 28)) == 4
    assert num_patches(pixels=(56 * 84, 56 * 84)) == 6 * 4
    assert num_patches(pixels=(280 * 196, 308 * 196)) == 22 * 14
    with pytest.raises(InputError, match="0 < fewest <= most, got 10 and 5"):
        num_patches(pixels=(10, 5))
    with pytest.raises(ModelError, match="MllamaImageProcessor has no limits in pixels"):
        load_scorer("memorability", model=model_folder("mllama"), pixels=(784, 784))


def test_one_thread_loads_at_a_time():
    """transformers' loading changes what all threads see: two at once lost weights."""
    inside, most = [], []

    def slow():
        inside.append(1)
        time.sleep(0.05)
        most.append(len(inside))
        inside.pop()
        return FakeScorer("slow")

    register_scorer("slow", slow)
    try:
        threads = [threading.Thread(target=load_scorer, args=("slow",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        unregister_scorer("slow")
    assert most == [1, 1, 1]
