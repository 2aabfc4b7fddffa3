"""The nodes in a real ComfyUI, headless: its folder is named by COGGUIDED_COMFYUI, as PyPI does not have it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "integrations" / "comfyui"


@pytest.mark.slow  # needs a checkout of ComfyUI with its requirements
def test_a_workflow_runs_end_to_end_in_comfyui(tmp_path):
    host = os.environ["COGGUIDED_COMFYUI"]
    worker = ROOT / "tests" / "integrations" / "comfyui_worker.py"
    linked = tmp_path / "cogguided-nodes"
    linked.symlink_to(NODES)
    path = os.pathsep.join([str(ROOT.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(worker), str(linked), str(NODES / "workflow_api.json"), str(tmp_path)],
        cwd=host, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["said"] == []
    outputs = told["outputs"]
    assert len(outputs["15"]["text"][0].splitlines()) == 5, "a table of four drafts"
    assert "emotional_valence" in outputs["8"]["text"][0]
    assert len(outputs["13"]["text"][0].splitlines()) == 3
    assert outputs["14"]["text"][0] == "a face"
    assert len(set(outputs["14"]["text"])) == 4
    saved = outputs["9"]["images"][0]["filename"]
    with Image.open(tmp_path / saved) as image:
        assert image.size == (64, 64)
    assert told["stopped"] == ["execution_interrupted"]
    assert told["at"] == [[1, 3]], "stopped before the second image"
    assert [4, 4] in told["bars"], "progress over the drafts"


def test_the_workflow_names_the_nodes_that_there_are():
    graph = json.loads((NODES / "workflow_api.json").read_text())
    source = (NODES / "nodes.py").read_text()
    for node in graph.values():
        name = node["class_type"]
        assert not name.startswith("CogGuided") or f'node_id="{name}"' in source
        for value in node["inputs"].values():
            assert not isinstance(value, list) or value[0] in graph
