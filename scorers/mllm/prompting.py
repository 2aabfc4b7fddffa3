"""The one way to ask a model about a picture, in scoring and training: first the image, then the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..._errors import ModelError
from .branching import Inputs

Pictures = Sequence[Image.Image] | Sequence[torch.Tensor] | Sequence[tuple[Image.Image | torch.Tensor, ...]]
"""What is asked about: one picture a question, or a tuple of several."""


def chat(image: object, question: str, system_prompt: str | None = None) -> list[dict[str, Any]]:
    """Write one question about one image, or a tuple of several, as chat messages.

    >>> [part["type"] for part in chat("a.png", "memorability?")[-1]["content"]]
    ['image', 'text']
    """
    before = (
        [{"role": "system", "content": [{"type": "text", "text": system_prompt}]}] if system_prompt else []
    )
    shown = image if isinstance(image, tuple) else (image,)
    asked = [*({"type": "image", "image": one} for one in shown), {"type": "text", "text": question}]
    return [*before, {"role": "user", "content": asked}]


def build_prompts(
    processor: ProcessorMixin,
    pictures: Pictures,
    questions: Sequence[str],
    system_prompt: str | None = None,
) -> Inputs:
    """Run the processor over B pictures, one question each: image, question and the start of the answer.

    A tuple of pictures is asked about in one question.

    Pictures may be tensors (3, H, W) in [0, 1]; where the processor computes in torch, their graph is kept.

    Raises:
        ModelError: the processor has no place for a question.

    Returns:
        the model's inputs; prompts are padded on the right to ``input_ids`` (B, L).

    Executed with every family's processor in ``tests/scorers/test_mllm.py``.
    """
    first = pictures[0][0] if isinstance(pictures[0], tuple) else pictures[0]
    extra = {"do_rescale": False} if isinstance(first, torch.Tensor) else {}
    if "mm_token_type_ids" in processor.model_input_names:  # some models ask for what their processor leaves out
        extra["return_mm_token_type_ids"] = True
    options = {"padding": True, "padding_side": "right", "return_tensors": "pt", **extra}
    chats = [chat(picture, text, system_prompt) for picture, text in zip(pictures, questions, strict=True)]
    out = _processed(processor, chats, pictures, options)
    if "input_ids" not in out:
        raise ModelError(f"{type(processor).__name__} makes no tokens of a question: its model takes pictures alone")
    # PaliGemma's processor gives labels, with which its model computes a loss
    return {key: torch.as_tensor(value) for key, value in out.items() if key != "labels"}


def _processed(processor: Any, chats: list[Any], pictures: Pictures, options: dict[str, Any]) -> Any:
    """What the processor makes of chats; one that takes only a plain list of pictures gets the template's text."""
    template = processor.apply_chat_template
    try:
        return template(
            chats, tokenize=True, add_generation_prompt=True, return_dict=True, processor_kwargs=options
        )
    except (ValueError, TypeError, AttributeError) as error:
        shown = [picture if isinstance(picture, tuple) else (picture,) for picture in pictures]
        if any(len(few) > 1 for few in shown):
            raise
        texts = template(chats, tokenize=False, add_generation_prompt=True)
        try:
            return processor(images=[picture for (picture,) in shown], text=texts, **options)
        except Exception:  # the first reason counts
            raise error from None


def stop_tokens(model: PreTrainedModel, processor: ProcessorMixin) -> frozenset[int]:
    """Tokens that end a model's answer: those of its generation config, and the tokenizer's end of text.

    Executed with every family's model in ``tests/scorers/test_mllm.py``.
    """
    config = model.generation_config
    stop = config.eos_token_id if config is not None and config.eos_token_id is not None else []
    tokenizer: Any = processor.tokenizer
    return frozenset([*(stop if isinstance(stop, list) else [stop]), tokenizer.eos_token_id])


def end_token(processor: ProcessorMixin) -> int:
    """Token that the chat template puts behind an answer, or the tokenizer's end of text where it puts none.

    An executed example is in ``tests/scorers/alignment/test_data.py``.
    """
    answer = "medium 5.577"
    said = [*chat("", "?"), {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    text: Any = processor.apply_chat_template(said, tokenize=False)
    tokenizer: Any = processor.tokenizer
    rest = tokenizer(text.rpartition(answer)[2].lstrip(" "), add_special_tokens=False)["input_ids"]
    return int(rest[0] if rest and rest[0] in tokenizer.all_special_ids else tokenizer.eos_token_id)
