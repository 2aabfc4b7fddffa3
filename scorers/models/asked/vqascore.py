"""VQAScore: how probable is "Yes" when a model is asked whether the image shows the prompt?

Lin et al. 2024, "Evaluating Text-to-Visual Generation with Image-to-Text Generation", arXiv 2404.01291; question and
answer as in the authors' package t2v_metrics 3.1 (github.com/linzhiqiu/t2v_metrics, Apache-2.0) for Qwen2.5-VL.

Hub: any image-text-to-text model of transformers, by default ``Qwen/Qwen2.5-VL-7B-Instruct``. Licence: Apache-2.0,
commercial use included. The CLIP-FlanT5 of the paper needs its authors' own code and cannot be loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...._errors import InputError
from ...mllm.checkpoints import load_checkpoint
from ..parts.asking import AskedJudge, fill_in
from ..parts.judge import Judged, Pictures

HUB = "Qwen/Qwen2.5-VL-7B-Instruct"
QUESTION = 'Does this figure show "{}"? Please answer Yes or No.'


class VQAScorer(AskedJudge):
    """Probability that the model's answer begins with "Yes", 0 to 1; higher shows the prompt better.

    Of an answer of several tokens it is the product of their probabilities. "yes" and other spellings do not count,
    as in the authors' package. The whole prompt is read. Gradients reach image tensors where the model's processor
    computes in torch.

    Make one with `from_pretrained`.
    """

    name = "vqascore"
    low = 0.0
    high = 1.0
    needs_prompt = True

    def __init__(
        self, model: Any, processor: Any, question: str = QUESTION, answer: str = "Yes", batch_size: int = 8
    ) -> None:
        """Take a loaded model and its processor.

        Raises:
            InputError: a question without a place for the prompt, or no answer.
        """
        if "{}" not in question or not answer:
            raise InputError(f"expected an answer, and a question with {{}} for the prompt, got {question!r}")
        super().__init__(model, processor, batch_size)
        self.question = question
        self.answer = self.tokens(answer)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = HUB,
        question: str = QUESTION,
        answer: str = "Yes",
        batch_size: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
    ) -> VQAScorer:
        """Load an image-text-to-text model from a folder or the Hub, from safetensors.

        Args:
            model: folder or Hub name, or the folder of a peft adapter.
            question: with ``{}`` in place of the prompt.
            answer: whose probability is the score.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32 on a CPU, bfloat16 elsewhere.
            trust_remote_code: run code that comes with the model.

        Raises:
            ModelError: it cannot be loaded.
            InputError: a question without a place for the prompt, or no answer.

        Executed examples are in ``tests/scorers/test_vqascore.py``.
        """
        with torch.inference_mode(False):  # weights made inside it never pass a gradient on
            network, processor, _ = load_checkpoint(model, None, device, dtype, trust_remote_code)
        return cls(network, processor, question, answer, batch_size)

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Ask about each image, with all but the last token of the answer behind the question."""
        inputs = self.ask(pictures, [fill_in(self.question, **{"": text}) for text in texts])
        for token in self.answer[:-1]:
            inputs = _followed_by(inputs, token)
        return inputs

    def judge(self, inputs: Any) -> Judged:
        """Multiply the probabilities of the answer's tokens."""
        said = self.logprobs(inputs, len(self.answer))
        return Judged(said[:, range(len(self.answer)), self.answer].sum(dim=1).exp())


def _followed_by(inputs: dict[str, torch.Tensor], token: int) -> dict[str, torch.Tensor]:
    """The same inputs, padded on the right, with a token behind every row."""
    ends = inputs["attention_mask"].sum(dim=1)
    rows = torch.arange(len(ends), device=ends.device)
    longer = dict(inputs)
    for key in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"):
        if key in inputs:
            longer[key] = torch.nn.functional.pad(inputs[key], (0, 1))
    longer["input_ids"][rows, ends] = token
    longer["attention_mask"][rows, ends] = 1
    return longer
