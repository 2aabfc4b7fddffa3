"""ComfyUI's custom nodes of cogguided: link this folder into ComfyUI's `custom_nodes`."""

from .nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
