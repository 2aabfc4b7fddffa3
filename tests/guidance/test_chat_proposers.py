"""Proposers that ask a chat model: in the process, the scorer's own, and behind a real server."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny_mllm
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from cogguided._errors import GenerationError, InputError, ModelError
from cogguided.guidance.rewriting.proposers import (
    ChatProposer,
    EndpointProposer,
    Proposer,
    Trial,
    keeps,
)
from cogguided.scorers.mllm.scorer import MLLMScorer

ROOT = Path(__file__).resolve().parents[2]
SAD = {"emotional_valence": -1.0}


# --- chat models ---------------------------------------------------------------------------------------


FIRST = ["1. a gloomy cat\n", "1. a lonely cat\n", '1. "a cat in the rain"\n', "1. a dog\n"]
SECOND = ["2. a weeping cat", "2. a Cat", "2. a cat that lost its hat", "2. one very old cat"]
CHAT = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory) -> Path:
    """A Granite that answers with two numbered lines, whatever it is asked.

    Written by hand: attention and MLP add nothing, so that the last token alone decides: any word leads to
    one of FIRST, each of those to one of SECOND, and that to the end.
    """
    tokens = ["<unk>", "<end>", *FIRST, *SECOND]
    tokens += [f"<{i}>" for i in range(16 - len(tokens))]
    vocab = {token: i for i, token in enumerate(tokens)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<end>", pad_token="<end>", chat_template=CHAT
    )
    config = tf.GraniteConfig(
        vocab_size=16, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, tie_word_embeddings=False, eos_token_id=1, pad_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = tf.GraniteForCausalLM(config)
    after = torch.zeros(16, 16)
    after[2:6, 0] = after[6:10, 2:6] = after[1, 6:10] = 8.0  # logits of 32 beside 0: (next, last)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(16))
        model.lm_head.weight.copy_(after)
    model.generation_config = tf.GenerationConfig(do_sample=True, eos_token_id=1, pad_token_id=1)
    folder = tmp_path_factory.mktemp("chat") / "tiny"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_chat_model_proposes(chat_folder):
    proposer = ChatProposer.from_pretrained(chat_folder, device="cpu")
    assert isinstance(proposer, Proposer)
    history = [Trial("a lonely cat", 0.5, 4)]
    state = torch.get_rng_state()
    found = proposer.propose("a [cat]", SAD, history, 3, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    assert found == proposer.propose("a [cat]", SAD, history, 3, seed=0)
    assert found
    possible = {"a gloomy cat", "a cat in the rain", "a weeping cat", "a cat that lost its hat", "one very old cat"}
    assert set(found) <= possible
    draws = {tuple(proposer.propose("a [cat]", SAD, history, 3, seed)) for seed in range(8)}
    assert len(draws) > 3
    every = [Trial(text) for text in possible]
    assert proposer.propose("a [cat]", SAD, [*history, *every], 3, seed=0) == []


def test_chat_asks_a_bounded_number_of_times(chat_folder, monkeypatch):
    proposer = ChatProposer.from_pretrained(chat_folder, device="cpu", tries=2)
    asked = []
    monkeypatch.setattr(proposer, "answer", lambda text, seed: asked.append(seed) or "no")
    assert proposer.propose("a cat", SAD, [], 3, seed=5) == []
    assert len(set(asked)) == 2


def test_chat_with_the_scorers_own_weights(tmp_path):
    """Random weights, tokenizer and chat template of Qwen2.5-VL: nonsense, and nothing is raised."""
    scorer = MLLMScorer.from_pretrained(tiny_mllm.build("qwen2_5_vl", tmp_path), device="cpu")
    proposer = ChatProposer.from_scorer(scorer, max_new_tokens=24, tries=2)
    assert proposer.model is scorer.model
    assert proposer.answer("hello", 0) == proposer.answer("hello", 0)
    assert proposer.answer("hello", 0) != proposer.answer("hello", 1)
    assert isinstance(proposer.propose("a cat", SAD, [], 2, 0), list)


def test_chat_loads_models_that_see(tmp_path):
    tiny_mllm.build("smolvlm", tmp_path)
    proposer = ChatProposer.from_pretrained(tmp_path, device="cpu", max_new_tokens=8, tries=1)
    assert isinstance(proposer.propose("a cat", SAD, [], 2, 0), list)


def test_chat_refuses_what_cannot_chat(chat_folder, tmp_path):
    tokenizer = tf.AutoTokenizer.from_pretrained(chat_folder)
    model = tf.AutoModelForCausalLM.from_pretrained(chat_folder)
    with pytest.raises(InputError, match="temperature"):
        ChatProposer(model, tokenizer, temperature=0)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        ChatProposer(model, tokenizer)
    with pytest.raises(ModelError, match="cannot be loaded"):
        ChatProposer.from_pretrained(tmp_path)


# --- a server ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(chat_folder, tmp_path_factory):
    """`transformers serve` on loopback with the tiny chat model, offline; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(chat_folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tmp_path_factory.mktemp("serve") / "log"
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            try:
                opener.open(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(f"no answer in a minute: {log.read_text()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow  # needs the web server of transformers[serving]
def test_a_real_server_proposes(served, chat_folder):
    proposer = EndpointProposer(f"{served}/v1/", str(chat_folder), timeout=30)
    assert isinstance(proposer, Proposer)
    found = proposer.propose("a [cat]", SAD, [Trial("a lonely cat", 0.5, 4)], 3, seed=0)
    assert found
    assert found == proposer.propose("a [cat]", SAD, [Trial("a lonely cat", 0.5, 4)], 3, seed=0)
    assert all(keeps("a [cat]", text) for text in found)
    with pytest.raises(GenerationError, match="HTTP 400: Server is pinned to"):
        EndpointProposer(served, "another").propose("a cat", SAD, [], 1, 0)


class Fake:
    """A server on loopback that answers each request with the next of (status, headers, body, delay)."""

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append((self.path, dict(self.headers), body))
                status, headers, text, delay = fake.replies.pop(0)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in text if isinstance(text, list) else [text]:
                    time.sleep(delay)
                    try:
                        self.wfile.write(piece.encode())
                    except OSError:  # the client has gone
                        return

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def said(content):
    return 200, {}, json.dumps({"choices": [{"message": {"content": content}}]}), 0


def failed(status, headers=None, text="", delay=0):
    return status, headers or {}, text, delay


GOOD = said("1. a sad cat\n2. a lost cat")


def ask(url, **settings):
    return EndpointProposer(url, "m", backoff=0.01, **settings).propose("a [cat]", SAD, [], 2, 7)


def test_endpoint_sends_what_is_needed(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Fake(said("1. a sad cat"), said("1. a lost cat"), GOOD) as fake:
        assert ask(fake.url, max_tokens=None) == ["a sad cat", "a lost cat"]
        monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
        assert ask(fake.url + "/api/v3") == ["a sad cat", "a lost cat"]
    (path, headers, body), (_, _, second), (other, with_key, third) = fake.requests
    assert path == "/v1/chat/completions"
    assert other == "/api/v3/chat/completions"
    assert body["model"] == "m"
    assert body["seed"] == 7
    assert second["seed"] != 7
    assert "max_tokens" not in body
    assert third["max_tokens"] == 1024
    assert "sadder" in body["messages"][0]["content"]
    assert "Authorization" not in headers
    assert with_key["Authorization"] == "Bearer from-the-environment"


def test_key_is_neither_shown_nor_recorded(caplog):
    reply = failed(401, text='{"error": {"message": "bad key"}}')
    proposer = EndpointProposer("http://127.0.0.1:1", "m", api_key="sk-secret")
    assert "sk-secret" not in repr(proposer)
    assert "sk-secret" not in json.dumps(dataclasses.asdict(proposer))
    with Fake(reply) as fake, pytest.raises(GenerationError, match=r"HTTP 401: bad key; .*OPENAI_API_KEY") as error:
        ask(fake.url, api_key="sk-secret")
    assert fake.requests[0][1]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(error.value) + caplog.text
    with Fake() as elsewhere, Fake(failed(307, {"Location": elsewhere.url})) as fake:
        with pytest.raises(GenerationError, match=r"HTTP 307.*not followed"):
            ask(fake.url, api_key="sk-secret")
        assert not elsewhere.requests


def test_endpoint_retries_a_bounded_number_of_times():
    with Fake(failed(429, {"Retry-After": "0"}), failed(503), GOOD) as fake:
        assert ask(fake.url) == ["a sad cat", "a lost cat"]
    with Fake(*[failed(500, text="it broke")] * 3) as fake:
        with pytest.raises(GenerationError, match=r"HTTP 500 \(3 requests\): it broke"):
            ask(fake.url, retries=2)
        assert len(fake.requests) == 3
    with Fake(failed(404, text='{"detail": "no model m"}')) as fake:
        with pytest.raises(GenerationError, match="HTTP 404: no model m"):
            ask(fake.url)
        assert len(fake.requests) == 1


def test_endpoint_waits_as_asked_but_not_for_ever(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    replies = [failed(429, {"Retry-After": "2"}), failed(429, {"Retry-After": "86400"}), failed(500), GOOD]
    with Fake(*replies) as fake:
        assert ask(fake.url)
    assert [wait for wait in waits if wait] == [2.0, 30.0, 0.04]


def test_endpoint_times_out():
    with Fake(failed(200, text="late", delay=0.6)) as fake, pytest.raises(GenerationError, match=r"within 0\.2 s"):
        ask(fake.url, timeout=0.2)
    trickle = failed(200, text=[" "] * 20, delay=0.05)
    with Fake(trickle) as fake, pytest.raises(GenerationError, match=r"within 0\.2 s"):
        ask(fake.url, timeout=0.2)


def test_endpoint_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(GenerationError, match=r"cannot be reached.*is the server up"):
        ask(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("text", ["<html>", "{}", '{"choices": []}', '{"choices": [{"message": null}]}', "[1]"])
def test_endpoint_of_another_form(text):
    with Fake(failed(200, text=text)) as fake, pytest.raises(GenerationError, match="expected an answer of OpenAI"):
        ask(fake.url)


def test_endpoint_answers_nonsense():
    with Fake(said("I cannot."), said(None), said("1. a dog")) as fake:
        assert ask(fake.url) == []
        assert len(fake.requests) == 3


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://user:pw@host", "http://host/?key=1"])
def test_endpoint_refuses_addresses(url):
    with pytest.raises(InputError, match="base_url"):
        EndpointProposer(url, "m")
    with pytest.raises(InputError, match="timeout"):
        EndpointProposer("http://host", "m", timeout=0)
