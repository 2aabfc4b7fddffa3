"""A judge on a server, against the real service on a real socket (its scorer in this process, without Ray)."""

import threading
import time
from contextlib import contextmanager

import pytest
import torch
import uvicorn
from PIL import Image

from cogguided import CogGuidedPipeline, FakeScorer, load_scorer
from cogguided._errors import InputError, MissingExtraError, ModelError, UnknownNameError
from cogguided.integrations.serving.app import Full, build_app
from cogguided.integrations.serving.deployments import facts_of, score_asks
from cogguided.integrations.serving.limits import Limits
from cogguided.integrations.serving.tokens import digest
from cogguided.scorers import DimensionScorer, Scorer, load_target

TOKEN = "0123456789abcdef0123"
PICTURES = [Image.new("RGB", (4, 4), (40 * i, 90, 200)) for i in range(5)]


@contextmanager
def serving(target, limits=None, refuse=lambda: False):
    """The URL of a service, and a list of how many images each of its passes had."""
    passes = []

    async def score(ask):
        if refuse():
            raise Full
        passes.append(len(ask.pictures))
        return score_asks(target, [ask])[0]

    async def terms():
        return facts_of(target)

    app = build_app(score, None, terms, limits or Limits(), digest(TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", passes
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def fake():
    with serving(load_target("fake")) as (url, passes):
        yield url, passes


def test_it_is_a_scorer_and_says_what_the_judge_says(fake, tmp_path, monkeypatch):
    url, passes = fake
    monkeypatch.setenv("COGGUIDED_TOKEN", TOKEN)
    scorer = load_scorer(f"remote:{url}", batch_size=2)
    assert isinstance(scorer, Scorer)
    assert (scorer.name, scorer.low, scorer.high, scorer.needs_prompt) == ("fake", 0.0, 1.0, False)
    assert scorer.to("cpu") is scorer
    before = len(passes)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for picture, file in zip(PICTURES, files, strict=True):
        picture.save(file)
    scores = scorer([*files, tmp_path / "broken.png"])
    assert passes[before:] == [2, 2, 1]
    torch.testing.assert_close(scores.values[:5], FakeScorer()(PICTURES).values, atol=1e-6, rtol=0)
    assert scores.valid.tolist() == [True] * 5 + [False]
    assert "broken.png: cannot be read" in scores.errors[5]
    pixels = torch.stack([torch.full((3, 4, 4), i / 255) for i in (0, 100, 255)])
    torch.testing.assert_close(scorer(pixels).values, FakeScorer()(pixels).values, atol=1e-6, rtol=0)


def test_a_pipeline_can_be_guided_by_it(fake, monkeypatch):
    from tiny_diffusion import CALL, tiny_pipeline

    from cogguided import BestOfN

    url, _ = fake
    monkeypatch.setenv("COGGUIDED_TOKEN", TOKEN)
    outputs = []
    for target in ("fake", load_scorer("remote", url=url)):
        pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target=target)
        pipe.set_progress_bar_config(disable=True)
        outputs.append(pipe("a cat", seed=0, guidance=BestOfN(3), **CALL["sd15"]))
    here, there = outputs
    assert [c.seed for c in there.chosen] == [c.seed for c in here.chosen]
    assert [c.scores["fake"] for c in there.candidates] == pytest.approx([c.scores["fake"] for c in here.candidates])


def test_dimensions_of_one_service_are_one_request():
    dark = FakeScorer("funniness", fn=lambda pixels: 1 - pixels.mean((1, 2, 3)))
    both = load_target({FakeScorer("memorability"): 1, dark: 1})
    with serving(both) as (url, passes):
        with pytest.raises(InputError, match="several scores: pass dimension="):
            load_scorer("remote", url=url, token=TOKEN)
        with pytest.raises(UnknownNameError, match="did you mean 'funniness'"):
            load_scorer("remote", url=url, token=TOKEN, dimension="funnines")
        scorer = load_scorer("remote", url=url, token=TOKEN, dimension="memorability")
        assert isinstance(scorer, DimensionScorer)
        wanted = "memorability=1,funniness=-0.5"
        total = load_target(wanted, scorer=scorer)(PICTURES)
        assert passes == [5]
        expected = load_target(wanted, scorer={t.name: t.scorer for t in both.terms})(PICTURES)
        torch.testing.assert_close(total.total, expected.total, atol=1e-6, rtol=0)


def test_prompts_go_along():
    with serving(load_target(FakeScorer("needy", needs_prompt=True))) as (url, _):
        scorer = load_scorer("remote", url=url, token=TOKEN, batch_size=2)
        assert scorer.needs_prompt
        with pytest.raises(InputError, match="one per image"):
            scorer(PICTURES)
        assert scorer(PICTURES, ["ein Käfer"] * 5).valid.all()


def test_what_the_service_refuses_is_nan_with_its_reason():
    with serving(load_target("fake"), Limits(pixels=30, images=3)) as (url, passes):
        scorer = load_scorer("remote", url=url, token=TOKEN)
        assert scorer.batch_size == 3
        large = Image.new("RGB", (9, 9))
        scores = scorer([PICTURES[0], large, PICTURES[1]])
    assert scores.valid.tolist() == [True, False, True]
    assert scores.errors[1] == "9x9 is more than 30 pixels"
    assert passes == [2]


def test_large_requests_are_cut(fake):
    with serving(load_target("fake"), Limits(body=4000)) as (url, passes):
        scorer = load_scorer("remote", url=url, token=TOKEN)
        noise = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))
        assert scorer(noise).valid.all()
        assert passes == [2, 2]
        assert "more than 4000 bytes" in scorer(torch.rand(1, 3, 60, 60)).errors[0]


def test_no_room_is_asked_again_and_then_nan(monkeypatch):
    from cogguided.scorers.models.parts import service

    monkeypatch.setattr(service, "LONGEST_WAIT", 0.05)
    left = [True, True]
    with serving(load_target("fake"), refuse=lambda: bool(left and left.pop())) as (url, _):
        scorer = load_scorer("remote", url=url, token=TOKEN, retries=2)
        assert scorer(PICTURES[:1]).valid.all()
        assert not left
        left.extend([True] * 9)
        scores = scorer(PICTURES[:2])
        assert not scores.valid.any()
        assert "HTTP 503: the queue is full: come again (3 requests)" in scores.errors[0]
        assert len(left) == 6
    scores = scorer(PICTURES[:1])  # and nobody is there any more
    assert "cannot be reached" in scores.errors[0]


def test_a_slow_service_is_given_up():
    slow = FakeScorer("slow", fn=lambda pixels: (time.sleep(2), pixels.mean((1, 2, 3)))[1])
    with serving(load_target(slow)) as (url, _):
        scorer = load_scorer("remote", url=url, token=TOKEN, timeout=0.8, retries=0)
        assert "no answer within 0.8 s" in scorer(PICTURES[:1]).errors[0]


def test_what_cannot_be_connected_to_is_told(fake, monkeypatch, tmp_path):
    url, _ = fake
    monkeypatch.delenv("COGGUIDED_TOKEN", raising=False)
    with pytest.raises(InputError, match="wants a token"):
        load_scorer("remote", url=url)
    with pytest.raises(InputError, match="does not take this token"):
        load_scorer("remote", url=url, token="wrong")
    with pytest.raises(ModelError, match="cannot be reached"):
        load_scorer("remote", url="http://127.0.0.1:9", token=TOKEN, retries=0)
    with pytest.raises(InputError, match="expected a URL"):
        load_scorer("remote", url="127.0.0.1:9", token=TOKEN)
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert load_scorer("remote", url=url, token_file=tmp_path / "token").name == "fake"
    monkeypatch.setitem(__import__("sys").modules, "tenacity", None)
    with pytest.raises(MissingExtraError, match=r"cogguided\[remote\]"):
        load_scorer("remote", url=url, token=TOKEN)
