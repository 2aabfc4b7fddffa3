"""Every candidate of a search is made again from its record, pixel for pixel."""

import json

import pytest
import torch
from tiny_diffusion import CALL, tiny_pipeline

from cogguided import CogGuidedPipeline, FakeScorer, replay
from cogguided._errors import RecordError
from cogguided.guidance import Noise
from cogguided.guidance.search import Drafts, FKSteering, Halving, NoiseSearch, Variations
from cogguided.guidance.search.pool import Pool
from cogguided.pipelines.records.trace import LATENTS, needed

SEARCHES = [
    Drafts(3, steps=2, full=2),
    Halving(4, at=(0.34, 0.67)),
    FKSteering(3, at=(0.34, 0.67), resample="always"),
    NoiseSearch(2, 2, rounds=1),
    Variations(3),
]


class GivenLatents:
    """Starts from latents that no seed gives."""

    name = "given"

    def __call__(self, run):
        jobs = run.jobs(2, self.name)
        shape = run.sampler.advance(run.sampler.begin(["a cat"], [Noise.of(0)]), 0.1).latents.shape[1:]
        torch.manual_seed(5)
        pool = Pool(run, jobs, [Noise(((job.seed, 1.0),), torch.randn(shape)) for job in jobs])
        pool.advance(1.0)
        pool.look()


@pytest.fixture(scope="module", params=["sd15", "flux"])
def pipe(request):
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline(request.param), target=FakeScorer())
    pipe.set_progress_bar_config(disable=True)
    pipe.family = request.param
    return pipe


def made(pipe, guidance, folder, prompts=("a cat", "a dog")):
    arguments = {**CALL[pipe.family], "num_inference_steps": 6}
    return pipe(list(prompts), guidance=guidance, seed=3, **arguments).save(folder)


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.name)
def test_every_candidate_is_made_again(pipe, search, tmp_path):
    folder = made(pipe, search, tmp_path)
    count = len(json.loads((folder / "candidates.json").read_text())["candidates"])
    assert count >= 4
    assert all(replay(folder, index, pipe).same for index in range(count))


def test_a_png_has_what_it_needs_and_no_more(pipe, tmp_path):
    folder = made(pipe, NoiseSearch(2, 2, rounds=1), tmp_path)
    first, *_, last = sorted(folder.rglob("*_seed*.png"), key=lambda file: file.name)
    assert replay(first, pipe=pipe).same
    assert replay(last, pipe=pipe).same
    whole = json.loads((folder / "candidates.json").read_text())
    from cogguided.pipelines import read_record

    assert len(read_record(first).facts["trace"]) < len(whole["trace"])


def test_latents_that_no_seed_gives_lie_beside_the_record(pipe, tmp_path):
    folder = made(pipe, GivenLatents(), tmp_path / "kept", ["a cat"])
    assert (folder / LATENTS).exists()
    assert all(replay(folder, index, pipe).same for index in (0, 1))
    assert replay(next((folder / "candidates").glob("*.png")), pipe=pipe).same
    (folder / LATENTS).write_bytes(b"broken")
    with pytest.raises(RecordError, match="cannot read latents"):
        replay(folder, 0, pipe)
    (folder / LATENTS).unlink()
    with pytest.raises(RecordError, match="replay from there"):
        replay(folder, 0, pipe)


def test_a_trace_with_a_gap_is_told(pipe, tmp_path):
    folder = made(pipe, Halving(2, at=(0.5,)), tmp_path, ["a cat"])
    facts = json.loads((folder / "candidates.json").read_text())
    facts["trace"].pop("0")
    (folder / "candidates.json").write_text(json.dumps(facts))
    with pytest.raises(RecordError, match="entry 0 of its trace is missing"):
        replay(folder, 0, pipe)


def test_only_what_an_entry_rests_on_is_needed():
    trace = {
        0: {"begin": []},
        1: {"begin": []},
        2: {"advance": [[0, 0]]},
        3: {"decode": [[2, 0]]},
        4: {"decode": [[1, 0]]},
    }
    assert needed(trace, [3]) == [0, 2, 3]
    assert needed(trace, [4, 3]) == [0, 1, 2, 3, 4]
