"""Supervised fine-tuning on ratings, with the Hugging Face `Trainer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ...ratings.reading import Rating
from ..config import AlignmentConfig
from ..data import Collator, Stream
from ..loading import Loaded
from ..parts import head_on
from ..wordings import wordings
from .callbacks import Clock, Finite, advice
from .losses import Targets, answer_loss
from .trainer import PartsTrainer


class AlignmentTrainer(PartsTrainer, Trainer):
    """Hugging Face's `Trainer` with our loss, a learning rate for each part, and the benchmark's metrics."""

    # The loss is divided by what a whole step holds, over batches and processes.
    loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """`answer_loss` of a batch of `Collator`."""
        inputs = dict(inputs)
        targets, positions = Targets(**inputs.pop("targets")), inputs.pop("positions")
        inputs.pop("labels")
        with head_on(self.loaded.model, positions):
            outputs = model(**inputs, use_cache=False)
        world = self.args.world_size  # processes' gradients are averaged, and the loss is to be a sum
        tokens = len(positions) if num_items_in_batch is None else num_items_in_batch / world
        loss = answer_loss(
            outputs.logits, targets, tokens, self.config.batch_size / world, self.config.value_weight
        )
        return (loss, outputs) if return_outputs else loss


def sft_trainer(
    loaded: Loaded,
    config: AlignmentConfig,
    arguments: dict[str, Any],
    ratings: Sequence[Rating],
    stds: Sequence[float],
    held_out: Sequence[Rating],
    clock: Clock,
) -> AlignmentTrainer:
    """Set up supervised fine-tuning; `stds` (one a rating) in the dimension's unit.

    Executed in ``tests/scorers/alignment/test_sft.py``.
    """
    args = TrainingArguments(
        **arguments,
        train_sampling_strategy="sequential",  # `Stream` has the order
        label_names=["labels"],
    )
    eta = config.soft_label(loaded.model_type)
    collator = Collator(loaded.processor, loaded.facts, config, eta)
    names = sorted({rating.dimension for rating in ratings})
    questions = {name: wordings(loaded.facts.dimensions[name], config.wordings) for name in names}
    for name in names:
        collator.space(name)  # before worker processes copy the collator
    length = arguments["max_steps"] * config.batch_size
    trainer = AlignmentTrainer(
        model=loaded.model,
        args=args,
        data_collator=collator,
        train_dataset=Stream(ratings, stds, questions, length, config.seed),
        eval_dataset=list(held_out) or None,  # asked for, but `evaluate` has its own way
        callbacks=[clock, Finite(advice(config))],
    )
    trainer.model_accepts_loss_kwargs = True  # so that the tokens of a whole step are counted
    trainer.about(loaded, config, held_out, clock)
    return trainer
