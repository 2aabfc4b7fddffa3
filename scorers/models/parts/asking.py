"""Judges that ask a multimodal LLM of transformers about an image."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from ...._errors import ModelError
from .judge import Judge, Pictures


class AskedJudge(Judge):
    """A judge whose network is an image-text-to-text model, asked once an image.

    Attributes:
        image_first: whether the image stands before the question, as mostly, or behind it.

    Executed examples are in ``tests/scorers/test_vqascore.py`` and its neighbours.
    """

    image_first = True

    def __init__(self, model: Any, processor: Any, batch_size: int) -> None:
        """Take a loaded model and its processor."""
        super().__init__(model, batch_size)
        self.processor = processor

    def ask(
        self, pictures: Pictures, questions: Sequence[str], begun: str = "", side: str = "right", **images: Any
    ) -> dict[str, torch.Tensor]:
        """Run the processor: image and question, and an answer that has `begun`; padded at `side`.

        `images` goes to the image processor. Tensors keep their graph where it computes in torch.
        """
        texts = [self._rendered(question) + begun for question in questions]
        bos = self.processor.tokenizer.bos_token
        words = {"add_special_tokens": False} if bos and texts[0].startswith(bos) else {}
        if isinstance(pictures[0], torch.Tensor):
            images["do_rescale"] = False
        out = self.processor(
            text=texts,
            images=[[picture] for picture in pictures],
            text_kwargs={"padding": True, "padding_side": side, **words},
            images_kwargs=images,
            common_kwargs={"return_tensors": "pt"},
        )
        tensors = {key: torch.as_tensor(value) for key, value in out.items()}
        tracked = torch.is_grad_enabled() and any(p.requires_grad for p in pictures if isinstance(p, torch.Tensor))
        if tracked and not any(tensor.requires_grad for tensor in tensors.values()):
            raise ModelError(
                f"{self.name}: {type(self.processor).__name__} passes no gradient to the pixels; score without one "
                "(images.detach(), or torch.no_grad())"
            )
        place, kind = self.device, self.dtype
        return {k: v.to(place, kind) if v.is_floating_point() else v.to(place) for k, v in tensors.items()}

    def logprobs(self, inputs: dict[str, torch.Tensor], last: int = 1) -> torch.Tensor:
        """Log probabilities of what follows each of the `last` tokens of every row: (B, last, V), float32.

        The rows are padded on the right.
        """
        ends = inputs["attention_mask"].sum(dim=1)
        places = ends[:, None] - last + torch.arange(last, device=ends.device)
        wanted, at = places.unique(return_inverse=True)
        few = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        keep = {"logits_to_keep": wanted} if few else {}
        out: torch.Tensor = self.model(**inputs, use_cache=False, **keep).logits
        rows = torch.arange(len(ends), device=ends.device)[:, None]
        return out[rows, at if few else places].float().log_softmax(dim=-1)

    def first_tokens(self, words: Sequence[str]) -> list[int]:
        """First token of each word, which must be distinct.

        Raises:
            ModelError: two words begin with the same token.
        """
        ids = [self.tokens(word)[0] for word in words]
        if len(set(ids)) < len(ids):
            raise ModelError(f"{self.name}: two of {list(words)} begin with one token of this model's tokenizer")
        return ids

    def tokens(self, text: str) -> list[int]:
        """Tokens of a piece of an answer, without marks."""
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _rendered(self, question: str) -> str:
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        chat = [{"role": "user", "content": parts if self.image_first else parts[::-1]}]
        text: str = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return text


def fill_in(question: str, **names: str) -> str:
    """Put texts into a question's ``{name}`` places; what else it holds, braces too, stays.

    >>> fill_in('Does this show "{}"? {x}', **{"": "a {x}", "x": "Well?"})
    'Does this show "a {x}"? Well?'
    """
    parts = [question]
    for name, text in names.items():
        mark = "{" + name + "}"
        split: list[str] = []
        for index, part in enumerate(parts):
            if index % 2:  # a text that was put in
                split.append(part)
                continue
            pieces = part.split(mark)
            for number, piece in enumerate(pieces):
                split += [text, piece] if number else [piece]
        parts = split
    return "".join(parts)
