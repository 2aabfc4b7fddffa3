"""Q-Align: the quality of an image, from a model's choice among five words.

Wu et al. 2023, "Q-Align: Teaching LMMs for Visual Scoring via Discrete Text-Defined Levels", arXiv 2312.17090: the
model begins its answer, and the probabilities of "excellent" to "bad" as its next word, scaled to one, weigh 5 to 1.
DeQA-Score (You et al. 2025, arXiv 2501.11561) is read in the same way, and taught so that the spread means something.

Hub: ``zhangzicheng/q-sit-mini`` (Zhang et al. 2025, "Teaching LMMs for Image Quality Scoring and Interpreting",
arXiv 2503.09197), of the same people, which is a LLaVA-OneVision of transformers. Licence: MIT by the card of its
larger sibling ``q-sit``, commercial use included. OneAlign and DeQA-Score themselves (mPLUG-Owl2) need their authors'
code for transformers 4.36, and do not load. Any image-text-to-text model can be asked in this way. The question to
Q-SiT is read from its authors' own file on GitHub, without running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...._errors import InputError
from ...mllm.checkpoints import load_checkpoint
from ...mllm.reading.words import weigh
from ..parts.asking import AskedJudge
from ..parts.judge import Judged, Pictures
from ..parts.wordings import published

HUB = "zhangzicheng/q-sit-mini"
WORDING = ("Q-Future/Q-SiT", "HEAD", "eval_scripts/qsit_transformers_test_iqa.py")
"""Repository, commit and file of the authors' question."""
BEGUN = "The quality of this image is "
WORDS = ("Excellent", "Good", "Fair", "Poor", "Bad")


class QAlignScorer(AskedJudge):
    """Mean level, 1 ("Bad") to 5 ("Excellent"), and in `std` its spread; higher is better. It looks at no prompt.

    Q-SiT's own scale of 0 to 1 is a quarter of what is above 1. `mass` is not told: what other words get is left out
    of account, as published. Gradients reach image tensors where the model's processor computes in torch.

    Make one with `from_pretrained`.
    """

    name = "qalign"
    low = 1.0
    high = 5.0

    def __init__(
        self,
        model: Any,
        processor: Any,
        question: str,
        begun: str = BEGUN,
        words: Sequence[str] = WORDS,
        image_first: bool = False,
        batch_size: int = 8,
    ) -> None:
        """Take a loaded model and its processor.

        Raises:
            InputError: fewer than two words.
            ModelError: two words begin with the same token.
        """
        if isinstance(words, str) or len(words) < 2:
            raise InputError(f"words: expected two or more, from best to worst, got {words!r}")
        super().__init__(model, processor, batch_size)
        self.image_first = image_first
        self.question, self.begun, self.words = question, begun, tuple(words)
        gap = " " if begun and not begun.endswith((" ", "\n")) else ""
        self.ids = self.first_tokens([gap + word for word in words])

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = HUB,
        question: str | None = None,
        begun: str = BEGUN,
        words: Sequence[str] = WORDS,
        image_first: bool = False,
        batch_size: int = 8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
    ) -> QAlignScorer:
        """Load an image-text-to-text model from a folder or the Hub, from safetensors.

        Args:
            model: folder or Hub name, or the folder of a peft adapter.
            question: what is asked; default: that of Q-SiT, fetched once from GitHub.
            begun: how the answer begins; of a beginning without a space at its end the words follow after one.
            words: from best to worst; the best is 5, the worst 1, the others lie evenly between.
            image_first: whether the image stands before the question; Q-SiT has it behind.
            batch_size: images a pass.
            device: default: the GPU if there is one.
            dtype: default: float32 on a CPU, bfloat16 elsewhere.
            trust_remote_code: run code that comes with the model.

        Raises:
            ModelError: it cannot be loaded, or two words begin with the same token.
            InputError: fewer than two words.

        Executed examples are in ``tests/scorers/test_qalign.py``.
        """
        if question is None:
            (question,) = published(*WORDING, WORDS[0] + ", ")
        with torch.inference_mode(False):  # weights made inside it never pass a gradient on
            network, processor, _ = load_checkpoint(model, None, device, dtype, trust_remote_code)
        return cls(network, processor, question, begun, words, image_first, batch_size)

    def prepare(self, pictures: Pictures, texts: Sequence[str]) -> Any:
        """Ask about each image and begin the answer."""
        return self.ask(pictures, [self.question] * len(pictures), self.begun)

    def judge(self, inputs: Any) -> Judged:
        """Weigh the levels."""
        logprobs = self.logprobs(inputs)[:, 0, self.ids]
        return Judged(*weigh(logprobs, torch.linspace(self.high, self.low, len(self.ids))))
