"""The nodes in a real ComfyUI, headless: its folder is named by COGGUIDED_COMFYUI, as PyPI does not have it."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_sd3
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "integrations" / "comfyui"
WORKFLOW = json.loads((NODES / "workflow_api.json").read_text())


class Host:
    """A running ComfyUI, spoken to over its API."""

    def __init__(self, base: Path, port: int, program: subprocess.Popen) -> None:
        self.base, self.at, self.program = base, f"http://127.0.0.1:{port}", program

    @property
    def log(self) -> str:
        return (self.base / "log.txt").read_text()

    async def when_up(self, session, seconds: int = 240):
        """Return what its nodes take, once it answers."""
        import aiohttp

        end = time.monotonic() + seconds
        while time.monotonic() < end and self.program.poll() is None:
            try:
                async with session.get(f"{self.at}/object_info") as answer:
                    return await answer.json()
            except aiohttp.ClientError:
                await asyncio.sleep(0.5)
        raise AssertionError(self.log[-4000:])

    async def _run(self, graph, interrupt):
        import aiohttp

        seen = []
        async with aiohttp.ClientSession() as session:
            await self.when_up(session)
            async with session.ws_connect(f"{self.at}/ws?clientId=test", max_msg_size=0) as told:
                async with session.post(f"{self.at}/prompt", json={"prompt": graph, "client_id": "test"}) as answer:
                    sent = await answer.json()
                    assert answer.status == 200, sent
                while True:
                    message = await told.receive(timeout=600)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        continue  # a preview
                    event = json.loads(message.data)
                    seen.append((event["type"], event["data"]))
                    if event["type"] == "progress" and interrupt:
                        await session.post(f"{self.at}/interrupt", json={})
                    if event["type"] in ("execution_success", "execution_error", "execution_interrupted"):
                        break
            async with session.get(f"{self.at}/history/{sent['prompt_id']}") as answer:
                history = await answer.json()
        return history[sent["prompt_id"]]["outputs"], seen

    def run(self, graph, interrupt=False):
        """Run a graph, or press its stop button when the first bar moves; return its outputs and all events."""
        return asyncio.run(self._run(graph, interrupt))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    comfyui = os.environ["COGGUIDED_COMFYUI"]
    base = tmp_path_factory.mktemp("comfyui")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "cogguided").symlink_to(NODES)
    (base / "models" / "checkpoints").mkdir(parents=True)
    tiny_sd3.save(base / "models" / "checkpoints" / "model.safetensors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(ROOT.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
    with open(base / "log.txt", "w") as log:
        program = subprocess.Popen(
            [*command, "--database-url", "sqlite:///:memory:"],
            cwd=comfyui, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield Host(base, port, program)
        finally:
            program.terminate()
            program.wait(30)
            (base / "models" / "checkpoints" / "model.safetensors").unlink()  # a quarter of a gigabyte


def progress(seen, node):
    return [(data["value"], data["max"]) for kind, data in seen if kind == "progress" and data["node"] == node]


@pytest.mark.slow  # needs a checkout of ComfyUI with its requirements
def test_the_workflow_runs_end_to_end_over_the_api(host):
    """As the file stands, from the host's own checkpoint loader to its own image writer."""
    shown = {key: {"class_type": "PreviewAny", "inputs": {"source": source}} for key, source in SHOWN.items()}
    outputs, seen = host.run({**WORKFLOW, **shown})
    assert seen[-1][0] == "execution_success", seen[-1]
    assert "missing" not in host.log, "a checkpoint with all weights that the host looks for"
    wordings, tables, best = (outputs[key]["text"] for key in SHOWN)
    assert wordings[0] == "a face"
    assert len(set(wordings)) == 3
    assert len(tables) == 3, "a table for each wording"
    for table in tables:
        rows = [float(line.split()[1]) for line in table.splitlines()[1:]]
        assert len(rows) == 4
        assert len(set(rows)) > 1, "drafts that differ"
        assert rows == sorted(rows, reverse=True)
    assert progress(seen, "6").count((4, 4)) >= 3, "progress over the drafts"
    valence = [float(line.split()[2]) for line in outputs["8"]["text"][0].splitlines()[1:]]
    assert len(set(valence)) == 3
    chosen = best[0].splitlines()[1].split()
    assert float(chosen[2]) == valence[int(chosen[0])]
    (saved,) = outputs["9"]["images"]
    with Image.open(host.base / "output" / saved["filename"]) as image:
        assert image.size == (512, 512)
        assert len(image.getcolors(2**18)) > 1000


SHOWN = {"20": ["10", 0], "21": ["6", 2], "22": ["12", 2]}  # wordings, tables of drafts, the best


@pytest.mark.slow  # needs a checkout of ComfyUI with its requirements
def test_the_stop_button_ends_scoring_after_the_image_at_hand(host):
    images = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 500, "color": 255}}
    score = {"class_type": "CogGuidedScore", "inputs": {**WORKFLOW["8"]["inputs"], "images": ["1", 0]}}
    _, seen = host.run({"1": images, "2": score}, interrupt=True)
    assert seen[-1][0] == "execution_interrupted"
    assert 0 < progress(seen, "2")[-1][0] < 250


def test_the_workflow_has_all_nodes_that_there_are():
    source = (NODES / "nodes.py").read_text()
    names = {node["class_type"] for node in WORKFLOW.values()}
    assert source.count("node_id=") == 5
    for name in ("Target", "Score", "PickBest", "Sampler", "RewritePrompt"):
        assert f'node_id="CogGuided{name}"' in source
        assert f"CogGuided{name}" in names
    for node in WORKFLOW.values():
        for value in node["inputs"].values():
            assert not isinstance(value, list) or value[0] in WORKFLOW
