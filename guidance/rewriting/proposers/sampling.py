"""Text that a language model writes, drawn from a seed."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@torch.inference_mode()
def sample_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    seed: int,
    count: int = 1,
    *,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    add_special_tokens: bool = True,
) -> list[str]:
    """Return `count` continuations of a text, without special tokens; torch's random state is left as it was.

    Args:
        model: any transformers model that generates text.
        tokenizer: its tokenizer.
        text: what to go on from.
        seed: the same one gives the same continuations.
        count: how many, in one batch.
        temperature: above 0.
        top_p: share of the probability that is sampled from.
        max_new_tokens: length of a continuation.
        add_special_tokens: whether the tokenizer adds its own marks; not to what a chat template wrote.
    """
    any_model: Any = model
    any_tokenizer: Any = tokenizer
    inputs = any_tokenizer(text, return_tensors="pt", add_special_tokens=add_special_tokens).to(model.device)
    pad = tokenizer.pad_token_id
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        out = any_model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            num_return_sequences=count,
            pad_token_id=tokenizer.eos_token_id if pad is None else pad,
        )
    texts: list[str] = any_tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts
