"""What a fine-tuning run is asked to do: every setting, with its default."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..._errors import InputError, unknown_name
from .objectives.methods import METHODS as SCORED

METHODS = (*SCORED, "drtune")
"""Those that learn from scores, and DRTune, which follows their gradient (`objectives.reward_gradients`)."""
CHOICES = {
    "method": METHODS,
    "advantage": ("all", "within"),
    "save": ("best", "last"),
    "precision": ("float32", "bfloat16", "float16"),
    "report_to": ("none", "tensorboard", "wandb"),
}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The projections of attention, as diffusers' models name them; what LoRA trains unless told otherwise."""

FREE = ("rounds", "minutes", "report_to", "keep", "micro_batch", "batch_size", "low_memory", "checkpointing")
"""Settings that a resumed run may change."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a run; a round is: sample, score, fit.

    Attributes:
        method: "nft", DiffusionNFT, learns from good and bad images; "rwr", reward-weighted regression, from good
            ones; "dpo", Diffusion-DPO, from pairs of the best and the worst image of a prompt; "drtune" follows
            the target's own gradient, for targets that have one: by far the quickest, and the most eager to exploit.
        rounds: rounds at most; None: as many as `minutes` allows, or 50.
        minutes: of wall-clock, evaluation included, those before a resume too; the round under way is finished.
        prompts_per_round: prompts sampled in a round, over all processes.
        images_per_prompt: images of each; they are judged against one another.
        num_inference_steps: of the images to learn from; None: as the call has it. Fewer is quicker.
        timesteps: noise levels, of those that the sampler visits, at which each image is learned in a round; for
            "drtune" steps of the denoiser that the gradient goes through, which memory grows with.
        epochs: passes over a round's images and noise levels.
        batch_size: images sampled at once.
        micro_batch: images that the denoiser trains on at once; less takes less memory and gives the same result.
        updates: optimiser steps in a pass over a round; what a step does not see at once is accumulated.
        learning_rate: of AdamW, constant after the first `warmup` steps.
        warmup: optimiser steps over which the learning rate rises.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to it.
        rank: of the LoRA.
        alpha: of the LoRA; its scale is alpha / rank. None: the rank.
        target_modules: names of the layers that LoRA is put on, or "all-linear". By default attention's
            projections, or, where a denoiser has none of those, the linear layers within what it calls attention.
        ema: share of the old weights that the sampling model keeps after a round.
        beta: None: 1 for "nft" (mixture, see `nft_loss`), 2000 for "dpo" (tie to the reference, see `dpo_loss`).
        temperature: of the exponential weights of "rwr", in standard deviations.
        top: "rwr": learn from this share of each prompt's images in place of exponential weights.
        pairs: "dpo": best/worst pairs of each prompt.
        advantage: standard deviation that scores of a prompt are divided by: "all" prompts' or "within" the prompt.
        reference_weight: weight of the squared distance to the untrained model's predictions.
        anchor_weight: the same for anchor prompts, if there are any, whose images should stay as they are.
        anchors_per_update: images of them in an optimiser step.
        guided: fit the prediction that the sampler uses, after classifier-free guidance, in place of the prompt's
            alone; twice the computation where there is guidance.
        evaluate_every: rounds between evaluations on held-out prompts.
        held_out: share of the prompts that is held out where no evaluation prompts are given.
        images_per_evaluation: images of each held-out prompt, with fixed seeds.
        faithfulness_tolerance: fall of CLIP's faithfulness, as a share of its start, that raises no alarm.
        diversity_tolerance: the same for the diversity of a prompt's images.
        judge_tolerance: fall of a held-out judge, as a share of its range, that raises no alarm.
        patience: evaluations in a row that have to agree before the alarm stops the run; 0: it never does.
        save: the adapter of the "best" evaluation, by the target, at which no member of the panel had fallen; or of
            the "last".
        precision: of the computation; the LoRA itself is float32.
        checkpointing: compute activations again in place of keeping them; None: where memory is short (`low_memory`).
        low_memory: for a small card: micro batches of 1, checkpointing, images decoded in slices and tiles, and the
            scorers on the CPU while they are not asked.
        keep: last checkpoints to keep, beside the best.
        report_to: "none", "tensorboard" or "wandb".
        seed: of everything drawn.

    >>> FinetuneConfig(method="dpo").mixture
    2000.0
    """

    method: str = "nft"
    rounds: int | None = None
    minutes: float | None = None
    prompts_per_round: int = 8
    images_per_prompt: int = 8
    num_inference_steps: int | None = None
    timesteps: int = 4
    epochs: int = 1
    batch_size: int = 8
    micro_batch: int = 8
    updates: int = 4
    learning_rate: float = 3e-4
    warmup: int = 4
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    rank: int = 32
    alpha: float | None = None
    target_modules: tuple[str, ...] | str = ATTENTION
    ema: float = 0.3
    beta: float | None = None
    temperature: float = 1.0
    top: float | None = None
    pairs: int = 2
    advantage: str = "all"
    reference_weight: float = 0.0
    anchor_weight: float = 10.0
    anchors_per_update: int = 8
    guided: bool = False
    evaluate_every: int = 5
    held_out: float = 0.2
    images_per_evaluation: int = 4
    faithfulness_tolerance: float = 0.02
    diversity_tolerance: float = 0.3
    judge_tolerance: float = 0.01
    patience: int = 2
    save: str = "best"
    precision: str = "float32"
    checkpointing: bool | None = None
    low_memory: bool = False
    keep: int = 2
    report_to: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        whole = [
            "prompts_per_round", "timesteps", "epochs", "batch_size", "micro_batch", "updates", "rank", "pairs",
            "anchors_per_update", "evaluate_every", "images_per_evaluation", "keep",
        ]  # fmt: skip
        optional = [n for n in ("rounds", "num_inference_steps") if getattr(self, n) is not None]
        for name in (*whole, *optional):
            _check(name, getattr(self, name), 1, whole=True)
        for name in ("patience", "warmup", "seed"):
            _check(name, getattr(self, name), 0, whole=True)
        _check("images_per_prompt", self.images_per_prompt, 2, whole=True)
        above = ("learning_rate", "max_grad_norm", "temperature")
        for name in (*above, *(n for n in ("minutes", "alpha", "beta", "top") if getattr(self, n) is not None)):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        tolerances = ("faithfulness_tolerance", "diversity_tolerance", "judge_tolerance")
        for name in ("weight_decay", "reference_weight", "anchor_weight", *tolerances):
            _check(name, getattr(self, name), 0)
        for name in ("ema", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be from 0 and below 1, got {getattr(self, name)}")
        if self.top is not None and self.top > 1:
            raise InputError(f"top is a share, at most 1, got {self.top}")

    @property
    def mixture(self) -> float:
        """The beta in force."""
        return self.beta if self.beta is not None else 2000.0 if self.method == "dpo" else 1.0

    @property
    def last_round(self) -> int:
        """Rounds at most."""
        return self.rounds if self.rounds is not None else 10**6 if self.minutes is not None else 50

    @property
    def per_denoiser_call(self) -> int:
        """Images that the denoiser trains on at once."""
        return 1 if self.low_memory else self.micro_batch

    @property
    def checkpoints_activations(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return self.low_memory if self.checkpointing is None else self.checkpointing

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        facts = asdict(self)
        if isinstance(self.target_modules, tuple):
            facts["target_modules"] = list(self.target_modules)
        return facts


def _check(name: str, value: Any, least: int, whole: bool = False) -> None:
    if whole and (not isinstance(value, int) or isinstance(value, bool)):
        raise InputError(f"{name} must be a whole number from {least}, got {value!r}")
    if not value >= least:
        raise InputError(f"{name} must be at least {least}, got {value}")


def recipe(embedded: bool) -> FinetuneConfig:
    """Return the settings to start from; the small embedded generator stands a higher learning rate and fewer steps.

    >>> recipe(True).learning_rate, recipe(False).learning_rate
    (0.002, 0.0003)
    """
    if not embedded:
        return FinetuneConfig()
    return FinetuneConfig(learning_rate=2e-3, updates=8, warmup=2, num_inference_steps=10)
