"""What a training run is asked to do: every setting, with the paper's recipe as the default."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..._errors import InputError, unknown_name
from .training.losses import KINDS

METHODS = ("sft", "grpo")
MODES = ("frozen", "lora", "dora", "full")
"""What can be done with a part of the model; "lora" and "dora" do not go together."""


OF_ADAPTER = ("language", "vision", "projector", "rank", "alpha", "dropout", "answer_tokens")
"""Settings that an adapter to go on with decides."""


@dataclass(frozen=True)
class Preset:
    """What is preset for one kind of model.

    Attributes:
        name: what people call it.
        learning_rate: of the language model in SFT.
        eta: weight of the triangular soft label.
        from_paper: these are the paper's (arXiv 2511.22805); else they are Qwen2.5-VL's, and untried.
    """

    name: str
    learning_rate: float = 3e-5
    eta: float = 0.15
    from_paper: bool = False


PRESETS = {
    "qwen2_vl": Preset("Qwen2-VL"),
    "qwen2_5_vl": Preset("Qwen2.5-VL", 3e-5, from_paper=True),  # set for its 7B
    "qwen3_vl": Preset("Qwen3-VL"),
    "gemma3": Preset("Gemma 3", 1e-5, from_paper=True),  # 12B
    "mllama": Preset("Llama 3.2 Vision", 9e-5, eta=0.08, from_paper=True),  # 11B
    "internvl": Preset("InternVL3"),
    "llava_onevision": Preset("LLaVA-OneVision"),
    "smolvlm": Preset("SmolVLM"),
}
"""By the `model_type` of a model's config."""


def preset(model_type: str) -> Preset:
    """Return what is preset for a kind of model; for one that is not listed, Qwen2.5-VL's values.

    >>> preset("mllama").learning_rate, preset("smolvlm").from_paper, preset("idefics3").name
    (9e-05, False, 'idefics3')
    """
    return PRESETS.get(model_type, Preset(model_type))


@dataclass(frozen=True)
class AlignmentConfig:
    """Settings of a training run; as they stand, the paper's recipe for Qwen2.5-VL-7B (arXiv 2511.22805).

    Attributes:
        method: "sft", learning from the ratings' answers, or "grpo", from rewards for its own answers.
        loss: of SFT: "cross_entropy", "triangular" (the paper's) or "answers" (see `losses`).
        value_weight: weight of the term on the expected score, beside any loss; 0 leaves it out.
        width: of "answers": how unsure a rating is, as a standard deviation in parts of its range.
        sample_prefix: of "answers": tell the model an answer drawn from the target, not the rating's own.
        eta: of "triangular": weight of the soft label; None: the preset's.
        digit_weight: of "cross_entropy" and "triangular": weight of a digit's loss.
        language: what trains of the language model: "frozen", "lora", "dora" or "full".
        vision: the same for the vision tower.
        projector: the same for what lies between the two.
        rank: of the adapters.
        alpha: their scale is alpha / rank.
        dropout: in the adapters.
        answer_tokens: also train the embeddings of the tokens that answers are made of.
        learning_rate: of the language model; None: the preset's, or 1e-6 for "grpo".
        vision_learning_rate: of the vision tower; None: 2e-6, or 1e-6 for "grpo".
        projector_learning_rate: of the projector; None: 1e-5, or 1e-6 for "grpo".
        weight_decay: on matrices; biases and norms have none.
        warmup: share of the run in which the learning rate rises; it then falls as a cosine.
        max_grad_norm: gradients are scaled down to this norm.
        epochs: passes over the ratings, rounded up to whole batches; None: 1, or what the next two say.
        max_steps: stop after so many optimiser steps.
        minutes: stop after so much time; the learning rate then falls with the clock, if that is sooner.
        batch_size: ratings a step, over all processes; of "grpo": answers a step.
        micro_batch: ratings a process sees at once, in training and in evaluation.
        wordings: how many wordings of each question to train on; the first is the one that scoring uses.
        held_out: share of the images kept for evaluation.
        eval_every: evaluate after so many steps; None: at the end only.
        save_every: write a checkpoint after so many steps; None: at the end only.
        keep: how many checkpoints are kept.
        log_every: report the loss after so many steps.
        pixels: fewest and most pixels of an image, for processors that count them (Qwen); never beyond
            the processor's own limits. None: the processor's own.
        precision: "float32", "bfloat16" or "float16" for computing; what trains is kept in float32. None:
            bfloat16 on a GPU that has it, else float16; float32 on a CPU.
        bits: load the frozen weights in 8 or 4 bits (needs bitsandbytes and a GPU).
        gradient_checkpointing: compute activations twice to keep fewer; None: on a GPU only.
        workers: processes that read images; 0: the training process itself.
        seed: of everything drawn.
        grounding: what the ratings are, as the scorer's folder will say: "human", or "proxy" where a model or a
            formula stands in for people, or a few words of your own.
        report_to: "none", "tensorboard" or "wandb".
        generations: of "grpo": answers drawn for each rating.
        kl: of "grpo": weight of the distance from the model that training started from.
        temperature: of "grpo": of drawing answers.
        max_new_tokens: of "grpo": longest answer.
    """

    method: str = "sft"
    loss: str = "triangular"
    value_weight: float = 0.0
    width: float = 0.05
    sample_prefix: bool = False
    eta: float | None = None
    digit_weight: float = 2.0
    language: str = "lora"
    vision: str = "full"
    projector: str = "full"
    rank: int = 64
    alpha: float = 64
    dropout: float = 0.05
    answer_tokens: bool = False
    learning_rate: float | None = None
    vision_learning_rate: float | None = None
    projector_learning_rate: float | None = None
    weight_decay: float = 0.1
    warmup: float = 0.03
    max_grad_norm: float = 1.0
    epochs: float | None = None
    max_steps: int | None = None
    minutes: float | None = None
    batch_size: int = 128
    micro_batch: int = 4
    wordings: int = 1
    held_out: float = 0.0
    eval_every: int | None = None
    save_every: int | None = 5
    keep: int = 2
    log_every: int = 1
    pixels: tuple[int, int] | None = (256 * 28**2, 1280 * 28**2)
    precision: str | None = None
    bits: int | None = None
    gradient_checkpointing: bool | None = None
    workers: int = 0
    seed: int = 0
    grounding: str = "human"
    report_to: str = "none"
    generations: int = 2
    kl: float = 0.04
    temperature: float = 0.9
    max_new_tokens: int = 16

    def __post_init__(self) -> None:
        """Refuse settings that cannot be.

        Raises:
            InputError: a value out of range; UnknownNameError for a name that is none.
        """
        names = {
            "method": (self.method, METHODS),
            "loss": (self.loss, KINDS),
            "language": (self.language, MODES),
            "vision": (self.vision, MODES),
            "projector": (self.projector, MODES),
            "precision": (self.precision or "float32", ("float32", "bfloat16", "float16")),
            "report_to": (self.report_to, ("none", "tensorboard", "wandb")),
        }
        for name, (value, known) in names.items():
            if value not in known:
                raise unknown_name(name, value, known)
        within = {
            "value_weight": self.value_weight >= 0,
            "width (above 0, at most 1)": 0 < self.width <= 1,
            "eta (0 to 1)": self.eta is None or 0 <= self.eta <= 1,
            "rank": self.rank >= 1,
            "dropout (0 to 1)": 0 <= self.dropout < 1,
            "warmup (0 to 1)": 0 <= self.warmup < 1,
            "epochs": self.epochs is None or self.epochs > 0,
            "max_steps": self.max_steps is None or self.max_steps >= 1,
            "minutes": self.minutes is None or self.minutes > 0,
            "batch_size (a multiple of micro_batch)": self.batch_size >= 1
            and self.micro_batch >= 1
            and self.batch_size % self.micro_batch == 0,
            "wordings (1 to 4)": 1 <= self.wordings <= 4,
            "held_out (0 to 1)": 0 <= self.held_out < 1,
            "bits (8 or 4)": self.bits in (None, 8, 4),
            "generations (2 or more, dividing batch_size)": self.method == "sft"
            or (self.generations >= 2 and self.batch_size % self.generations == 0),
            "temperature (above 0)": self.temperature > 0,
        }
        wrong = [name for name, fine in within.items() if not fine]
        if wrong:
            raise InputError(f"alignment settings out of range: {', '.join(wrong)}; got {self}")
        self._check_parts()

    @property
    def makes_adapter(self) -> bool:
        """Whether the run writes an adapter; else, with no LoRA anywhere, it writes a whole model."""
        return bool({"lora", "dora"} & {self.language, self.vision, self.projector})

    def _check_parts(self) -> None:
        parts = (self.language, self.vision, self.projector)
        if set(parts) == {"frozen"}:
            raise InputError("everything is frozen: set language, vision or projector to 'lora' or 'full'")
        if {"lora", "dora"} <= set(parts):
            raise InputError(
                f"language={self.language!r}, vision={self.vision!r}, projector={self.projector!r}: an adapter is "
                "LoRA or DoRA in all of its parts (peft has one switch for both); take one, 'full' or 'frozen'"
            )
        if self.language == "full" and self.makes_adapter:
            raise InputError(
                "language='full' writes a whole model, not an adapter: vision and projector must be "
                "'frozen' or 'full'"
            )
        if not self.makes_adapter and (self.answer_tokens or self.bits is not None):
            raise InputError("answer_tokens and bits go with an adapter: set language='lora'")

    def rates(self, model_type: str) -> dict[str, float]:
        """Learning rate of each part, with what is None filled in for the kind of model.

        >>> AlignmentConfig().rates("gemma3")
        {'language': 1e-05, 'vision': 2e-06, 'projector': 1e-05}
        """
        sft = self.method == "sft"
        given = {
            "language": (self.learning_rate, preset(model_type).learning_rate),
            "vision": (self.vision_learning_rate, 2e-6),
            "projector": (self.projector_learning_rate, 1e-5),
        }
        return {
            part: (usual if sft else 1e-6) if rate is None else rate for part, (rate, usual) in given.items()
        }

    def soft_label(self, model_type: str) -> float:
        """Weight of the triangular soft label, with None filled in for the kind of model.

        >>> AlignmentConfig().soft_label("mllama")
        0.08
        """
        return preset(model_type).eta if self.eta is None else self.eta

    def to_dict(self) -> dict[str, Any]:
        """Return all settings in JSON's types.

        >>> AlignmentConfig(pixels=None).to_dict()["loss"]
        'triangular'
        """
        settings = asdict(self)
        return {**settings, "pixels": None if self.pixels is None else list(self.pixels)}


def recipe(model: object = None) -> AlignmentConfig:
    """Return the settings to start from: the paper's, or for "embedded" those of a small model.

    The embedded base never wrote an answer, so the embeddings of the answers' tokens train too; and it learns
    by the paper's loss with a term on the expected score, which had the best figures in
    ``benchmarks/alignment_ablation.py``.

    >>> recipe("Qwen/Qwen2.5-VL-7B-Instruct").rank, recipe("embedded").answer_tokens
    (64, True)
    >>> recipe("Qwen/Qwen2.5-VL-7B-Instruct").value_weight, recipe("embedded").value_weight
    (0.0, 4.0)
    """
    if model != "embedded":
        return AlignmentConfig()
    return AlignmentConfig(
        value_weight=4.0,
        vision="frozen",
        projector="frozen",
        rank=32,
        answer_tokens=True,
        learning_rate=7e-4,
        weight_decay=0.0,
        batch_size=48,
        micro_batch=48,
        save_every=100,
        log_every=20,
    )
