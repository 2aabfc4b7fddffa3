"""Runs in ComfyUI's folder: its own node loader, validation and executor, headless on the CPU.

    python comfyui_worker.py NODES WORKFLOW OUT
"""

import asyncio
import json
import os
import sys
from types import SimpleNamespace

nodes_folder, workflow, out = sys.argv[1:]
sys.argv = ["main.py", "--cpu", "--output-directory", out]
sys.path.insert(0, os.getcwd())
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import comfy.model_base  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models  # noqa: E402
import comfy.utils  # noqa: E402
import execution  # noqa: E402
import folder_paths  # noqa: E402
import nodes  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402

folder_paths.set_output_directory(out)
torch.manual_seed(0)


class Tiny:
    """A checkpoint of random weights: ComfyUI's own U-Net, VAE and patcher, at tiny size."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ("MODEL", "CONDITIONING", "VAE")
    FUNCTION = "load"
    CATEGORY = "test"

    def load(self):
        config = comfy.supported_models.SD15(
            {
                "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1],
                "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1],
                "transformer_depth_middle": 0, "use_spatial_transformer": True, "context_dim": 8, "legacy": False,
                "use_linear_in_transformer": False, "dtype": torch.float32,
            }
        )  # fmt: skip
        config.unet_config["num_heads"] = 2
        model = config.get_model({})
        for parameter in model.diffusion_model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
        size = {
            "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
            "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
        }  # fmt: skip
        weights = AutoencoderKL(ddconfig=size, embed_dim=4).state_dict()
        weights = {name: torch.randn_like(weight) * 0.1 for name, weight in weights.items()}
        vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": size, "embed_dim": 4}})
        return patcher, [[torch.randn(1, 3, 8), {}]], vae


def server():
    told = []

    def send_sync(event, data, sid=None):
        told.append(event)

    return SimpleNamespace(client_id="test", last_node_id=None, last_prompt_id=None, send_sync=send_sync, told=told)


def run(graph):
    valid = asyncio.run(execution.validate_prompt("id", graph, None))
    assert valid[0], valid
    host = server()
    executor = execution.PromptExecutor(host, cache_args={"ram": 0.0, "lru": 0})
    executor.execute(graph, "id", {}, valid[2])
    said = [(name, data) for name, data in executor.status_messages if "error" in name or "interrupted" in name]
    return executor.history_result["outputs"], said


nodes.NODE_CLASS_MAPPINGS["Tiny"] = Tiny
assert asyncio.run(nodes.load_custom_node(nodes_folder))
seen = []
comfy.utils.set_progress_bar_global_hook(lambda value, total, *rest, **facts: seen.append((value, total)))
with open(workflow, encoding="utf-8") as file:
    graph = json.load(file)
graph = {key: node for key, node in graph.items() if key not in "23"}
graph["1"] = {"class_type": "Tiny", "inputs": {}}
graph["6"]["inputs"].update(positive=["1", 1], negative=["1", 1], steps=3, draft_steps=2)
graph["4"]["inputs"].update(width=64, height=64)
wordings = {"prompt": "a face", "target": ["5", 0], "count": 3, "seed": 0}
graph["10"] = {"class_type": "CogGuidedRewritePrompt", "inputs": wordings}
graph["11"] = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 3, "color": 255}}
best = {"images": ["11", 0], "target": ["5", 0], "keep": 2, "prompt": ""}
graph["12"] = {"class_type": "CogGuidedPickBest", "inputs": best}
graph["13"] = {"class_type": "PreviewAny", "inputs": {"source": ["12", 2]}}
graph["14"] = {"class_type": "PreviewAny", "inputs": {"source": ["10", 0]}}
graph["15"] = {"class_type": "PreviewAny", "inputs": {"source": ["6", 2]}}
extra = os.path.join(os.getcwd(), "comfy_extras", "nodes_preview_any.py")
assert asyncio.run(nodes.load_custom_node(extra, module_parent="comfy_extras"))
outputs, said = run(graph)
bars, seen = seen, []


def press_stop(value, total, *rest, **facts):
    """The button, pressed when the first of three images is scored."""
    seen.append((value, total))
    comfy.model_management.interrupt_current_processing(True)


comfy.utils.set_progress_bar_global_hook(press_stop)
score = {"class_type": "CogGuidedScore", "inputs": {**graph["8"]["inputs"], "images": ["11", 0]}}
_, stopped = run({"11": graph["11"], "8": score})
told = {"outputs": outputs, "said": said, "bars": bars, "stopped": [name for name, _ in stopped], "at": seen}
print(json.dumps(told, default=str))
