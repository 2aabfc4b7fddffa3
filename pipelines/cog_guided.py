"""A diffusers text-to-image pipeline that makes more of what a target wants."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from diffusers import DiffusionPipeline
from typing_extensions import Self

from .._errors import InputError, unknown_name
from ..guidance import Budget, Guidance, Run, as_guidance
from ..guidance.rewriting.proposers import ExpandingProposer
from ..guidance.text_encoder.swap import ACTIVE, swap_text_encoder
from ..scorers import DIMENSIONS, Scorer, Target, TargetSpec, load_scorer, load_target
from ..scorers.mllm.scorer import MLLMScorer
from .arguments import check_arguments, check_pictures, check_text_to_image, spread_texts
from .calls import generators, plan, read_requests, wants_base_output
from .driving.sampler import PipelineSampler, check_countable
from .embedded import is_embedded
from .ending import checked_output, nothing_lost, truncation_noted
from .loading import load_base
from .locking import one_at_a_time
from .output import CogGuidedOutput
from .publishing import Published
from .records.record import describe_call, describe_pipeline
from .settings import ScorerSpec, Settings, override, read_settings


class CogGuidedPipeline(Published):
    """Any diffusers text-to-image pipeline, steered by a target.

    An instance is a view of a base pipeline: its class is made on the fly from this one and the base's own,
    its components are the very same. So LoRA loading, offloading, attention back-ends and all else are the
    base's own methods, `isinstance(pipe, type(base))` holds, and what it saves opens in plain diffusers.

    Make one by `from_pretrained` or `from_pipe`, not by its constructor.

    >>> from cogguided import BestOfN
    >>> pipe = CogGuidedPipeline.from_pretrained("embedded", target="emotional_valence")
    >>> pipe.set_progress_bar_config(disable=True)
    >>> out = pipe("a face", guidance=BestOfN(2), seed=0, num_inference_steps=2)
    >>> len(out.candidates), out.images[0].size
    (2, (64, 64))
    """

    base_class: ClassVar[type[DiffusionPipeline]]
    _settings: Settings
    _loaded_scorers: dict[str, Scorer]
    _scorers_by_name: dict[str, Scorer]
    _revision: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise InputError(
            "CogGuidedPipeline is made by CogGuidedPipeline.from_pretrained(checkpoint, target=...) "
            "or CogGuidedPipeline.from_pipe(pipe, target=...)"
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        target: TargetSpec | None = None,
        scorer: ScorerSpec | None = None,
        guidance: Guidance | Sequence[Guidance] | None = None,
        text_encoder: Any = None,
        text_encoder_strength: float = 1.0,
        **kwargs: Any,
    ) -> Self:
        """Load any text-to-image checkpoint; "embedded" is the small model that comes with the package.

        Args:
            pretrained_model_name_or_path: folder or hub name; with a `cogguided.json` in it, target, scorer
                and guidance come from there unless given here.
            target: what images should have more of (see `cogguided.scorers.load_target`).
            scorer: scores the target's terms; without a target it is the target itself.
            guidance: what every call does unless told otherwise, e.g. `BestOfN(8)`.
            text_encoder: an aligned model to put in the text encoder's place: a folder or hub name of a checkpoint or
                adapter, or an `MLLMScorer` (see `swap_text_encoder`; `unswap_text_encoder` undoes it). Any other
                module is the component itself, as in diffusers.
            text_encoder_strength: 0: the original one, 1: the aligned one.
            **kwargs: as for `DiffusionPipeline.from_pretrained` (dtype, variant, revision, ...).

        Raises:
            ModelError: it cannot be loaded, or is not a text-to-image pipeline.
            RecordError: its `cogguided.json` cannot be read.
        """
        swapped = isinstance(text_encoder, str | Path | MLLMScorer)
        if text_encoder is not None and not swapped:
            kwargs["text_encoder"] = text_encoder
        base, source = load_base(pretrained_model_name_or_path, **kwargs)
        saved = read_settings(source, kwargs.get("revision"), bool(kwargs.get("local_files_only")))
        pipe = cls._view(base, override(saved, target, scorer, guidance))
        pipe._revision = kwargs.get("revision")
        if swapped:
            swap_text_encoder(pipe, text_encoder, text_encoder_strength)
        return pipe

    @classmethod
    def from_pipe(
        cls,
        pipeline: DiffusionPipeline,
        *,
        target: TargetSpec | None = None,
        scorer: ScorerSpec | None = None,
        guidance: Guidance | Sequence[Guidance] | None = None,
        **components: Any,
    ) -> Self:
        """Make a guided view of a pipeline; it shares every weight, hook, dtype and device with it.

        Args:
            pipeline: any text-to-image pipeline, guided ones too.
            target: what images should have more of.
            scorer: scores the target's terms; without a target it is the target itself.
            guidance: what every call does unless told otherwise.
            **components: components to use in place of the pipeline's own, e.g. scheduler=...

        Raises:
            ModelError: not a text-to-image pipeline.
            UnknownNameError: a component that the pipeline does not have.
        """
        if not isinstance(pipeline, DiffusionPipeline):
            raise InputError(f"from_pipe: expected a diffusers pipeline, got {type(pipeline).__name__}")
        for name in components:
            if name not in pipeline.components:
                raise unknown_name(f"component of {type(pipeline).__name__}", name, pipeline.components)
        saved = pipeline._settings if isinstance(pipeline, CogGuidedPipeline) else Settings()
        pipe = cls._view(pipeline, override(saved, target, scorer, guidance))
        if components:
            pipe.register_modules(**components)
        return pipe

    @classmethod
    def _view(cls, base: DiffusionPipeline, settings: Settings) -> Self:
        base_class: Any = base.base_class if isinstance(base, CogGuidedPipeline) else type(base)
        check_text_to_image(base_class)
        check_arguments(base_class, dict(settings.call_defaults))
        pipe: Any = object.__new__(guided_class(base_class))
        pipe.__dict__.update({"_revision": None, **base.__dict__})  # every component, hook and setting
        pipe.__dict__.update(_settings=settings, _loaded_scorers={}, _scorers_by_name={})
        guided: Self = pipe
        return guided

    @property
    def target(self) -> TargetSpec | None:
        """What images should have more of, when a call does not say; set it to change it."""
        return self._settings.target

    @target.setter
    def target(self, target: TargetSpec | None) -> None:
        self._settings = dataclasses.replace(self._settings, target=target)

    @property
    def scorer(self) -> ScorerSpec | None:
        """What scores the target's terms; None: the embedded model's scorers, by name."""
        return self._settings.scorer

    @scorer.setter
    def scorer(self, scorer: ScorerSpec | None) -> None:
        self._settings = dataclasses.replace(self._settings, scorer=scorer)
        self._loaded_scorers, self._scorers_by_name = {}, {}

    @property
    def guidance(self) -> list[Guidance]:
        """What every call does unless told otherwise."""
        return list(self._settings.guidance)

    @guidance.setter
    def guidance(self, guidance: Guidance | Sequence[Guidance] | None) -> None:
        self._settings = dataclasses.replace(self._settings, guidance=as_guidance(guidance))

    def load_target(self, spec: TargetSpec | None = None) -> Target | None:
        """Return the target of a call, its scorers loaded once and kept; None if nothing is wanted.

        >>> pipe = CogGuidedPipeline.from_pretrained("embedded", target="memorability=1,clip=0.5")
        >>> pipe.load_target().weights
        {'memorability': 1.0, 'clip': 0.5}
        """
        spec = self.target if spec is None else spec
        scorer = self._load_given_scorer()
        if spec is None:
            if scorer is None or isinstance(scorer, Mapping):
                return None
            spec = scorer
        if isinstance(spec, Target):
            return spec
        target = load_target(spec, scorer=scorer, load=self._load_scorer)
        for term in target.terms:
            if self._shares_weights(term.scorer):  # a view, by `with_dimension`, of one that was loaded by name
                self._loaded_scorers.setdefault(term.name, term.scorer)
        return target

    def _shares_weights(self, scorer: Scorer) -> bool:
        """Whether a scorer is one that was loaded by name, or a view of its weights; a caller's own is neither."""
        mine = {id(getattr(loaded, "core", loaded)) for loaded in self._scorers_by_name.values()}
        return id(getattr(scorer, "core", scorer)) in mine

    def _load_given_scorer(self) -> Scorer | dict[str, Scorer] | None:
        given = self.scorer
        if given is None or isinstance(given, Scorer):
            return given
        if isinstance(given, str):
            return self._load_scorer(given)
        loaded = ((term, s if isinstance(s, Scorer) else self._load_scorer(term, **s)) for term, s in given.items())
        return dict(loaded)

    def _load_scorer(self, name: str, **kwargs: Any) -> Scorer:
        if name not in self._loaded_scorers:
            self._loaded_scorers[name] = load_scorer(name, **kwargs).to(self._execution_device)
            self._scorers_by_name[name] = self._loaded_scorers[name]
        return self._loaded_scorers[name]

    def unswap_text_encoder(self) -> None:
        """Put the original text encoder back, where `from_pretrained(text_encoder=...)` put another in its place."""
        if ACTIVE in self.__dict__:
            self.__dict__[ACTIVE].unswap()

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast the pipeline as diffusers does; the scorers it has loaded follow to the device."""
        pipe: Self = super().to(*args, **kwargs)
        for scorer in self._loaded_scorers.values():
            scorer.to(self.device)
        return pipe

    def progress_bar(self, iterable: Any = None, total: int | None = None) -> Any:
        """Return diffusers' bar; one over steps, beneath one over candidates, is cleared when it is done."""
        # not the base's own: that of a combined pipeline returns nothing and turns on offloading
        bar = DiffusionPipeline.progress_bar(self, iterable, total)
        bar.leave = bar.leave and not bar.pos
        return bar

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Set how progress is shown, the parts of a combined pipeline included."""
        DiffusionPipeline.set_progress_bar_config(self, **kwargs)
        super().set_progress_bar_config(**kwargs)

    def read_settings_when_named(self) -> None:
        """Read `cogguided.json` once diffusers has said where the pipeline is from (`custom_pipeline=`)."""

        def register_to_config(**facts: Any) -> None:
            super(CogGuidedPipeline, self).register_to_config(**facts)
            if "_name_or_path" in facts:
                del self.__dict__["register_to_config"]
                own = self._settings
                saved = read_settings(facts["_name_or_path"])
                self._settings = override(saved, own.target, own.scorer, own.guidance or None)

        self.__dict__["register_to_config"] = register_to_config

    @one_at_a_time
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        target: TargetSpec | None = None,
        guidance: Guidance | Sequence[Guidance] | None = None,
        seed: int | Sequence[int] | None = None,
        budget: Budget | float | str | None = None,
        diversity: float = 1.0,
        **arguments: Any,
    ) -> CogGuidedOutput | Any:
        """Make images of one prompt or several, guided by a target.

        Args:
            prompt: what to draw; each prompt gives `keep` images (1, unless the guidance keeps more).
            target: what the images should have more of; default: the pipeline's own.
            guidance: how to get it, e.g. `BestOfN(8)`; default: the pipeline's own; without any, one image a
                prompt is made, just as the base pipeline would, and scored if there is a target.
            seed: of the first candidate of every prompt (the k-th has seed + k), or one per prompt. A seed s
                stands for `torch.Generator("cpu").manual_seed(s)`. None: torch's global state gives the noise, as in
                the base, or guided a seed per prompt. The second of equal prompts has seed + 1, guided + 10,000.
            budget: seconds (30, "30s") or network evaluations ("400nfe"), scorer included; when it is spent
                the best so far is returned; one image per prompt is always made.
            diversity: where several images are kept, how much their difference counts beside the score; 0: the best
                alone (see `cogguided.guidance.choosing.keep_different`).
            **arguments: of the base pipeline's call.

        Returns:
            images, their scores, and every candidate. Ctrl-C returns what there is (`interrupted`). With
            `output_type` other than "pil", or `return_dict=False`, the base pipeline's own output.

        Raises:
            UnknownNameError: an argument that the base pipeline does not take, with the nearest one.
            InputError: arguments that contradict each other.
            GenerationError: no candidate of a prompt got a valid score, or memory does not hold one image;
                its `output` has all that was made.
        """
        check_arguments(self.base_class, arguments)
        arguments = {**self._settings.call_defaults, **arguments}
        check_pictures(self.base_class, arguments)
        steps = self.guidance if guidance is None else as_guidance(guidance)
        wanted = self.load_target(target)
        limit = self._check_budget(budget)
        if wants_base_output(arguments, guided=bool(steps) or wanted is not None):
            return self._call_base(prompt, seed, arguments)
        requests = read_requests(prompt, seed, arguments, guided=bool(steps))
        sampler = PipelineSampler(self, self.base_class, arguments)
        run = Run(
            requests, sampler, wanted, limit, self.progress_bar if steps else None,
            load=lambda name: self._helper(run, name), diversity=diversity, **self._world(),
        )  # fmt: skip
        facts = {
            "model": describe_pipeline(self, self.base_class.__name__, self._revision),
            "call": describe_call(requests, wanted, steps, limit, arguments),
        }
        if wanted is not None and self.scorer is None:
            self._note_embedded_judges(run, [t.name for t in wanted.terms if self._shares_weights(t.scorer)])
        with nothing_lost(run, facts, sampler.trace), truncation_noted(run):
            planned = plan(steps, prompt, sampler, requests)
            for step in planned:
                run.last = step is planned[-1]
                step(run)
        with nothing_lost(run, facts, sampler.trace):
            run.finish()
        return checked_output(run, facts, sampler.trace)

    def _helper(self, run: Run, name: str) -> Scorer:
        """A scorer that guidance asks for beside the target's, such as CLIP for what was asked for."""
        given = self._load_given_scorer()
        if isinstance(given, Mapping) and name in given:
            return given[name]
        self._note_embedded_judges(run, [name])
        return self._load_scorer(name)

    def _note_embedded_judges(self, run: Run, names: Sequence[str]) -> None:
        """Say so when the embedded judges, which know emoji artwork only, judge what another model draws."""
        judges = [name for name in names if name in (*DIMENSIONS, "clip")]
        if judges and not self._is_embedded:
            run.note(
                f"{', '.join(judges)}: judged by the small embedded model, which has seen emoji artwork "
                "only; for other pictures pass a larger one, e.g. scorer='Qwen/Qwen2.5-VL-7B-Instruct'"
            )

    @property
    def _is_embedded(self) -> bool:
        return is_embedded(self.config.get("_name_or_path"))

    def _world(self) -> dict[str, Any]:
        """What a rewriter should know of the generator: the phrases that suit it, and its own language model."""
        if not self._is_embedded:
            return {}
        return {"bank": "embedded", "expander": lambda: ExpandingProposer(self.text_encoder, self.tokenizer)}

    def _check_budget(self, budget: Budget | float | str | None) -> Budget:
        limit = Budget.parse(budget)
        if limit.nfe is not None:
            check_countable(self)
        return limit

    def _call_base(self, prompt: Any, seed: Any, arguments: dict[str, Any]) -> Any:
        requests = read_requests(prompt, seed, arguments)
        prompt = prompt if prompt is None or isinstance(prompt, str) else list(prompt)
        arguments = {**spread_texts(arguments, prompt), "generator": generators(requests, arguments)}
        return self.base_class.__call__(self, prompt=prompt, **arguments)


@functools.cache
def guided_class(base_class: Any) -> type[CogGuidedPipeline]:
    """Return the class of guided pipelines of one base class.

    It bears the base's name, for that is what diffusers writes into `model_index.json` and looks up to find a
    pipeline's relatives; `type(pipe).__qualname__` tells the two apart.

    >>> from diffusers import FluxPipeline
    >>> guided = guided_class(FluxPipeline)
    >>> guided.__name__, guided.__qualname__, issubclass(guided, FluxPipeline)
    ('FluxPipeline', 'CogGuidedPipeline[FluxPipeline]', True)
    """
    name = base_class.__name__
    return type(
        name,
        (CogGuidedPipeline, base_class),
        {
            "__init__": base_class.__init__,  # whose signature tells diffusers the components
            "__module__": __name__,
            "__qualname__": f"CogGuidedPipeline[{name}]",
            "__doc__": CogGuidedPipeline.__doc__,
            "base_class": base_class,
        },
    )
