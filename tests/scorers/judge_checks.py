"""What every judge must do, whatever it computes: checked on a tiny one by each judge's own test."""

import pytest
import torch

from cogguided._errors import InputError
from cogguided.scorers.base import Scorer
from cogguided.scorers.images import to_tensor

PROMPTS = ["a low picture", "very high", "a positive picture of a very high neutral medium"]


def check_frame(judge, pictures, tmp_path, atol):
    """Batches, broken images, the caller's settings of torch; `atol` is 1e-4 of the judge's range, or less."""
    assert isinstance(judge, Scorer)
    assert judge.low < judge.high
    prompts = PROMPTS if judge.needs_prompt else [""] * 3
    singles = torch.cat([judge([i], [p]).values for i, p in zip(pictures, prompts, strict=True)])
    assert singles.isfinite().all()
    assert len(set(singles.tolist())) == 3, "a judge that gives every image the same has not looked"
    torch.testing.assert_close(judge(pictures, prompts).values, singles, atol=atol, rtol=0)
    judge.batch_size, before = 2, judge.batch_size
    torch.testing.assert_close(judge(pictures, prompts).values, singles, atol=atol, rtol=0)
    judge.batch_size = before

    broken = judge([tmp_path / "missing.png", pictures[1]], prompts[:2])
    assert broken.valid.tolist() == [False, True]
    assert "missing.png" in broken.errors[0]
    torch.testing.assert_close(broken.values[1:], singles[1:2], atol=atol, rtol=0)
    assert len(judge([], [])) == 0
    tensor = torch.rand(2, 3, 32, 32)
    tensor[0, 0, 0, 0] = torch.nan
    assert judge(tensor, prompts[:2]).valid.tolist() == [False, True]

    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            disturbed = judge(pictures, prompts)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(disturbed.values, singles, atol=atol, rtol=0)
    assert not disturbed.values.requires_grad
    if judge.needs_prompt:
        with pytest.raises(InputError, match="prompts"):
            judge(pictures)
    assert judge.to("cpu") is judge


def check_gradient(judge, picture, atol):
    """The gradient of pixels is there, is that of finite differences, and no weight gets one."""
    prompt = PROMPTS[:1]
    pixels = to_tensor([picture]).requires_grad_()
    scores = judge(pixels, prompt)
    torch.testing.assert_close(scores.values.detach(), judge([picture], prompt).values, atol=atol, rtol=0)
    (gradient,) = torch.autograd.grad(scores.values.sum(), pixels)
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        assert not judge(pixels, prompt).values.requires_grad
    inner = (pixels.detach() * 0.9 + 0.05).requires_grad_()  # away from the ends of [0, 1]
    here = judge(inner, prompt).values
    (slope,) = torch.autograd.grad(here.sum(), inner)
    gaps = []
    for size in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003):  # more than rounding, and up to the next bend
        for step in (size * slope / slope.norm(), -size * slope / slope.norm()):
            with torch.no_grad():
                there = judge((inner + step).clamp(0, 1), prompt).values
            gaps.append(abs(float(there - here.detach()) / float((slope * step).sum()) - 1))
    assert min(gaps) < 0.03, f"the gradient is not that of finite differences: off by {gaps}"
    assert all(parameter.grad is None for parameter in judge.model.parameters())
    assert not judge([picture], prompt).values.requires_grad


def check_half(half, judge, pictures, share=0.05):
    """Weights in bfloat16 give about the same: to a share of the range, which is wide since tiny ones are rough."""
    prompts = PROMPTS if judge.needs_prompt else None
    assert half.dtype == torch.bfloat16
    scores = half(pictures, prompts)
    assert scores.values.dtype == torch.float32
    span = share * (judge.high - judge.low)
    torch.testing.assert_close(scores.values, judge(pictures, prompts).values, atol=span, rtol=0)
