"""Supervised fine-tuning on ratings, with the Hugging Face `Trainer`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ..benchmark.data import Rating
from ..mllm import MLLMScorer
from .callbacks import Clock, Finite, advice, rate
from .config import AlignmentConfig
from .data import Collator, Stream
from .evaluation import evaluate_ratings
from .loading import Loaded
from .losses import Targets, answer_loss
from .parts import head_on
from .saving import save_aligned
from .wordings import wordings


class AlignmentTrainer(Trainer):
    """Hugging Face's `Trainer` with our loss, a learning rate for each part, and the benchmark's metrics."""

    # The loss is divided by what a whole step holds, over batches and processes.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        loaded: Loaded,
        config: AlignmentConfig,
        args: TrainingArguments,
        stream: Stream,
        collator: Collator,
        held_out: Sequence[Rating],
        clock: Clock,
    ) -> None:
        """Set up training of a loaded model on a stream of examples; `held_out` may be empty."""
        super().__init__(
            model=loaded.model,
            args=args,
            data_collator=collator,
            train_dataset=stream,
            callbacks=[clock, Finite(advice(config))],
        )
        self.model_accepts_loss_kwargs = True  # so that the number of tokens in a whole step is counted
        self.loaded, self.config, self.held_out, self.clock = loaded, config, list(held_out), clock

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
        world = self.args.world_size
        tokens = len(positions) if num_items_in_batch is None else num_items_in_batch / world
        loss = answer_loss(
            outputs.logits, targets, tokens, self.config.batch_size / world, self.config.value_weight
        )
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the learning rate of each part; biases, norms and other vectors do not decay."""
        if self.optimizer is None:
            groups = parameter_groups(self.loaded, self.config)
            fused = self.args.device.type == "cuda"
            self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=fused)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Linear warm-up and cosine, over the steps or the minutes, whichever are used up first."""
        if self.lr_scheduler is None:

            def factor(step: int) -> float:
                return rate(max((step + 0.5) / num_training_steps, self.clock.progress()), self.config.warmup)

            chosen: Any = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(chosen, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Score the held-out ratings with the model as it is, with the expected read-out."""
        mode = self.loaded.model.training
        self.loaded.model.eval()
        with torch.no_grad():
            found = evaluate_ratings(self._scorer, self.held_out)
        self.loaded.model.train(mode)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @cached_property
    def _scorer(self) -> MLLMScorer:
        return self.loaded.scorer(max(16, self.config.micro_batch))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Every checkpoint is a scorer."""
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            save_aligned(
                self.loaded.model, self.loaded.processor, self.loaded.facts, folder, self.loaded.base
            )


def parameter_groups(loaded: Loaded, config: AlignmentConfig) -> list[dict[str, Any]]:
    """Group what trains by part and by whether it decays, for an optimiser.

    Executed in ``tests/scorers/alignment/test_sft.py``.
    """
    rates = config.rates(loaded.model_type)
    groups: dict[tuple[str, bool], list[torch.Tensor]] = {}
    for name, parameter in loaded.model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and "trainable_tokens" not in name
            groups.setdefault((loaded.parts.of(name), decays), []).append(parameter)
    return [
        {"params": own, "lr": rates[part], "weight_decay": config.weight_decay if decays else 0.0}
        for (part, decays), own in groups.items()
    ]


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
        lr_scheduler_type="cosine",
    )
    eta = config.soft_label(loaded.model_type)
    collator = Collator(loaded.processor, loaded.facts, config, eta)
    names = sorted({rating.dimension for rating in ratings})
    questions = {name: wordings(loaded.facts.dimensions[name], config.wordings) for name in names}
    for name in names:
        collator.space(name)  # before worker processes copy the collator
    length = arguments["max_steps"] * config.batch_size
    stream = Stream(ratings, stds, questions, length, config.seed)
    return AlignmentTrainer(loaded, config, args, stream, collator, held_out, clock)
