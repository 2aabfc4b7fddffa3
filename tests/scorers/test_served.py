"""Judges on a server: by a real one on loopback with the embedded judge behind it, and by some that misbehave."""

import math
import time

import pytest
import torch
from loopback import Chat, reply, running
from PIL import Image

from cogguided._errors import InputError, UnknownNameError
from cogguided.scorers import Scorer, load_scorer, load_target
from cogguided.scorers.served.answers import ValidAnswers, Walk

PICTURES = [Image.new("RGB", (64, 64), "navy"), Image.linear_gradient("L").resize((64, 64)).convert("RGB")]
QUICK = {"timeout": 0.4, "retries": 1, "backoff": 0.01}


@pytest.fixture(scope="module")
def judge():
    return load_scorer("emotional_valence", device="cpu")


def asked(judge):
    """The question that the judge was taught to answer."""
    assert judge.facts.system_prompt is None
    return {"question": judge.facts.dimensions["emotional_valence"].question}


def test_the_expected_value_is_that_of_the_model_itself(judge, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    chat = Chat(judge)
    with running(chat) as url:
        served = load_scorer("emotional_valence", model=f"{url}#judge", **asked(judge))
        assert isinstance(served, Scorer)
        scores = served(PICTURES)
        first = len(chat.requests)
        again = served([*PICTURES, "missing.png"])
        assert len(chat.requests) == first, "the cache was not used"
    local = judge(PICTURES)
    torch.testing.assert_close(scores.values, local.values, atol=0.02 * 6, rtol=0)
    torch.testing.assert_close(scores.std, local.std, atol=0.02 * 6, rtol=0)
    assert scores.labels == local.labels
    assert (scores.values[0] - scores.values[1]).abs() > 1e-4
    assert again.valid.tolist() == [True, True, False]
    assert "missing.png" in again.errors[2]
    assert set(chat.keys) == {"Bearer sk-very-secret"}
    assert "secret" not in repr(served.core)
    assert "secret" not in repr(served.options)


def test_without_going_on_it_is_read_along_one_answer(judge):
    chat = Chat(judge, continues=False)
    with running(chat) as url, pytest.warns(UserWarning, match="likeliest answer only"):
        scores = load_scorer("mllm", model=f"{url}#judge", concurrency=1, **asked(judge))(PICTURES)
    torch.testing.assert_close(scores.values, judge(PICTURES).values, atol=0.15 * 6, rtol=0)
    assert len(chat.requests) == 3  # one an image, and one to see


def test_without_logprobs_it_is_greedy_with_a_note(judge):
    with running(Chat(judge, logprobs=False)) as url:
        with pytest.warns(UserWarning, match="no log probabilities"):
            scores = load_scorer(f"{url}#judge", **asked(judge))(PICTURES)
        greedy = load_scorer(f"{url}#judge", readout="greedy", **asked(judge))(PICTURES)
    local = judge.score_readouts(PICTURES, [judge.name], ["greedy"])["greedy"][judge.name]
    for found in (scores, greedy):
        torch.testing.assert_close(found.values, local.values, equal_nan=True)
    assert scores.std is None


def test_levels_and_yes_no_take_one_token():
    def answer(handler, body):
        levels = "good" in body["messages"][0]["content"][1]["text"]
        good = {"Good": 0.5, " fair": 0.2, "ba": 0.2, "other": 0.1}
        show = {"Yes": 0.3, "yes": 0.3, "No": 0.2, "maybe": 0.2}
        likeliest = good if levels else show
        top = [{"token": t, "logprob": math.log(p)} for t, p in likeliest.items()]
        steps = [{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}]
        reply(handler, {"choices": [{"message": {"content": top[0]["token"]}, "logprobs": {"content": steps}}]})

    with running(answer) as url:
        levels = load_scorer(
            f"{url}#m", readout="levels", question="How good?", levels={"bad": 1, "fair": 3, "good": 5}, low=0, high=5
        )
        scores = levels(PICTURES[:1])
        assert scores.values.item() == pytest.approx((0.5 * 5 + 0.2 * 3 + 0.2 * 1) / 0.9)
        assert scores.labels == ["good"]
        assert scores.mass.item() == pytest.approx(0.9)
        assert (levels.low, levels.high) == (0.0, 5.0)
        shows = load_scorer(f"{url}#m", readout="yes_no")
        assert shows.needs_prompt
        assert shows(PICTURES[:1], ["a cat"]).values.item() == pytest.approx(0.75)
        with pytest.raises(InputError, match="prompts"):
            shows(PICTURES[:1])
        assert load_target({levels: 1})(PICTURES[:1]).terms["levels"].valid.all()


def test_the_walk_goes_where_most_is_open():
    answers = ValidAnswers({f"low {i}": float(i) for i in range(10)} | {f"high {i}": float(i) for i in range(10)})
    walk = Walk(answers)
    walk.add("", [("low", math.log(0.75)), ("high", math.log(0.25))])
    assert walk.next() == "low"
    assert walk.add("low", [(" 2", math.log(0.5)), (" 4", math.log(0.5)), (" x", -1.0)])
    assert not walk.add("nowhere", [])
    assert walk.next() == "high"
    assert walk.read().mean == pytest.approx(0.75 * 3 + 0.25 * 4.5)
    walk.add("high", [(" 9", 0.0)])
    assert walk.next() is None
    walk.add("high 9", [("<end>", 0.0)])  # said is said
    assert walk.read().mean == pytest.approx(0.75 * 3 + 0.25 * 9)
    assert walk.read().mass == pytest.approx(1.0)


def hang(handler, body):
    time.sleep(1)


def endless(handler, body):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" " * 1000)
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda h, b: reply(h, {"error": {"message": "out of memory"}}, 500), "HTTP 500: out of memory"),
        (lambda h, b: reply(h, {"detail": "bad key sk-very-secret"}, 401), r"bad key \*\*\*; set OPENAI_API_KEY"),
        (lambda h, b: reply(h, b"<html>hello"), "expected an answer of chat completions, got '<html>hello'"),
        (lambda h, b: reply(h, {"choices": []}), "expected an answer of chat completions"),
        (lambda h, b: reply(h, {"choices": [{"message": {}, "logprobs": {"content": [{}]}}]}), "in another form"),
        (hang, "no answer within 0.4 s"),
        (endless, "did not end within 0.4 s"),
        (lambda h, b: h.connection.close(), "cannot be reached"),
    ],
    ids=["500", "401", "garbage", "empty", "odd", "hang", "endless", "closed"],
)
def test_what_fails_is_nan_with_the_reason(answer, reason, monkeypatch):
    import re

    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with running(answer) as url:
        scores = load_scorer(f"{url}#m", **QUICK)(PICTURES[:1])
    assert scores.values.isnan().all()
    assert re.search(reason, scores.errors[0]), scores.errors
    assert "secret" not in scores.errors[0]


def test_too_many_requests_are_waited_for_as_asked():
    times = []

    def answer(handler, body):
        times.append(time.monotonic())
        if len(times) == 1:
            reply(handler, {"error": "slow down"}, 429, Retry_After="0.2")
        else:
            reply(handler, {"choices": [{"message": {"content": "positive 2.000"}}]})

    with running(answer) as url:
        scores = load_scorer(f"{url}#m", readout="greedy", backoff=0.0)(PICTURES[:1])
    assert scores.values.tolist() == [2.0]
    assert times[1] - times[0] >= 0.2


def test_a_redirect_is_not_followed_with_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    seen = []
    with running(lambda h, b: seen.append(h.headers) or reply(h, {})) as other:
        moved = f"{other}/v1/chat/completions"
        with running(lambda h, b: reply(h, b"", 307, Location=moved)) as url:
            scores = load_scorer(f"{url}#m")(PICTURES[:1])
    assert "a redirect is not followed" in scores.errors[0]
    assert seen == []


def test_requests_at_once_are_bounded():
    import threading

    lock, now, most, three = threading.Lock(), [0], [0], threading.Barrier(3, timeout=20)

    def answer(handler, body):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        three.wait()  # so many are there at once, however busy the machine is
        with lock:
            now[0] -= 1
        reply(handler, {"choices": [{"message": {"content": "positive 2.000"}}]})

    pictures = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(9)]
    with running(answer) as url:
        assert load_scorer(f"{url}#m", readout="greedy", concurrency=3)(pictures).valid.all()
    assert most[0] == 3


def test_nonsense_is_refused():
    for address in ("http://host", "http://me:word@host#m", "https://host?a=b#m"):
        with pytest.raises(InputError, match="server: "):
            load_scorer(address)
    with pytest.raises(UnknownNameError, match="did you mean 'expected'"):
        load_scorer("http://host#m", readout="expectd")
    with pytest.raises(InputError, match="levels="):
        load_scorer("http://host#m", readout="levels")
    with pytest.raises(InputError, match="it takes: "):
        load_scorer("http://host#m", bits=4)
