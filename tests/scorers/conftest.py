import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cogguided.scorers import DIMENSIONS

torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other

# pytest's importlib mode puts no folder on sys.path: the helper beside this file is imported by its path.
_SPEC = importlib.util.spec_from_file_location("tiny_mllm", Path(__file__).with_name("tiny_mllm.py"))
tiny_mllm = importlib.util.module_from_spec(_SPEC)
sys.modules["tiny_mllm"] = tiny_mllm
_SPEC.loader.exec_module(tiny_mllm)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a tiny random model of a family, made once a session."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = tiny_mllm.build(family, tmp_path_factory.mktemp(family) / "model")
            facts = {"name": f"tiny {family}", "questions": {name: f"{name}?" for name in DIMENSIONS}}
            (made[family] / "cogguided_scorer.json").write_text(json.dumps(facts))
        return made[family]

    return get


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Pictures of very different sizes and shapes."""
    return [noise(40, 60), noise(90, 30, 1), noise(28, 28, 2)]
