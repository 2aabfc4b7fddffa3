"""The code that docs/integrations.md shows for trainers of generators, in these trainers' own reward machinery.

COGGUIDED_TRAINERS names a folder with checkouts of them: flow_grpo, Flow-Factory, ddpo-pytorch, DiffusionNFT.
"""

import os
import re
import sys
import types
from pathlib import Path

import pytest
import torch

from cogguided import FakeScorer
from cogguided.integrations import as_reward
from cogguided.scorers import register_scorer, unregister_scorer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
IMAGES = torch.stack([torch.full((3, 8, 8), level) for level in (0.2, 0.6, 1.0)])
EXPECTED = torch.tensor([0.2, 0.6, 1.0])
PROMPTS = ["a", "b", "c"]


def shown(title):
    """The code that the docs show for a trainer, with a scorer of the tests in the place of the judge."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(f"# {title}")]
    return found.replace('"memorability"', '"brightness"')


@pytest.fixture(autouse=True)
def brightness():
    register_scorer("brightness", lambda: FakeScorer("brightness"))
    yield
    unregister_scorer("brightness")


def checkout(name):
    folder = Path(os.environ["COGGUIDED_TRAINERS"]) / name
    assert folder.is_dir(), f"no checkout of {name} in COGGUIDED_TRAINERS"
    return folder


def run(source, name):
    module = types.ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
    return module


@pytest.mark.slow  # needs checkouts of the trainers
@pytest.mark.parametrize("trainer", ["flow_grpo", "DiffusionNFT"])
def test_flow_grpo_and_diffusion_nft(trainer):
    source = (checkout(trainer) / "flow_grpo" / "rewards.py").read_text("utf-8")
    entry = "    score_functions = {\n"
    assert source.count(entry) == 1
    source = source.replace(entry, f'{entry}        "cogguided": cogguided_score,\n')
    rewards = run(source + "\n\n" + shown("flow_grpo"), "flow_grpo_rewards")
    score = rewards.multi_score(torch.device("cpu"), {"cogguided": 2.0, "jpeg_compressibility": 0.0})
    details, _ = score(IMAGES, PROMPTS, [{}] * 3)
    torch.testing.assert_close(torch.as_tensor(details["cogguided"]), EXPECTED, atol=2e-3, rtol=0)
    torch.testing.assert_close(torch.as_tensor(details["avg"], dtype=torch.float32), 2 * EXPECTED, atol=4e-3, rtol=0)


@pytest.mark.slow  # needs checkouts of the trainers
def test_ddpo_pytorch():
    source = (checkout("ddpo-pytorch") / "ddpo_pytorch" / "rewards.py").read_text("utf-8")
    rewards = run(source + "\n\n" + shown("ddpo-pytorch"), "ddpo_rewards")
    reward_fn = getattr(rewards, "cogguided_score")()  # noqa: B009  (as its scripts/train.py does)
    found, _ = reward_fn(IMAGES, PROMPTS, [{}] * 3)
    torch.testing.assert_close(torch.as_tensor(found), EXPECTED, atol=2e-3, rtol=0)


@pytest.mark.slow  # needs checkouts of the trainers
@pytest.mark.filterwarnings("default")
def test_flow_factory(monkeypatch):
    monkeypatch.syspath_prepend(str(checkout("Flow-Factory") / "src"))
    from accelerate import Accelerator
    from flow_factory.hparams import RewardArguments
    from flow_factory.rewards.loader import load_reward_model
    from flow_factory.rewards.reward_processor import RewardProcessor
    from flow_factory.samples.samples import T2ISample

    monkeypatch.setitem(sys.modules, "my_rewards", run(shown("Flow-Factory"), "my_rewards"))
    config = RewardArguments(name="cog", reward_model="my_rewards.CogGuidedReward", batch_size=2)
    accelerator = Accelerator(cpu=True)
    processor = RewardProcessor(accelerator, {"cog": load_reward_model(config, accelerator)}, verbose=False)
    samples = [T2ISample(image=image, prompt=prompt) for image, prompt in zip(IMAGES, PROMPTS, strict=True)]
    found = processor.compute_rewards(samples)["cog"]
    torch.testing.assert_close(found, EXPECTED, atol=4e-3, rtol=0)


def test_a_loop_of_one_s_own_leaves_out_what_has_no_score():
    images = [*(image for image in IMAGES.permute(0, 2, 3, 1).mul(255).byte().numpy())]
    from PIL import Image

    mixed = [*(Image.fromarray(image) for image in images), "no-such.png"]
    there = {"reward": as_reward("brightness"), "images": mixed, "prompts": [*PROMPTS, "d"]}
    exec(shown("a loop of your own"), there)
    advantages = there["advantages"]
    assert advantages[-1] == 0
    assert advantages[:3].mean().abs() < 1e-5
    assert advantages[2] > advantages[1] > advantages[0]
