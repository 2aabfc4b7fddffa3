"""The service over HTTP: what it answers, what it refuses, and that its answers tell nothing of the machine."""

import asyncio
import base64
import io
import json
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from tiny_diffusion import tiny_pipeline

from cogguided import BestOfN, FakeScorer
from cogguided._errors import InputError
from cogguided.integrations.serving import fetching
from cogguided.integrations.serving.app import build_app
from cogguided.integrations.serving.bodies import GenerateIn
from cogguided.integrations.serving.deployments import draw_wishes, facts_of, score_asks
from cogguided.integrations.serving.limits import Limits
from cogguided.integrations.serving.tokens import digest, find_token
from cogguided.pipelines import CogGuidedPipeline
from cogguided.scorers import load_target

TOKEN = "0123456789abcdef0123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def service(target=None, limits=None, pipe=None, urls=False, before=None):
    """A client of a service in this process, whose judge scores each request by itself."""
    target = target or load_target("fake")

    async def score(ask):
        if before is not None:
            await asyncio.to_thread(before)
        return score_asks(target, [ask])[0]

    async def draw(wish):
        return draw_wishes(pipe, [wish])[0]

    async def terms():
        return facts_of(target)

    app = build_app(score, draw if pipe else None, terms, limits or Limits(), digest(TOKEN), urls)
    return TestClient(app, headers=BEARER, raise_server_exceptions=False)


@contextmanager
def at_once(count, body, limits):
    """That client, and the replies to `count` requests of which none is done until one was answered."""
    let_go = threading.Event()
    replies = []
    with service(limits=limits, before=let_go.wait) as client:  # one event loop for all

        def ask():
            replies.append(client.post("/score", json=body))

        threads = [threading.Thread(target=ask) for _ in range(count)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 10
        while not replies and time.monotonic() < end:
            time.sleep(0.01)
        let_go.set()
        for thread in threads:
            thread.join()
        yield client, replies


def png(colour, size=(4, 4), kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def noise(kind):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def coded(data):
    return {"data": base64.b64encode(data).decode()}


def reasons(reply):
    return json.dumps(reply.json()["detail"])


# ---------------------------------------------------------------------- answers


def test_uploads_and_base64_get_the_scores_of_the_scorer():
    client = service()
    pictures = [png((50, 50, 50)), png((200, 200, 200), kind="JPEG")]
    by_json = client.post("/score", json={"images": [*map(coded, pictures)]})
    upload = client.post("/score", files=[("image", ("a.png", p, "image/png")) for p in pictures])
    assert by_json.status_code == upload.status_code == 200
    expected = FakeScorer()([Image.open(io.BytesIO(p)) for p in pictures]).values.tolist()
    found = [row["fake"]["value"] for row in by_json.json()["scores"]]
    assert found == pytest.approx(expected, abs=1e-6)
    assert upload.json() == by_json.json()
    uri = {"data": "data:image/png;base64," + coded(pictures[0])["data"]}
    assert client.post("/score", json={"images": [uri]}).json()["scores"] == by_json.json()["scores"][:1]


def test_a_score_that_there_is_not_is_null_with_its_reason():
    target = load_target(FakeScorer("odd", fn=lambda pixels: torch.full((1,), torch.nan)))
    row = service(target).post("/score", json={"images": [coded(png("red"))]}).json()["scores"][0]["odd"]
    assert row["value"] is None
    assert "not finite" in row["error"]


def test_prompts_go_with_their_images():
    target = load_target(FakeScorer("needy", needs_prompt=True))
    client = service(target, Limits(prompt=5))
    one = {"images": [coded(png("red"))]}
    assert client.post("/score", json={**one, "prompts": ["a cat"]}).status_code == 200
    assert client.post("/score", files={"image": png("red")}, data={"prompt": "a cat"}).status_code == 200
    for prompts, reason in ((None, "one prompt for each"), ([], "0 prompts"), (["a long one"], "5 characters")):
        reply = client.post("/score", json={**one, "prompts": prompts})
        assert reply.status_code == 422
        assert reason in reasons(reply)


def test_health_page_metrics_and_what_it_is():
    client = service()
    bare = TestClient(client.app)
    assert bare.get("/health").json() == {"status": "ok"}
    pages = bare.get("/openapi.json").json()["paths"]
    assert {"/score", "/generate", "/health", "/metrics"} <= set(pages)
    assert set(pages["/score"]["post"]["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert bare.get("/docs").status_code == 200
    about = client.get("/about").json()
    assert about["terms"] == [{"name": "fake", "low": 0.0, "high": 1.0, "needs_prompt": False}]
    client.post("/score", json={"images": [coded(png("red"))]})
    numbers = client.get("/metrics").text
    assert 'cogguided_requests_total{path="/score",status="200"} 1.0' in numbers
    assert "cogguided_images_per_pass_count 1.0" in numbers


@pytest.fixture(scope="module")
def pipe():
    pipe = CogGuidedPipeline.from_pipe(tiny_pipeline("sd15"), target="fake")
    pipe.set_progress_bar_config(disable=True)
    return pipe


WISH = {"prompt": "a cat", "seed": 3, "n": 3, "keep": 2, "num_inference_steps": 1, "width": 16, "height": 16}


def test_guided_images_are_those_of_the_pipeline(pipe):
    reply = service(pipe=pipe).post("/generate", json=WISH)
    assert reply.status_code == 200, reply.text
    size = {name: WISH[name] for name in ("num_inference_steps", "width", "height")}
    expected = pipe("a cat", seed=3, guidance=BestOfN(3, keep=2), **size)
    made = reply.json()["images"]
    assert [image["seed"] for image in made] == [c.seed for c in expected.chosen]
    for image, other in zip(made, expected.images, strict=True):
        assert Image.open(io.BytesIO(base64.b64decode(image["png"]))).tobytes() == other.tobytes()


def test_requests_that_are_drawn_together_each_get_their_own(pipe):
    wishes = [
        GenerateIn(**{**WISH, "prompt": prompt, "seed": seed, "n": n, "keep": 1})
        for prompt, seed, n in (("a cat", 1, 2), ("a dog", 2, 3), ("a face", 5, 2))
    ]
    together = draw_wishes(pipe, wishes)
    alone = [draw_wishes(pipe, [wish])[0] for wish in wishes]
    assert [d.images[0]["prompt"] for d in together] == ["a cat", "a dog", "a face"]
    assert [(d.images[0]["seed"], d.images[0]["scores"]) for d in together] == [
        (d.images[0]["seed"], pytest.approx(d.images[0]["scores"], abs=1e-2)) for d in alone
    ]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"n": 17}, "at most 16"),
        ({"keep": 9}, "at most n"),
        ({"width": 17}, "this size"),
        ({"width": 9_999_999}, "pixels"),
        ({"num_inference_steps": 101}, "at most 100"),
        ({"prompt": "x" * 2001}, "2000 characters"),
        ({"nonsense": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_drawn_is_422(pipe, more, reason):
    refused = service(pipe=pipe).post("/generate", json={**WISH, **more})
    assert refused.status_code == 422
    assert reason in reasons(refused)


def test_without_a_generator_there_is_none():
    assert service().post("/generate", json=WISH).status_code == 404


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"])
def test_without_the_token_nothing_is_told(header):
    bare = TestClient(service().app)
    headers = {} if header is None else {"Authorization": header.encode()}
    for method, path in (("POST", "/score"), ("GET", "/about"), ("GET", "/metrics"), ("GET", "/nowhere")):
        reply = bare.request(method, path, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"


def test_what_is_too_much_is_refused():
    client = service(limits=Limits(body=4000, pixels=100, images=2))
    small = png("red", (9, 9))
    cases = [
        (413, {"content": b"x" * 5000, "headers": {"Content-Type": "application/json"}}, "more than 4000 bytes"),
        (413, {"content": iter([b"x" * 3000] * 2), "headers": {"Content-Type": "application/json"}}, "4000 bytes"),
        (422, {"json": {"images": [coded(png("red", (11, 10)))]}}, "11x10 is more than 100 pixels"),
        (422, {"json": {"images": [coded(small)] * 3}}, "3 images are more than 2"),
        (422, {"json": {"images": []}}, "at least 1"),
        (415, {"content": b"x", "headers": {"Content-Type": "text/plain"}}, "expected application/json"),
    ]
    for status, request, reason in cases:
        reply = client.post("/score", **request)
        assert reply.status_code == status, reply.text
        assert reason in reasons(reply)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no picture", "no picture in one of PNG"),
        (noise("PNG")[:3000], "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "no picture in one of PNG"),
        (noise("JPEG")[:2000], "cannot be read"),
        (b"", "no picture in one of PNG"),
    ],
)
def test_a_broken_image_is_422_with_the_reason(data, reason):
    reply = service().post("/score", json={"images": [coded(png("red")), coded(data)]})
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["image"] == 1
    assert reason in reasons(reply)
    assert "0x" not in reply.text
    assert "/" not in reasons(reply)


def test_a_scorer_that_raises_tells_nothing_of_the_machine(caplog):
    def fail(pixels):
        raise RuntimeError(f"out of luck in {__file__}")

    reply = service(load_target(FakeScorer("failing", fn=fail))).post("/score", json={"images": [coded(png("red"))]})
    assert reply.status_code == 500
    assert reply.json() == {"detail": [{"reason": "it failed here; the service's log says why"}]}
    assert "out of luck" in caplog.text


def test_when_the_queue_is_full_it_says_when_to_come_again():
    with at_once(3, {"images": [coded(png("red"))]}, Limits(queue=2)) as (client, replies):
        assert sorted(reply.status_code for reply in replies) == [200, 200, 503]
        refused = next(reply for reply in replies if reply.status_code == 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert "cogguided_refused_total 1.0" in client.get("/metrics").text


def test_small_files_of_many_pixels_do_not_fill_the_memory():
    large = coded(png("red", (10, 10)))
    client = service(limits=Limits(pixels=100))
    reply = client.post("/score", json={"images": [large] * 5})
    assert reply.status_code == 422
    assert "500 pixels together, more than 400" in reasons(reply)
    with at_once(5, {"images": [large] * 4}, Limits(pixels=100)) as (client, replies):
        assert sorted(reply.status_code for reply in replies) == [200] * 4 + [503]
        assert client.post("/score", json={"images": [large] * 4}).status_code == 200


def test_a_body_that_does_not_come_gives_its_place_up():
    app = service(limits=Limits(seconds=0.1)).app
    kind = [(b"authorization", BEARER["Authorization"].encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/score", "headers": kind, "query_string": b""}
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408
    assert app.inside == 0


def test_a_request_that_takes_too_long_is_504():
    late = service(limits=Limits(seconds=0.7), before=lambda: time.sleep(1.5))
    assert late.post("/score", json={"images": [coded(png("red"))]}).status_code == 504


# ---------------------------------------------------------------------- URLs


def test_urls_are_off_unless_allowed_and_never_lead_inside():
    reply = service().post("/score", json={"images": [{"url": "https://example.org/a.png"}]})
    assert reply.status_code == 422
    assert "fetches no URLs" in reasons(reply)
    client = service(urls=True)
    hosts = ["127.0.0.1", "[::1]", "169.254.169.254", "10.1.2.3", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost"]
    for url in [f"http://{host}/a.png" for host in [*hosts, "2130706433"]]:
        reply = client.post("/score", json={"images": [{"url": url}]})
        assert reply.status_code == 422
        assert "not public" in reasons(reply), url
    others = {"file:///etc/passwd": "https://host", "http://a:b@example.org/": "login", "http://e.org:22/": "port"}
    for url, reason in others.items():
        reply = client.post("/score", json={"images": [{"url": url}]})
        assert reply.status_code == 422
        assert reason in reasons(reply)


def test_a_name_with_one_inner_address_is_refused(monkeypatch):
    found = [(None, None, None, "", (ip, 80)) for ip in ("93.184.216.34", "192.168.0.1")]
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *a, **k: found)
    with pytest.raises(InputError, match="not public"):
        fetching.fetch("http://two-faced.example/", 100)


def test_what_a_url_has_is_bounded_and_redirects_are_not_followed(monkeypatch):
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.headers["Host"].startswith("pictures.example")
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", "http://127.0.0.1/")
            self.end_headers()
            self.wfile.write(png("red") if self.path == "/a.png" else b"x" * 5000)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        monkeypatch.setattr(fetching, "PORTS", (port,))
        monkeypatch.setattr(fetching, "public_address", lambda host, port: "127.0.0.1")
        base = f"http://pictures.example:{port}"
        assert fetching.fetch(f"{base}/a.png", 1000) == png("red")
        with pytest.raises(InputError, match="more than 1000 bytes"):
            fetching.fetch(f"{base}/long", 1000)
        with pytest.raises(InputError, match="answered 302"):
            fetching.fetch(f"{base}/moved", 1000)
        server.shutdown()


# ---------------------------------------------------------------------- tokens


def test_a_token_is_made_once_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("COGGUIDED_TOKEN", raising=False)
    token, file, made = find_token()
    assert made
    assert len(token) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert find_token() == (token, file, False)
    monkeypatch.setenv("COGGUIDED_TOKEN", TOKEN)
    assert find_token() == (TOKEN, None, False)
    (tmp_path / "short").write_text("abc")
    with pytest.raises(InputError, match="token of 16 or more"):
        find_token(tmp_path / "short")
