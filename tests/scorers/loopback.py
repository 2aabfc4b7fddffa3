"""A real server of chat completions on loopback, with a real model behind it whose log probabilities are true."""

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from PIL import Image

from cogguided.scorers.mllm.branching import Reruns
from cogguided.scorers.mllm.prompting import build_prompts, stop_tokens
from cogguided.scorers.mllm.scorer import MLLMScorer

LOCK = threading.Lock()


@contextlib.contextmanager
def running(answer: Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]) -> Iterator[str]:
    """The address of a server that lets `answer` deal with every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with contextlib.suppress(ConnectionError):  # a client that gave up
                answer(self, body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(handler: BaseHTTPRequestHandler, data: object, status: int = 200, **headers: str) -> None:
    """Answer with JSON, or with bytes as they are."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(raw)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(raw)


class Chat:
    """Answers requests by a local model, greedily; `continues` and `logprobs` are what the server can do."""

    def __init__(self, scorer: MLLMScorer, continues: bool = True, logprobs: bool = True) -> None:
        self.scorer, self.continues, self.logprobs = scorer, continues, logprobs
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with LOCK:
            self.requests.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            reply(handler, {"choices": [self.choice(body)]})

    @torch.inference_mode()
    def choice(self, body: dict[str, Any]) -> dict[str, Any]:
        *_, user = (m for m in body["messages"] if m["role"] == "user")
        url, text = user["content"][0]["image_url"]["url"], user["content"][1]["text"]
        picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        processor: Any = self.scorer.processor
        tokenizer, model = processor.tokenizer, self.scorer.model
        inputs = build_prompts(processor, [picture], [text])
        begun = body["messages"][-1]["content"] if body["messages"][-1]["role"] == "assistant" else ""
        said = tokenizer(begun, add_special_tokens=False)["input_ids"] if self.continues else []
        new: list[int] = []
        steps = []
        for _ in range(body["max_tokens"]):
            path = [*said, *new]
            runs = Reruns(model, inputs, [inputs["input_ids"].shape[1]])
            after = runs.extend([path], [[*range(-1, len(path) - 1)]]) if path else model(**inputs).logits
            logprobs = after[0, -1].log_softmax(-1)
            top = logprobs.topk(body.get("top_logprobs", 1))
            steps.append(
                {
                    "token": tokenizer.decode([top.indices[0]]),
                    "logprob": top.values[0].item(),
                    "top_logprobs": [
                        {"token": tokenizer.decode([i]), "logprob": v}
                        for v, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)
                    ],
                }
            )
            if int(top.indices[0]) in stop_tokens(model, processor):
                break
            new.append(int(top.indices[0]))
        content = tokenizer.decode(new, skip_special_tokens=True)
        found: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": content}}
        if self.logprobs and body.get("logprobs"):
            found["logprobs"] = {"content": steps}
        return found
