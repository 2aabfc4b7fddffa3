"""What both of our trainers do alike: a learning rate for each part, the schedule, evaluation, and saving."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...ratings.reading import Rating
from ..config import AlignmentConfig
from ..loading import Loaded
from ..saving import save_aligned
from .callbacks import Clock, rate
from .evaluation import evaluate_ratings

if TYPE_CHECKING:
    from transformers import Trainer as Base
else:
    Base = object


class PartsTrainer(Base):
    """To be mixed in before a Hugging Face trainer, which must then be set up by `about` first."""

    def about(
        self, loaded: Loaded, config: AlignmentConfig, held_out: Sequence[Rating], clock: Clock
    ) -> None:
        """Take what is trained and how, and what it is evaluated on; `held_out` may be empty."""
        self.loaded, self.config, self.held_out, self.clock = loaded, config, list(held_out), clock
        if self.held_out:  # made before any step is lost to a model that cannot be asked
            with self._at_rest():
                self.scorer = loaded.scorer(config.micro_batch)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with the learning rate of each part; biases, norms and other vectors do not decay."""
        if self.optimizer is None:
            groups = parameter_groups(self.loaded, self.config)
            self.optimizer = torch.optim.AdamW(groups, fused=self.args.device.type == "cuda")
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
        with self._at_rest(), torch.no_grad():
            found = evaluate_ratings(self.scorer, self.held_out)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(dict(metrics))  # which adds the epoch
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """The model without dropout."""
        mode = self.loaded.model.training
        self.loaded.model.eval()
        try:
            yield
        finally:
            self.loaded.model.train(mode)

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
