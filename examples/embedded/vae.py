"""Train the AutoencoderKLQwenImage: the decoder draws pictures from the latents, the encoder learns to give
them.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from common import CACHE, WEIGHTS, train
from data import STYLES, concepts, fetch, pictures, world
from diffusers import AutoencoderKLQwenImage
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from generator import DRAWN, SIZE, sheet
from latents import CHANNELS, encode, load
from torch import Tensor
from torch.nn.functional import conv2d, l1_loss, mse_loss

LOG_VARIANCE = -12.0


def build() -> AutoencoderKLQwenImage:
    torch.manual_seed(0)
    return AutoencoderKLQwenImage(
        base_dim=24, z_dim=CHANNELS, dim_mult=[1, 2, 4, 4], num_res_blocks=1, attn_scales=[],
        temperal_downsample=[False] * 3, latents_mean=[0.0] * CHANNELS, latents_std=[1.0] * CHANNELS,
    )  # fmt: skip


def flat_forward(self: QwenImageCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    """A causal 3-D convolution of a single frame sees it through its last time slice alone: exactly this
    2-D one.
    """
    padding = (self._padding[2], self._padding[0])
    return conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=padding)[:, :, None]


def flatten(model: AutoencoderKLQwenImage) -> None:
    """Zero what a single frame never reaches, and train by the 2-D form: the same function at a third of
    the work.
    """
    QwenImageCausalConv3d.forward = flat_forward
    for module in model.modules():
        if isinstance(module, QwenImageCausalConv3d):
            module.weight.data[:, :, :-1] = 0


def edges(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1]


def picture_loss(made: Tensor, real: Tensor) -> Tensor:
    """Absolute error of the pixels, of their differences (edges), and of the picture at half the size."""
    sharp = sum(l1_loss(a, b) for a, b in zip(edges(made), edges(real), strict=True))
    return l1_loss(made, real) + sharp + mse_loss(made, real)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15, help="for the decoder; the encoder takes a third more")
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    fetch(CACHE)
    chosen = world(concepts(CACHE))
    basis = load(CACHE / "basis.pt", torch.from_numpy(pictures(CACHE, chosen, SIZE, DRAWN)["pixels"]))
    pixels = torch.from_numpy(pictures(CACHE, chosen, SIZE, STYLES)["pixels"])
    table = encode(basis, pixels)
    real = (pixels.float() / 127.5 - 1).permute(0, 3, 1, 2)
    model = build()
    flatten(model)
    torch.manual_seed(0)

    def decoded(step: int) -> Tensor:
        rows = torch.randint(len(table), (args.batch,))
        # The generator's latents are never exact: the decoder learns to draw cleanly from slightly wrong
        # ones.
        z = table[rows]
        z = z + torch.rand(len(z), 1, 1, 1) * 0.15 * torch.randn_like(z)
        made = model.decoder(model.post_quant_conv(z[:, :, None]))[:, :, 0]
        return picture_loss(made, real[rows])

    def encoded(step: int) -> Tensor:
        rows = torch.randint(len(table), (args.batch,))
        mean, log_variance = model.quant_conv(model.encoder(real[rows][:, :, None]))[:, :, 0].chunk(2, dim=1)
        return mse_loss(mean, table[rows]) + 1e-3 * mse_loss(log_variance, torch.full_like(mean, LOG_VARIANCE))

    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)
    train("decoder", model, decoded, args.minutes, lr=2e-3, weight_decay=0.0, decay=0.5)
    model.requires_grad_(False)
    model.encoder.requires_grad_(True)
    model.quant_conv.requires_grad_(True)
    train("encoder", model, encoded, args.minutes / 3, lr=2e-3, weight_decay=0.0, decay=0.5)
    model.half().save_pretrained(WEIGHTS / "vae")
    report(model.float(), table, real)


@torch.no_grad()
def report(model: AutoencoderKLQwenImage, table: Tensor, real: Tensor) -> None:
    """Print how well pictures come back, from the latents and through the encoder, and keep a sheet of
    them.
    """
    rows = torch.from_numpy(np.random.default_rng(1).choice(len(table), 64, replace=False))
    given = model.decoder(model.post_quant_conv(table[rows][:, :, None]))[:, :, 0]
    mean = model.quant_conv(model.encoder(real[rows][:, :, None]))[:, :CHANNELS]
    whole = model.decoder(model.post_quant_conv(mean))[:, :, 0]
    for name, made in (("latents", given), ("encoder", whole)):
        error = ((made.clamp(-1, 1) - real[rows]) ** 2).mean((1, 2, 3)) / 4
        print(f"{name}: {(-10 * error.log10()).mean():.2f} dB")
    sheet(torch.stack([real[rows], given, whole], 1).flatten(0, 1)[:96], 12).save(CACHE / "vae.png")


if __name__ == "__main__":
    main()
