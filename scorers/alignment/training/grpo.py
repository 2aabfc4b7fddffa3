"""Training by reward, with TRL's `GRPOTrainer` (group relative policy optimisation, arXiv 2402.03300)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...._errors import ModelError
from ...images import as_pil
from ...ratings.reading import Rating
from ..config import AlignmentConfig
from ..loading import Loaded
from ..wordings import wordings
from .callbacks import Clock, Finite, advice
from .rewards import ClosenessReward

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

NOT_TAKEN = ("mllama",)
"""Kinds of model, by `model_type`, to whose forward pass TRL does not hand all that it needs."""


def grpo_trainer(
    loaded: Loaded,
    config: AlignmentConfig,
    arguments: dict[str, Any],
    ratings: Sequence[Rating],
    stds: Sequence[float],
    held_out: Sequence[Rating],
    clock: Clock,
) -> Trainer:
    """Set up GRPO with the closeness reward; `stds` are not looked at.

    A model that never writes an answer that can be read learns nothing from this: start from an adapter that
    SFT made. The reference of the KL term is the model as it is loaded.

    Raises:
        ModelError: TRL cannot train this kind of model.

    Executed in ``tests/scorers/alignment/test_grpo.py``.
    """
    if loaded.model_type in NOT_TAKEN:
        raise ModelError(
            f"TRL's GRPOTrainer cannot train models of type {loaded.model_type}: use method='sft'"
        )
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from .trainer import PartsTrainer

    class Rewarded(PartsTrainer, GRPOTrainer):
        """TRL's trainer with a learning rate for each part, and the benchmark's metrics."""

        def _get_per_token_logps_and_entropies(
            self, *args: Any, batch_num_images: Any = None, **kwargs: Any
        ) -> Any:
            """TRL 1.16 does not know a name of LLaVA-OneVision's, without which each row has one image."""
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    args = GRPOConfig(
        **arguments,
        num_generations=config.generations,
        beta=config.kl,
        temperature=config.temperature,
        max_completion_length=config.max_new_tokens,
        disable_dropout=True,
        shuffle_dataset=True,
    )
    reward: Any = ClosenessReward(loaded.facts.dimensions)
    trainer = Rewarded(
        model=loaded.model,
        reward_funcs=[reward],
        args=args,
        train_dataset=asked(ratings, loaded, config),
        eval_dataset=asked(held_out, loaded, config) if held_out else None,
        processing_class=loaded.processor,
        callbacks=[clock, Finite(advice(config))],
    )
    fit_for_trl(loaded.model)
    trainer.about(loaded, config, held_out, clock)
    return trainer


def asked(ratings: Sequence[Rating], loaded: Loaded, config: AlignmentConfig) -> Dataset:
    """Ratings as a data set of TRL: "prompt" (a chat), "image", "dimension" and "score".

    Executed in ``tests/scorers/alignment/test_grpo.py``.
    """
    from datasets import Dataset

    system = loaded.facts.system_prompt
    before = [{"role": "system", "content": system}] if system else []
    rows = []
    for rating in ratings:
        choice = random.Random(f"{config.seed} {rating.key}")
        question = choice.choice(wordings(loaded.facts.dimensions[rating.dimension], config.wordings))
        rows.append(
            {
                "prompt": [*before, {"role": "user", "content": question}],
                "image": str(rating.image),
                "dimension": rating.dimension,
                "score": rating.score,
            }
        )
    return Dataset.from_list(rows).with_transform(_with_pictures)


def _with_pictures(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**batch, "image": [as_pil(path) for path in batch["image"]]}


def fit_for_trl(model: Any) -> None:
    """Make up for what TRL 1 does not know of trained token embeddings.

    Its frozen copy of an adapter, "ref", gets their values too, and a vocabulary head that is tied to them
    says that it has no bias.

    Executed in ``tests/scorers/alignment/test_grpo.py``.
    """
    from peft.utils.other import TrainableTokensWrapper

    head = model.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        head.bias = None  # type: ignore[assignment]
    weights = dict(model.named_parameters())
    for name, parameter in weights.items():
        twin = weights.get(f"{name.removesuffix('.default')}.ref")
        if name.endswith(".default") and twin is not None:
            twin.data.copy_(parameter.data)
