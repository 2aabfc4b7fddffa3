"""benchmarks/alignment_ablation.py: the order of its runs, and its statistics on made-up results."""

import importlib.util
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "alignment_ablation.py"
SPEC = importlib.util.spec_from_file_location("alignment_ablation", FILE)
ablation = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ablation)

COUNT = 40
HUMAN = np.linspace(-3, 3, COUNT).round(1)


@pytest.fixture
def args(tmp_path):
    rows = [
        f"images/{index}_{style}.png,emotional_valence,{score},0.2,50,thing {index}"
        for index, score in enumerate(HUMAN)
        for style in ("noto", "flat")
    ]
    for name in ("first", "second"):
        (tmp_path / f"{name}.csv").write_text("\n".join(["image,dimension,score,std,count,concept", *rows]))
    return Namespace(
        out=tmp_path, data=tmp_path, rated_only=True, steps=300,
        minimum=20, resamples=300, seeds=2, variants=None, workers=2,
    )  # fmt: skip


def write(args, variant, seed, expected, greedy=None, seconds=10.0):
    both = {"greedy": expected if greedy is None else greedy, "expected": expected}
    scores = {name: np.repeat(values, 2).tolist() for name, values in both.items()}  # two drawings of each
    result = {"variant": variant, "seed": seed, "train_seconds": seconds, "scores": scores}
    ablation.result_file(variant, seed, args).write_text(json.dumps(result))


def row(args, *begins):
    lines = (args.out / "report.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("| " + " | ".join(begins) + " |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def noisy(seed, size=1.0):
    return HUMAN + size * np.random.default_rng(seed).normal(size=COUNT)


# ---------------------------------------------------------------------- which run when


def test_grpo_waits_for_the_run_it_goes_on_from(args):
    args.variants = ["grpo"]
    jobs = ablation.jobs_to_do(args)
    assert jobs == [("paper+value", 0), ("grpo", 0), ("paper+value", 1), ("grpo", 1)]
    jobs.remove(("paper+value", 0))  # begun, with a free worker beside it
    assert ablation.next_job(jobs, args) == ("paper+value", 1)
    jobs.remove(("paper+value", 1))
    assert ablation.next_job(jobs, args) is None
    write(args, "paper+value", 1, HUMAN)
    assert ablation.next_job(jobs, args) == ("grpo", 1)
    assert ("paper+value", 1) not in ablation.jobs_to_do(args)
    with pytest.raises(SystemExit, match=r"grpo-0 goes on from paper\+value-0: run that first"):
        ablation.run("grpo", 0, args)


def test_two_workers_run_in_that_order_and_a_failure_ends_it(args, monkeypatch, capsys):
    args.variants, args.seeds, begun = ["paper", "grpo"], 2, []

    class Process:
        """Ends at its third poll; `paper+value-1` fails."""

        def __init__(self, command, **kwargs):
            variant, seed = command[-2], int(command[-1])
            self.variant, self.seed, self.polls = variant, seed, 0
            self.returncode = int((variant, seed) == ("paper+value", 1))
            for needed in [ablation.GOES_ON_FROM.get(variant)]:
                assert needed is None or ablation.result_file(needed, seed, args).exists()
            begun.append(f"{variant}-{seed}")

        def poll(self):
            self.polls += 1
            if self.polls < 3:
                return None
            if not self.returncode:
                write(args, self.variant, self.seed, HUMAN)
            return self.returncode

    monkeypatch.setattr(ablation.subprocess, "Popen", Process)
    monkeypatch.setattr(ablation.time, "sleep", lambda seconds: None)
    ablation.start(args)
    assert sorted(begun) == ["grpo-0", "paper+value-0", "paper+value-1", "paper-0", "paper-1"]
    told = capsys.readouterr().out
    assert "paper+value-1: failed, see paper+value-1.log" in told
    assert "grpo-1: not begun, since paper+value-1 failed" in told


def test_grpo_counts_the_time_of_its_start(args, monkeypatch):
    import cogguided.scorers.mllm.scorer as mllm
    from cogguided.scorers import Scores

    class Scorer:
        def __call__(self, images):
            import torch

            return Scores(torch.zeros(len(images)))

    monkeypatch.setattr(ablation, "train", lambda variant, seed, args: args.out)
    monkeypatch.setattr(mllm.MLLMScorer, "from_pretrained", lambda *a, **k: Scorer())
    write(args, "paper+value", 0, HUMAN, seconds=500.0)
    ablation.run("grpo", 0, args)
    assert 500 <= json.loads(ablation.result_file("grpo", 0, args).read_text())["train_seconds"] < 510


# ---------------------------------------------------------------------- figures


def test_what_was_not_read_has_no_figure(args):
    nothing = np.full(COUNT, np.nan)
    write(args, "base", 0, np.zeros(COUNT), nothing)
    partly = noisy(1)
    partly[: COUNT // 5] = np.nan
    for seed in range(2):
        write(args, "paper", seed, noisy(seed), partly if seed else noisy(7))
    ablation.report(args)
    assert row(args, "base", "greedy")[2:6] == ["1", "–", "–", "100.0 %"]
    # a constant answer has an error but no rank
    assert row(args, "base", "expected")[3] == "–"
    assert row(args, "base", "expected")[4].startswith("1.5")
    assert row(args, "paper", "greedy")[2:6] == ["2", "–", "–", "10.0 %"]  # a fifth of one seed: too little
    assert row(args, "paper", "expected")[5] == "0.0 %"
    assert row(args, "paper, expected - base, expected")[1] == "–"
    assert row(args, "paper, expected - base, expected")[2].startswith("-")
    assert row(args, "paper, expected - paper, greedy")[1:] == ["–", "–"]


def test_a_few_unread_ones_are_left_out_of_both_sides(args):
    one, two = noisy(1), noisy(2)
    one[0], two[-1] = np.nan, np.nan
    both = slice(1, COUNT - 1)
    got = ablation.difference("mae", one[None], two[None], HUMAN, 100)
    expected = np.abs(one - HUMAN)[both].mean() - np.abs(two - HUMAN)[both].mean()
    assert got.split()[0] == f"{expected:+.3f}"


def test_statistics_are_scipys():
    from scipy.stats import spearmanr

    score = noisy(3)
    assert ablation.statistic("spearman", score, HUMAN) == pytest.approx(spearmanr(score, HUMAN)[0])
    assert ablation.statistic("mae", score, HUMAN) == pytest.approx(np.abs(score - HUMAN).mean())


def test_seeds_that_differ_widen_the_interval():
    alike = np.stack([noisy(1)] * 3)
    differ = np.stack([noisy(1, size) for size in (0.2, 1.0, 3.0)])
    human = np.tile(HUMAN, 50)  # so many concepts that they alone hardly spread
    spreads = [ablation.measure("mae", np.tile(scores, 50), human, 400)[1].std() for scores in (alike, differ)]
    assert spreads[1] > 5 * spreads[0]
    value, drawn = ablation.measure("mae", differ, HUMAN, 400)
    assert value == pytest.approx(np.abs(differ - HUMAN).mean())
    assert drawn.shape == (400,)


def test_differences_are_paired_in_concepts_and_seeds():
    scores = np.stack([noisy(1, 0.2), noisy(2, 3.0)])
    sets = [ablation.measure("mae", run, HUMAN, 200)[1] for run in (scores, scores + 0.0)]
    np.testing.assert_array_equal(*sets)
