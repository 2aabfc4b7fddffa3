"""The classes that tiny_diffusion and tiny_listeners build."""

import tiny_diffusion
import tiny_listeners
from diffusers import DiffusionPipeline

from .registry import FAMILIES, Family

CLASSES = {
    "StableDiffusionPipeline": "sd15",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "PixArtSigmaPipeline": "pixart_sigma",
    "SanaPipeline": "sana",
    "QwenImagePipeline": "qwen_image",
    "ZImagePipeline": "z_image",
    "QwenImage21Pipeline": "qwen_image_21",
    "HunyuanImagePipeline": "hunyuan_image",
    "LongCatImagePipeline": "longcat_image",
    "Kandinsky5T2IPipeline": "kandinsky5",
    "OvisImagePipeline": "ovis_image",
    "Flux2Pipeline": "flux2",
    "Krea2Pipeline": "krea2",
}
QUICK = ("StableDiffusionPipeline",)


def _register(name: str, short: str) -> None:
    make = {**tiny_diffusion.BUILDERS, **tiny_listeners.LISTENERS}[short]
    call = {**tiny_diffusion.CALL, **tiny_listeners.LISTENER_CALL}[short]

    def build() -> DiffusionPipeline:
        return make()

    FAMILIES[name] = Family(build, call, quick=name in QUICK)


for _name, _short in CLASSES.items():
    _register(_name, _short)
