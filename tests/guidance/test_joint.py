"""JointSearch: how its drafts are shared out between wordings and seeds, and which images win."""

import pytest
from painter import WORLD, Listed, Painter, run_of
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import CogGuidedPipeline, FakeScorer, JointSearch, replay
from cogguided._errors import InputError
from cogguided.guidance.search.joint import STRAYED


def search(painter, *rounds, prompts=("a cat",), budget=None, **arguments):
    proposer = Listed(*rounds)
    run = run_of(painter, prompts, budget)
    JointSearch(proposer=proposer, rounds=len(rounds), **arguments)(run)
    run.finish()
    return run, proposer, run.facts["joint"]["requests"]


def test_drafts_are_shared_between_wordings_and_seeds():
    painter = Painter(WORLD)
    run, _, (told,) = search(painter, ["a better cat", "a great dog"], n=6, rewrites=2, full=1)
    own = [("a cat", seed, 4) for seed in range(4)]
    assert sorted(painter.drawn[:6]) == sorted([*own, ("a better cat", 0, 4), ("a great dog", 0, 4)])
    assert painter.drawn[6:] == [("a better cat", 0, 10)]  # the best that is faithful, from the same noise
    (chosen,) = [c for c in run.candidates if c.chosen]
    assert chosen.prompt == "a better cat"
    assert chosen.finished
    assert {c.held_back for c in run.candidates if c.prompt == "a great dog"} == {STRAYED}
    assert [w["images"] for w in told["wordings"]] == [4, 1, 1]
    assert "less faithful" in told["wordings"][2]["rejected"]


def test_the_own_wording_wins_where_it_is_best():
    world = {"a cat": (150, 200), "worse": (90, 200)}
    run, _, _ = search(Painter(world), ["worse"], n=4, rewrites=1)
    assert {c.prompt for c in run.candidates if c.chosen} == {"a cat"}


def test_drafts_may_be_what_is_returned():
    painter = Painter(WORLD)
    run, _, _ = search(painter, ["a better cat", "a great dog"], n=6, rewrites=2, full=0)
    assert len(painter.drawn) == 6
    assert all(steps == 4 for *_, steps in painter.drawn)
    (chosen,) = [c for c in run.candidates if c.chosen]
    assert (chosen.prompt, chosen.finished) == ("a better cat", True)
    assert not any(c.finished for c in run.candidates if c.prompt == "a great dog")


def test_later_rounds_go_to_the_better_half_and_are_told():
    painter = Painter({**WORLD, "newer": (160, 200)})
    _, proposer, _ = search(painter, ["a better cat", "the same cat"], ["newer"], n=8, rewrites=2, full=1)
    first, second = painter.drawn[:4], painter.drawn[4:8]
    assert sorted(p for p, _, _ in first) == ["a better cat", "a cat", "a cat", "the same cat"]
    assert ("newer", 0, 4) in second
    assert {p for p, _, _ in second} <= {"newer", "a better cat", "a cat", "the same cat"}
    assert ("a better cat", 1, 4) in second  # the next of its seeds
    assert {t.prompt: t.count for t in proposer.told[1]} == {"a cat": 2, "a better cat": 1, "the same cat": 1}


def test_without_wordings_it_is_a_search_over_seeds():
    painter = Painter(WORLD)
    run, _, _ = search(painter, [], n=5, rewrites=3)
    assert painter.drawn[:5] == [("a cat", s, 4) for s in range(5)]
    assert sum(c.finished for c in run.candidates) == 2


def test_several_prompts():
    world = {**WORLD, "a tree": (50, 90), "a red tree": (120, 90)}

    class Both(Listed):
        def propose(self, prompt, target, history, n, seed):
            return ["a better cat"] if "cat" in prompt else ["a red tree"]

    run = run_of(Painter(world), ("a cat", "a tree"))
    JointSearch(4, rewrites=1, proposer=Both())(run)
    run.finish()
    assert [c.prompt for c in run.candidates if c.chosen] == ["a better cat", "a red tree"]


@pytest.mark.parametrize("limit", ["30nfe", "60nfe", "200nfe"])
def test_the_budget_is_kept(limit):
    run, _, _ = search(Painter(WORLD), ["a better cat", "the same cat"], n=12, rewrites=2, budget=limit)
    assert run.nfe <= int(limit.removesuffix("nfe"))
    assert any(c.chosen and c.finished for c in run.candidates)


@pytest.mark.parametrize("full", [None, 0])
def test_every_image_replays(tmp_path, full):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("flux"), target=FakeScorer())
    pipe.set_progress_bar_config(disable=True)
    judge = FakeScorer("faithful")
    guidance = JointSearch(6, rewrites=2, rounds=2, steps=2, full=full, keep=2, faithfulness=judge, margin=0.5)
    out = pipe("a cat", guidance=guidance, seed=0, diversity=0.0, **{**CALL["flux"], "num_inference_steps": 4})
    assert len(out.images) == 2
    folder = out.save(tmp_path)
    assert all(replay(folder, i, pipe).same for i in range(len(out.candidates)))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n": 4, "rewrites": 4}, "too few"),
        ({"n": 2, "rounds": 3}, "too few"),
        ({"keep": 3, "full": 2}, "keep <= full"),
    ],
)
def test_arguments(arguments, match):
    with pytest.raises(InputError, match=match):
        JointSearch(**arguments)


def test_a_budget_leaves_drafts_of_the_own_wording_to_compare_with():
    wordings = ["a better cat", "the same cat"]
    run, _, (told,) = search(Painter(WORLD), wordings, n=8, rewrites=2, full=1, budget="36nfe")
    own = told["wordings"][0]
    assert own["images"] >= 1
    assert any("drafts were not made" in note for note in run.notes)
