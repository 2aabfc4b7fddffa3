"""Models that read a question as a whole before they answer: an encoder with a decoder, or a prompt that is attended
to in both directions (PaliGemma). Answers go on from left to right, but a question cannot follow a shared start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ...._errors import ModelError
from ..branching import Inputs, Reruns, unrounded_head

Tokens = tuple[int, ...]


def decoder_start(model: PreTrainedModel) -> list[int]:
    """Tokens that a decoder's text begins with, as `generate` has it: its start, and one that is forced behind it.

    Raises:
        ModelError: no configuration names the start.

    Executed in ``tests/scorers/test_whole.py``.
    """
    homes = (model.generation_config, model.config, model.config.get_text_config(decoder=True))

    def named(field: str) -> int | None:
        found = (getattr(home, field, None) for home in homes)
        return next((int(value) for value in found if value is not None), None)

    start = named("decoder_start_token_id")
    start = named("bos_token_id") if start is None else start
    if start is None:
        raise ModelError(f"{type(model).__name__}: its configuration has no decoder_start_token_id")
    forced = named("forced_bos_token_id")
    return [start] if forced is None else [start, forced]


class Whole(Reruns):
    """`Reruns` whose paths begin with one of several questions, read with prompt and image before the answer.

    An encoder reads each question once. Inside of a question there is nothing to read: NaN.

    An executed example is in ``tests/scorers/test_whole.py``.
    """

    def __init__(
        self, model: PreTrainedModel, inputs: Inputs, lengths: Sequence[int], questions: Iterable[Sequence[int]]
    ) -> None:
        """Keep the one prompt, of `lengths[0]` tokens, and the tokens of the questions to come.

        Raises:
            ModelError: several prompts, or a question with which another begins.
        """
        super().__init__(model, inputs, lengths)
        self._questions = sorted({tuple(question) for question in questions}, key=len)
        for index, short in enumerate(self._questions):
            if any(longer[: len(short)] == short for longer in self._questions[index + 1 :]):
                raise ModelError(f"{type(model).__name__}: one question to it begins with another; ask them apart")
        self._encoded: dict[Tokens, torch.Tensor] = {}

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary."""
        return int(self._model.config.get_text_config(decoder=True).vocab_size)

    def _run(self, path: list[int]) -> torch.Tensor:
        question = next((q for q in self._questions if tuple(path[: len(q)]) == q), None)
        if question is None:
            return torch.full((len(path), self.num_tokens), torch.nan, device=self._model.device)
        answer = path[len(question) :]
        with unrounded_head(self._model):
            after = self._decoded if self._model.config.is_encoder_decoder else self._followed
            logits = after(question, answer)[0, -len(answer) - 1 :]
        blank = logits.new_full((len(question) - 1, logits.shape[-1]), torch.nan)
        return torch.cat([blank, logits])

    def _followed(self, question: Tokens, answer: list[int]) -> torch.Tensor:
        """Logits of prompt, question and answer in one sequence: what is said has another type than what is read."""
        inputs = self._with([*question, *answer])
        if "token_type_ids" not in inputs:
            raise ModelError("it attends in both directions, and cannot be told where its answer begins")
        kinds = inputs["token_type_ids"].clone()
        kinds[:, kinds.shape[1] - len(answer) :] = 1
        logits: torch.Tensor = self._model(
            **{**inputs, "token_type_ids": kinds}, use_cache=False, logits_to_keep=len(answer) + 1
        ).logits
        return logits

    def _decoded(self, question: Tokens, answer: list[int]) -> torch.Tensor:
        """Logits of the decoder, on what the encoder made of prompt and question."""
        inputs = self._with(list(question))
        begun = decoder_start(self._model)
        if question not in self._encoded:
            start = torch.tensor([begun], device=self._model.device)
            said = self._model(**inputs, decoder_input_ids=start, use_cache=False)
            self._encoded[question] = said.encoder_last_hidden_state
        logits: torch.Tensor = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._encoded[question]),
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=torch.tensor([[*begun, *answer]], device=self._model.device),
            use_cache=False,
        ).logits
        return logits
