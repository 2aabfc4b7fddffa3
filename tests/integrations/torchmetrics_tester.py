"""`CogScore` under torchmetrics' own tester, which its package leaves out; run by `test_metrics.py` from a checkout.

The checkout's folder is named by COGGUIDED_TORCHMETRICS.
"""

import numpy as np
import pytest
import torch
from unittests import BATCH_SIZE, NUM_BATCHES
from unittests._helpers.testers import MetricTester

from cogguided import FakeScorer
from cogguided.integrations import CogScore, cog_score
from cogguided.scorers import Scores

IMAGES = torch.rand(NUM_BATCHES, BATCH_SIZE, 3, 4, 5, generator=torch.Generator().manual_seed(0))
PROMPTS = [["a" * (1 + (7 * i + j) % 11) for j in range(BATCH_SIZE)] for i in range(NUM_BATCHES)]


class Wordy(FakeScorer):
    """Brightness times the length of the prompt; a bright image has no score."""

    def __init__(self):
        super().__init__("wordy", high=11.0, needs_prompt=True)

    def __call__(self, images, prompts=None):
        values = super().__call__(images, prompts).values * torch.tensor([len(prompt) for prompt in prompts])
        bright = images.mean(dim=(1, 2, 3)) > BRIGHT
        return Scores(values.where(~bright, torch.nan), errors=["too bright" if b else None for b in bright])


BRIGHT = 0.55


def brightness(images, prompts):
    return images.numpy().mean(dtype=np.float64).astype(np.float32)


def wordiness(images, prompts):
    bright = images.numpy().astype(np.float64).mean(axis=(1, 2, 3))
    values = bright * np.array([len(prompt) for prompt in prompts])
    return values[bright <= BRIGHT].mean().astype(np.float32)


SCORERS = {"brightness": (FakeScorer(), brightness), "wordy": (Wordy(), wordiness)}


@pytest.mark.parametrize("name", SCORERS)
class TestCogScore(MetricTester):
    atol = 1e-6

    @pytest.mark.parametrize("dist_sync_on_step", [False, True])
    @pytest.mark.parametrize("ddp", [False, True])
    def test_class(self, name, ddp, dist_sync_on_step):
        scorer, reference = SCORERS[name]
        assert hasattr(pytest, "pool"), "two processes"
        options = {"dist_sync_on_step": dist_sync_on_step, "metric_args": {"scorer": scorer}}
        self.run_class_metric_test(ddp, IMAGES, PROMPTS, CogScore, reference, **options)

    def test_function(self, name):
        scorer, reference = SCORERS[name]
        self.run_functional_metric_test(IMAGES, PROMPTS, by_position, reference, {"scorer": scorer})

    def test_half_precision(self, name):
        options = {"metric_args": {"scorer": SCORERS[name][0]}, "target": torch.ones(NUM_BATCHES, BATCH_SIZE, 9)}
        self.run_precision_test_cpu(IMAGES, metric_module=CogScore, metric_functional=by_position, **options)

    def test_differentiability_is_as_it_says(self, name):
        scorer, _ = SCORERS[name]
        self.run_differentiability_test(IMAGES.clone(), np.array(PROMPTS), CogScore, by_position, {"scorer": scorer})


def by_position(images, prompts, scorer):
    """The function with prompts second, as the tester calls it."""
    return cog_score(images, scorer, prompts)
