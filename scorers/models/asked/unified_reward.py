"""UnifiedReward: a model's own ratings of an image for its prompt, as numbers in its answer.

Wang et al. 2025, "Unified Reward Model for Multimodal Understanding and Generation", arXiv 2503.05236; pointwise, as
version 2.0 is asked: alignment with the prompt, coherence and style, 1 to 5 each.

Hub: ``CodeGoat24/UnifiedReward-2.0-qwen3vl-8b`` and its siblings of other sizes, on Qwen2.5-VL and Qwen3-VL. Licence:
MIT, by the cards of its siblings and for the code; commercial use included. The question is read from the authors'
own file on GitHub, without running it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...._errors import InputError, unknown_name
from ...mllm.checkpoints import load_checkpoint
from ..parts.asking import AskedJudge, fill_in
from ..parts.judge import Judged, Pictures
from ..parts.wordings import published

HUB = "CodeGoat24/UnifiedReward-2.0-qwen3vl-8b"
_COMMIT = ("CodeGoat24/UnifiedReward", "ed52f98c680bfeca1e23e26aa61715de03412f2b")
WORDINGS = {
    "2.0": (*_COMMIT, "inference_qwen/UnifiedReward-2.0-inference/point_score_ACS_image_generation.py"),
    "1.0": (*_COMMIT, "inference_qwen/image_generation/qwen_point_score_image_generation.py"),
}
"""Of each version's question the repository, commit and file."""
AXES = ("alignment", "coherence", "style")


class UnifiedRewardScorer(AskedJudge):
    """The number that the likeliest answer gives, 1 to 5; higher is better.

    `axis`: "alignment", "coherence" or "style" of version 2.0, or "mean", our mean of the three; or "final", the one
    score of version 1.0. An answer without the number, or with one outside 1 to 5, is not valid, and its beginning
    stands in `errors`. The whole prompt is read. Without gradients, since an answer in words has none.

    Make one with `from_pretrained`.
    """

    name = "unified_reward"
    low = 1.0
    high = 5.0
    needs_prompt = True
    differentiable = False

    def __init__(
        self,
        model: Any,
        processor: Any,
        question: str,
        axis: str = "mean",
        batch_size: int = 8,
        max_new_tokens: int = 512,
    ) -> None:
        """Take a loaded model and its processor.

        Raises:
            UnknownNameError: another axis.
            InputError: a question without a place for the prompt, or fewer than one token of answer.
        """
        if axis not in (*AXES, "mean", "final"):
            raise unknown_name("axis of unified_reward", axis, (*AXES, "mean", "final"))
        if "{prompt}" not in question or max_new_tokens < 1:
            raise InputError(f"expected max_new_tokens >= 1 and a question with {{prompt}} in it, got {question!r}")
        super().__init__(model, processor, batch_size)
        self.question, self.axis, self.max_new_tokens = question, axis, max_new_tokens

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = HUB,
        axis: str = "mean",
        question: str | None = None,
        batch_size: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_new_tokens: int = 512,
        trust_remote_code: bool = False,
    ) -> UnifiedRewardScorer:
        """Load an image-text-to-text model from a folder or the Hub, from safetensors.

        Args:
            model: folder or Hub name.
            axis: which number is the score.
            question: what is asked, with ``{prompt}`` in it; default: the authors', fetched once from GitHub.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32 on a CPU, bfloat16 elsewhere.
            max_new_tokens: where an answer that does not end is cut.
            trust_remote_code: run code that comes with the model.

        Raises:
            ModelError: it cannot be loaded.
            InputError: a question without its place; UnknownNameError for another axis.

        Executed examples are in ``tests/scorers/test_unified_reward.py``.
        """
        if question is None:
            version = "1.0" if axis == "final" else "2.0"
            (question,) = published(*WORDINGS[version], "{prompt}")
        with torch.inference_mode(False):  # weights made inside it never pass a gradient on
            network, processor, _ = load_checkpoint(model, None, device, dtype, trust_remote_code)
        return cls(network, processor, question, axis, batch_size, max_new_tokens)

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Ask about each image; padded on the left, where no answer follows."""
        return self.ask(pictures, [fill_in(self.question, prompt=text) for text in texts], side="left")

    def judge(self, inputs: Any) -> Judged:
        """Let the model answer, and read the number."""
        read = [read_number(text, self.axis) for text in self.answers(inputs)]
        values = [value if isinstance(value, float) else float("nan") for value in read]
        errors = [None if isinstance(why, float) else f"{self.name}: {why}" for why in read]
        return Judged(torch.tensor(values, device=self.device), None, errors)

    @torch.no_grad()
    def answers(self, inputs: dict[str, torch.Tensor]) -> list[str]:
        """The likeliest answers to what `prepare` made."""
        tokenizer = self.processor.tokenizer
        start = inputs["input_ids"].shape[1]
        settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "num_beams": 1}
        pad = tokenizer.pad_token_id
        out = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, pad_token_id=pad, **settings)
        return [str(text) for text in tokenizer.batch_decode(out[:, start:], skip_special_tokens=True)]


def read_number(text: str, axis: str) -> float | str:
    """Return the score of an axis in an answer, or why there is none.

    >>> read_number("Alignment Score (1-5): 2.5\\nCoherence Score (1-5): 3\\nStyle Score (1-5): 5", "mean")
    3.5
    >>> read_number("I like it.", "final")
    "its answer has no 'Final Score': 'I like it.'"
    """
    found = []
    for name in AXES if axis == "mean" else (axis,):
        label = f"{name.capitalize()} Score"
        match = re.search(rf"{label}\s*(?:\(1-5\))?\s*:\s*(-?\d+(?:\.\d+)?)(?![\d.]*\d)", text)
        if match is None:
            return f"its answer has no {label!r}: {text[:80]!r}"
        number = float(match[1])
        if not 1 <= number <= 5:
            return f"its answer's {label!r} is {match[1]}, not from 1 to 5"
        found.append(number)
    return sum(found) / len(found)
