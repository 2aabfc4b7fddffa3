"""A tiny checkpoint in Stable Diffusion 3's published key layout, of random weights.

ComfyUI reads the sizes of this family's transformer and autoencoder from their tensors, so both are tiny: a
transformer of two blocks, 128 wide, and a TAESD of 16 channels. Text encoders have one size: this is CLIP-L,
whose 123 million weights in fp16 are nearly all of the file's 250 MB.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH = 128  # 64 for each block
LAST = "taesd_decoder.19"
SIDE = 64  # of the table of positions, in patches


def linear(name: str, into: int, out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def conv(name: str, into: int, out: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into, 3, 3)} | ({f"{name}.bias": (out,)} if bias else {})


def transformer() -> dict[str, tuple[int, ...]]:
    shapes = {
        "x_embedder.proj.weight": (WIDTH, 16, 2, 2), "x_embedder.proj.bias": (WIDTH,),
        "pos_embed": (1, SIDE * SIDE, WIDTH),
        **linear("t_embedder.mlp.0", 256, WIDTH), **linear("t_embedder.mlp.2", WIDTH, WIDTH),
        **linear("y_embedder.mlp.0", 768 + 1280, WIDTH), **linear("y_embedder.mlp.2", WIDTH, WIDTH),
        **linear("context_embedder", 4096, WIDTH),
        **linear("final_layer.linear", WIDTH, 2 * 2 * 16),
        **linear("final_layer.adaLN_modulation.1", WIDTH, 2 * WIDTH),
    }  # fmt: skip
    blocks = WIDTH // 64
    for block in range(blocks):
        for stream in ("x_block", "context_block"):
            at = f"joint_blocks.{block}.{stream}"
            last = stream == "context_block" and block == blocks - 1  # gives keys and values only
            shapes |= linear(f"{at}.attn.qkv", WIDTH, 3 * WIDTH)
            shapes |= linear(f"{at}.adaLN_modulation.1", WIDTH, (2 if last else 6) * WIDTH)
            if not last:
                shapes |= linear(f"{at}.attn.proj", WIDTH, WIDTH)
                shapes |= linear(f"{at}.mlp.fc1", WIDTH, 4 * WIDTH) | linear(f"{at}.mlp.fc2", 4 * WIDTH, WIDTH)
    return shapes


def taesd() -> dict[str, tuple[int, ...]]:
    def coder(name: str, kinds: str, into: int, out: int) -> dict[str, tuple[int, ...]]:
        """`i`: in, `b`: a block, `s`: a convolution without bias, `o`: out, `-`: a layer without weights."""
        shapes: dict[str, tuple[int, ...]] = {}
        for place, kind in enumerate(kinds):
            at = f"{name}.{place}"
            if kind == "b":
                for layer in (0, 2, 4):
                    shapes |= conv(f"{at}.conv.{layer}", 64, 64)
            elif kind != "-":
                shapes |= conv(at, into if kind == "i" else 64, out if kind == "o" else 64, kind != "s")
        return shapes

    decoder = coder("taesd_decoder", "-i-bbb-sbbb-sbbb-sbo", 16, 3)
    encoder = coder("taesd_encoder", "ibsbbbsbbbsbbbo", 3, 16)
    return {**encoder, **decoder, "vae_scale": (), "vae_shift": ()}


def clip_l() -> dict[str, tuple[int, ...]]:
    shapes = {
        "text_model.embeddings.token_embedding.weight": (49408, 768),
        "text_model.embeddings.position_embedding.weight": (77, 768),
        **norm("text_model.final_layer_norm", 768),
    }
    for layer in range(12):
        at = f"text_model.encoder.layers.{layer}"
        shapes |= norm(f"{at}.layer_norm1", 768) | norm(f"{at}.layer_norm2", 768)
        for part in "qkv":
            shapes |= linear(f"{at}.self_attn.{part}_proj", 768, 768)
        shapes |= linear(f"{at}.self_attn.out_proj", 768, 768)
        shapes |= linear(f"{at}.mlp.fc1", 768, 3072) | linear(f"{at}.mlp.fc2", 3072, 768)
    return shapes


def drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Weights that keep the size of what passes through them; norms and scales of 1, biases of 0."""
    if name == LAST + ".bias":
        return torch.full(shape, 0.5)
    if name.endswith("bias") or name == "vae_shift":
        return torch.zeros(shape)
    if len(shape) < 2:
        return torch.ones(shape)
    if "embedding" in name or name == "pos_embed":
        return torch.randn(shape, generator=generator) * 0.02
    kept = 0.15 if name == LAST + ".weight" else 0.3 if ".conv.4." in name else 1.0  # a picture of many colours
    return torch.randn(shape, generator=generator) * kept * (2 / torch.tensor(shape[1:]).prod()).sqrt()


def save(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [
        ("model.diffusion_model.", transformer(), torch.float32),
        ("first_stage_model.", taesd(), torch.float32),
        ("text_encoders.clip_l.transformer.", clip_l(), torch.float16),
    ]
    save_file(
        {
            prefix + name: drawn(name, shape, generator).to(dtype)
            for prefix, shapes, dtype in parts
            for name, shape in shapes.items()
        },
        path,
    )
