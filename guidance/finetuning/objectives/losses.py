"""What a fine-tuning step minimises, as pure functions of what the denoiser predicted.

All are written for any prediction (noise, velocity, clean latents): `output` is the denoiser's, `target` what it
should have been for the image in question. So with velocities they are flow matching, with noise DDPM's loss.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def denoising_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each prediction: (B, ...) -> (B,), float32.

    >>> import torch
    >>> denoising_error(torch.ones(2, 3), torch.tensor([[1.0, 1, 1], [0, 0, 3]])).tolist()
    [0.0, 2.0]
    """
    return (output.float() - target.float()).pow(2).flatten(1).mean(1)


def weighted_loss(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Reward-weighted regression: sum_i w_i |output_i - target_i|^2 (Peters & Schaal 2007; Lee et al. 2023, eq. 4).

    Args:
        output: (B, ...) predictions.
        target: (B, ...) what the denoising loss asks for.
        weights: (B,) of the images, from 0.

    Returns:
        (B,) loss of each.

    >>> import torch
    >>> weighted_loss(torch.zeros(2, 1), torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 0.5])).tolist()
    [1.0, 2.0]
    """
    return weights * denoising_error(output, target)


def nft_loss(output: Tensor, old: Tensor, target: Tensor, optimality: Tensor, beta: float = 1.0) -> Tensor:
    """Negative-aware fine-tuning of DiffusionNFT (Zheng et al. 2025, arXiv:2509.16117, eq. 5).

    An implicit positive model (1 - beta) old + beta output should predict images in so far as they are good, an
    implicit negative one (1 + beta) old - beta output in so far as they are bad. Each error is divided by its own
    mean absolute size, as the authors do in place of weights over noise levels.

    Args:
        output: (B, ...) predictions of the model in training.
        old: (B, ...) those of the model that drew the images, without a gradient.
        target: (B, ...) what the denoising loss asks for.
        optimality: (B,) how good each image is among those of its prompt, 0 to 1.
        beta: how far the two implicit models are from the old one; less takes bolder steps.

    Returns:
        (B,) loss of each.

    >>> import torch
    >>> old = torch.zeros(1, 2)
    >>> nft_loss(old, old, torch.ones(1, 2), torch.tensor([0.7])).tolist()
    [1.0]
    """
    output, old, target = output.float(), old.float(), target.float()
    toward = (1 - beta) * old + beta * output - target
    away = (1 + beta) * old - beta * output - target
    return optimality * _relative_square(toward) + (1 - optimality) * _relative_square(away)


def _relative_square(error: Tensor) -> Tensor:
    """Mean square of each error over its mean absolute size, which takes no gradient."""
    flat = error.flatten(1)
    return flat.pow(2).mean(1) / flat.detach().abs().mean(1).clamp_min(1e-5)


def dpo_loss(better: Tensor, worse: Tensor, reference_better: Tensor, reference_worse: Tensor, beta: float) -> Tensor:
    """Diffusion-DPO: -log sigmoid(-beta ((e_w - e_w^ref) - (e_l - e_l^ref))).

    Wallace et al. 2023, arXiv:2311.12908, eq. 14.

    Args:
        better: (P,) denoising error of the better image of each pair, at the same noise level and noise as the worse.
        worse: (P,) that of the worse.
        reference_better: (P,) the reference model's error for the better image.
        reference_worse: (P,) and for the worse.
        beta: strength of the tie to the reference; the paper's beta times the number of steps.

    Returns:
        (P,) loss of each pair, log 2 where the model is the reference.

    >>> import torch
    >>> error = torch.tensor([0.5])
    >>> dpo_loss(error, error, error, error, beta=10.0)
    tensor([0.6931])
    """
    margin = (better - reference_better) - (worse - reference_worse)
    return -logsigmoid(-beta * margin)
