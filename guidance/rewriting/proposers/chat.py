"""A proposer that asks a chat model of Hugging Face, or the very model that scores the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from ...._errors import InputError, ModelError
from ....scorers.mllm.scorer import MLLMScorer
from .asking import ask_for_rewrites
from .base import Trial
from .sampling import sample_texts


class ChatProposer:
    """Ask a chat model for rewrites: it is told the aim in words and shown what was tried, best first.

    Args:
        model: any transformers model that generates text, its device and mode left as they are.
        processor: its tokenizer or processor, with a chat template.
        temperature: above 0.
        top_p: share of the probability that is sampled from.
        max_new_tokens: length of an answer.
        tries: answers to ask for at most, when some bring nothing new.

    Executed examples are in ``tests/guidance/test_proposers.py``.
    """

    name: ClassVar[str] = "chat"

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | PreTrainedTokenizerBase,
        temperature: float = 0.9,
        top_p: float = 0.95,
        max_new_tokens: int = 512,
        tries: int = 3,
    ) -> None:
        """Check the arguments.

        Raises:
            InputError: an argument out of range.
            ModelError: the processor has no chat template.
        """
        if not (temperature > 0 and 0 < top_p <= 1 and max_new_tokens > 0 and tries > 0):
            raise InputError(
                "ChatProposer: expected temperature > 0, 0 < top_p <= 1, max_new_tokens > 0 and tries > 0, got "
                f"{temperature}, {top_p}, {max_new_tokens} and {tries}"
            )
        if not getattr(processor, "chat_template", None):
            raise ModelError(
                f"{type(processor).__name__} has no chat template, so its model cannot be asked for rewrites: "
                "take a model that was tuned for chat"
            )
        self.model = model
        self.processor = processor
        self.temperature = temperature
        self.top_p = top_p
        self.max_new_tokens = max_new_tokens
        self.tries = tries

    @classmethod
    def from_scorer(
        cls,
        scorer: MLLMScorer,
        temperature: float = 0.9,
        top_p: float = 0.95,
        max_new_tokens: int = 512,
        tries: int = 3,
    ) -> ChatProposer:
        """Ask the model of a scorer: one set of weights for both."""
        return cls(scorer.model, scorer.processor, temperature, top_p, max_new_tokens, tries)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        temperature: float = 0.9,
        top_p: float = 0.95,
        max_new_tokens: int = 512,
        tries: int = 3,
    ) -> ChatProposer:
        """Load a chat model, with or without eyes, from a folder or the hub; weights from safetensors only.

        Args:
            model: folder or hub name.
            device: default: the GPU if there is one.
            dtype: default: float32 on a CPU, bfloat16 elsewhere.
            temperature: above 0.
            top_p: share of the probability that is sampled from.
            max_new_tokens: length of an answer.
            tries: answers to ask for at most.

        Raises:
            ModelError: nothing there, not a model that writes, or one without a chat template.
        """
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        kind = dtype or (torch.float32 if place.type == "cpu" else torch.bfloat16)
        try:
            sees = type(AutoConfig.from_pretrained(model)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            auto: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
            loaded = auto.from_pretrained(model, dtype=kind, use_safetensors=True)
            processor = (AutoProcessor if sees else AutoTokenizer).from_pretrained(model)
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise ModelError(
                f"{model}: cannot be loaded as a chat model with safetensors weights "
                f"({type(error).__name__}: {str(error).strip()})"
            ) from error
        ready = loaded.eval().requires_grad_(False).to(place)
        return cls(ready, processor, temperature, top_p, max_new_tokens, tries)

    def propose(
        self, prompt: str, target: Mapping[str, float], history: Sequence[Trial], n: int, seed: int
    ) -> list[str]:
        """Return up to n wordings; an answer that is no list brings none.

        Raises:
            InputError: no term of the target has a weight.
        """
        return ask_for_rewrites(self.answer, prompt, target, history, n, seed, self.tries)

    def answer(self, text: str, seed: int) -> str:
        """Return the model's answer to one message; torch's own random state is left as it was."""
        processor: Any = self.processor
        tokenizer = getattr(processor, "tokenizer", processor)
        content = text if tokenizer is processor else [{"type": "text", "text": text}]
        asked = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        (answer,) = sample_texts(
            self.model, tokenizer, asked, seed, temperature=self.temperature, top_p=self.top_p,
            max_new_tokens=self.max_new_tokens, add_special_tokens=False,
        )  # fmt: skip
        return answer
