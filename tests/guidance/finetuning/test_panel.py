"""The panel: paired intervals, the best round, and an alarm that rings when it should and only then."""

import numpy as np
import pytest

from cogguided import CogGuidedError, FinetuneConfig
from cogguided.guidance.finetuning.panel import Alarm, Evaluation, best, interval

RNG = np.random.default_rng(0)
PROMPTS = RNG.normal(0, 1, 24)


def course(**means):
    """Evaluations whose members have the given means, one per round, with noise paired over prompts."""
    rounds = len(next(iter(means.values())))
    return [
        Evaluation(i, float(i), {n: PROMPTS + m[i] + RNG.normal(0, 0.05, 24) for n, m in means.items()})
        for i in range(rounds)
    ]


def test_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 5.0, np.nan])
    mean, low, high = interval(values)
    # std sqrt(10 / 3), over sqrt(4), times t(0.975, 3) = 3.1824
    assert mean == 3.0
    assert high - mean == pytest.approx(3.1824 * np.sqrt(10 / 3) / 2, rel=1e-4)
    assert mean - low == pytest.approx(high - mean)


def test_it_rings_when_the_target_rises_and_a_judge_falls():
    made = course(target=[0, 0.3, 0.6, 0.9], judge=[0, 0.1, -0.2, -0.5], clip=[0, 0, 0, 0])
    alarm = Alarm({"judge": 0.02, "clip": 0.02}, patience=2)
    assert [alarm(made[: i + 1]) for i in range(4)] == [None, None, None, "judge"]
    assert best(made, alarm).round == 1, "the last round at which all was well"


def test_it_is_silent_on_an_honest_run():
    made = course(target=[0, 0.3, 0.6, 0.9], judge=[0, 0.1, 0.2, 0.3], clip=[0, 0.01, -0.01, 0])
    alarm = Alarm({"judge": 0.02, "clip": 0.02}, patience=1)
    assert [alarm(made[: i + 1]) for i in range(4)] == [None] * 4
    assert best(made, alarm).round == 3


def test_it_is_silent_where_both_fall():
    made = course(target=[0, -0.3, -0.6, -0.9], judge=[0, -0.1, -0.2, -0.5])
    assert Alarm({"judge": 0.0}, patience=1)(made) is None


def test_a_single_bad_evaluation_is_not_enough():
    made = course(target=[0, 0.3, 0.6, 0.9], judge=[0, 0.1, -0.5, 0.2])
    assert Alarm({"judge": 0.02}, patience=2)(made) is None
    assert Alarm({"judge": 0.02}, patience=0)(made) is None


def test_values_within_the_tolerance_are_no_fall():
    made = course(target=[0, 0.5, 0.9], judge=[0, -0.2, -0.2])
    assert Alarm({"judge": 0.5}, patience=1)(made) is None


def test_evaluations_survive_json():
    made = Evaluation(3, 1.5, {"target": np.array([0.5, np.nan])}, unread=2)
    again = Evaluation.from_dict({**made.to_dict(), "values": {"target": [0.5, None]}})
    assert (again.round, again.unread, again.mean("target")) == (3, 2, 0.5)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "ppo"},
        {"rounds": 0},
        {"micro_batch": 2.5},
        {"images_per_prompt": 1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"ema": 1.0},
        {"top": 1.5},
        {"precision": "int8"},
        {"minutes": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(CogGuidedError, match=next(iter(settings))):
        FinetuneConfig(**settings)
