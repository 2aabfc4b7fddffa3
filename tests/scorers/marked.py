"""Which of the tiny MLLMs the default tests take through everything: relatives of others are `slow`."""

import pytest
from tiny_mllm import FAMILIES

RELATIVES = {"qwen2_vl", "qwen3_vl", "llava_onevision", "internvl"}
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in RELATIVES else name for name in FAMILIES]
