"""Scorers by name: built in, registered here, or plugged in by an entry point in ``cogguided.scorers``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch

from .._defaults import EMBEDDED as EMBEDDED
from .._errors import InputError, ModelError, unknown_name
from .._loading import LOADING
from .base import Scorer
from .dimensions import DIMENSIONS
from .judges import JUDGES, ScorerInfo
from .mllm.options import MAX_NEW_TOKENS, MIN_MASS
from .served.client import is_address

ENTRY_POINT_GROUP = "cogguided.scorers"

Factory = Callable[..., Scorer]


_REGISTRY: dict[str, tuple[Factory, ScorerInfo]] = {}


def register_scorer(name: str, factory: Factory, info: ScorerInfo | None = None) -> None:
    """Make `load_scorer(name, **kwargs)` call `factory(**kwargs)`.

    Without `info` the summary is the first line of the factory's docstring.

    Raises:
        InputError: the name is taken, or could be mistaken for a path or for weights.

    >>> from .models.fake import FakeScorer
    >>> register_scorer("darkness", lambda: FakeScorer("darkness", fn=lambda x: 1 - x.mean(dim=(1, 2, 3))))
    >>> load_scorer("darkness").name
    'darkness'
    >>> unregister_scorer("darkness")
    """
    if not name or any(char in name for char in "/\\=, "):
        raise InputError(f"scorer name {name!r}: must not be empty or hold '/', '\\', '=', ',' or spaces")
    if name in _REGISTRY:
        raise InputError(
            f"a scorer named '{name}' is registered already; unregister_scorer('{name}') frees it"
        )
    if info is not None and info.name != name:
        raise InputError(f"info.name is '{info.name}', expected '{name}'")
    _REGISTRY[name] = (factory, info or ScorerInfo(name, summary=_first_line(factory)))


def unregister_scorer(name: str) -> None:
    """Take a registered scorer out again.

    Raises:
        UnknownNameError: nobody registered that name.

    >>> unregister_scorer("nobody")
    Traceback (most recent call last):
    ...
    cogguided._errors.UnknownNameError: ...
    """
    if name not in _REGISTRY:
        raise unknown_name("scorer", name, _REGISTRY)
    del _REGISTRY[name]


def list_scorers() -> list[ScorerInfo]:
    """List the facts of every scorer that can be loaded by name, built-in ones first.

    Raises:
        InputError: a plug-in brings a name that is taken.

    >>> [info.name for info in list_scorers()][:4]
    ['aesthetics', 'funniness', 'emotional_valence', 'memorability']
    """
    plugged = _plugins()
    for name in plugged:
        if name in _REGISTRY:
            raise _taken(plugged[name])
    registered = [_with_embedded_facts(info) for _, info in _REGISTRY.values()]
    return registered + [_plugin_info(point) for point in plugged.values()]


def load_scorer(scorer: str | Path | Scorer, **kwargs: Any) -> Scorer:
    """Load a scorer by name, by folder, or by hub name; a scorer object is returned as it is.

    A name is looked up exactly as spelt, among the registered scorers and the installed plug-ins. A folder
    with ``open_clip_config.json`` is a `CLIPScorer`, any other folder or a hub name ("owner/model") an
    `MLLMScorer`; "pyiqa:NAME" is a metric of that package, "remote:URL" a judge that `cogguided serve` serves, and
    "http://host:8000#model" an MLLM on a server, which may also be the `model` of "mllm" or of a dimension. Keyword
    arguments go to the scorer's factory.

    Raises:
        UnknownNameError: nobody registered that name.
        InputError: an argument that the factory does not take, or a name that two plug-ins claim.
        ModelError: the weights do not fit, or a plug-in returned something that is no scorer.

    >>> load_scorer("fake", low=0.0, high=2.0).high
    2.0
    """
    if isinstance(scorer, Scorer):
        if kwargs:
            raise InputError(
                f"a scorer object is already loaded: it takes no arguments, got {sorted(kwargs)}"
            )
        return scorer
    if not isinstance(scorer, str | Path):
        raise InputError(
            f"expected a scorer's name, a folder or a scorer, got {type(scorer).__name__}; a scorer has "
            "name, low, high, differentiable, needs_prompt, to() and is called with (images, prompts)"
        )
    served = _served_instead(str(scorer), kwargs)
    if served is not None:
        return load_scorer(served[0], **served[1])
    factory = _factory(scorer)
    try:
        inspect.signature(factory).bind(**kwargs)
    except TypeError as error:
        takes = ", ".join(inspect.signature(factory).parameters) or "nothing"
        raise InputError(f"scorer '{scorer}': {error}; it takes: {takes}") from None
    with LOADING, torch.random.fork_rng(devices=[]):  # weights drawn and then replaced cost the caller no noise
        loaded = factory(**kwargs)
    if not isinstance(loaded, Scorer):
        raise ModelError(
            f"'{scorer}' made a {type(loaded).__name__}, which lacks part of the Scorer interface"
        )
    return loaded


def _served_instead(name: str, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The address and arguments of a scorer whose `model` is on a server."""
    address = kwargs.get("model")
    if not is_address(address) or name not in ("mllm", *DIMENSIONS):
        return None
    rest = {key: value for key, value in kwargs.items() if key != "model"}
    return str(address), rest if name == "mllm" else {"dimension": name, **rest}


def scorer_arguments(scorer: str | Path) -> list[str]:
    """Names of the arguments that `load_scorer(scorer, ...)` takes.

    Raises:
        UnknownNameError: nobody registered that name.
        InputError: no such folder.

    >>> scorer_arguments("clip")
    ['batch_size', 'device', 'dtype']
    """
    return list(inspect.signature(_factory(scorer)).parameters)


def _factory(scorer: str | Path) -> Factory:
    name = str(scorer)
    plugged = _plugins()
    if name in _REGISTRY:
        if name in plugged:
            raise _taken(plugged[name])
        return _REGISTRY[name][0]
    if name in plugged:
        factory: Factory = plugged[name].load()
        return factory
    if name.startswith("remote:"):
        return _bound(_REGISTRY["remote"][0], name.removeprefix("remote:"), "url")
    if is_address(name):
        return _bound(_served(), name)
    if name.startswith("pyiqa:"):
        return _bound(_REGISTRY["pyiqa"][0], name.removeprefix("pyiqa:"), "metric")
    if Path(scorer).is_dir():
        is_clip = (Path(scorer) / "open_clip_config.json").is_file()
        return _bound(_open_clip if is_clip else _mllm, name)
    if isinstance(scorer, Path) or name.startswith((".", "/", "~")):
        raise InputError(f"scorer: no folder {name!r}")
    if name.count("/") == 1:
        return _bound(_mllm, name)
    raise unknown_name("scorer", name, [*_REGISTRY, *plugged])


def _served() -> Factory:
    from .served.scorer import ServedScorer

    return ServedScorer.at


def _bound(factory: Factory, value: str, argument: str = "model") -> Factory:
    def make(**kwargs: Any) -> Scorer:
        return factory(**{argument: value}, **kwargs)

    parameters = [p for n, p in inspect.signature(factory).parameters.items() if n != argument]
    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return make


def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found and found[point.name].value != point.value:
            raise _taken(point)
        found[point.name] = point
    return found


def _taken(point: EntryPoint) -> InputError:
    return InputError(
        f"the plug-in {point.value!r} ({_package(point)}) brings a scorer '{point.name}', "
        "but that name is taken"
    )


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "unknown package"


def _plugin_info(point: EntryPoint) -> ScorerInfo:
    return ScorerInfo(point.name, summary=f"plug-in {point.value}", source=_package(point))


def _first_line(factory: Factory) -> str:
    return (inspect.getdoc(factory) or "").partition("\n")[0]


def _with_embedded_facts(info: ScorerInfo) -> ScorerInfo:
    facts_file = EMBEDDED / "aligned" / "cogguided_scorer.json"
    if info.name not in DIMENSIONS or not facts_file.is_file():
        return info
    facts = json.loads(facts_file.read_text(encoding="utf-8"))
    return replace(
        info,
        grounding=facts.get("grounding", {}).get(info.name, ""),
        licence=facts.get("licence", info.licence),
    )


def _require_embedded(part: str) -> Path:
    folder = EMBEDDED / part
    if not folder.is_dir():
        raise ModelError(f"the embedded model is not installed: no folder {folder}")
    return folder


def _mllm(
    model: str | Path,
    dimension: str | None = None,
    adapter: str | Path | None = None,
    readout: str | None = None,
    batch_size: int = 16,
    device: Any = None,
    dtype: Any = None,
    min_mass: float = MIN_MASS,
    trust_remote_code: bool = False,
    max_new_tokens: int = MAX_NEW_TOKENS,
    bits: int | None = None,
    pixels: tuple[int, int] | None = None,
    question: str | None = None,
    levels: Mapping[str, float] | None = None,
    low: float | None = None,
    high: float | None = None,
    words: tuple[str, str] | None = None,
) -> Scorer:
    """Any Hugging Face image-text-to-text model, asked for one dimension or a question of your own."""
    from .mllm.scorer import MLLMScorer
    from .pixels import set_pixels

    scorer = MLLMScorer.from_pretrained(
        model,
        dimension=dimension,
        adapter=adapter,
        readout=readout,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        min_mass=min_mass,
        trust_remote_code=trust_remote_code,
        max_new_tokens=max_new_tokens,
        bits=bits,
        question=question,
        levels=levels,
        low=low,
        high=high,
        words=words,
    )
    if pixels is not None:
        set_pixels(scorer.processor, *pixels)
    return scorer


def _dimension_factory(dimension: str) -> Factory:
    def make(model: str | Path | None = None, **kwargs: Any) -> Scorer:
        return _mllm(_require_embedded("aligned") if model is None else model, dimension, **kwargs)

    own = inspect.signature(_mllm).parameters
    optional_model = own["model"].replace(default=None)
    make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [optional_model, *(p for n, p in own.items() if n not in ("model", "dimension"))]
    )
    return make


def _open_clip(
    model: str | Path,
    pretrained: str | None = None,
    batch_size: int = 64,
    device: Any = None,
    dtype: Any = None,
) -> Scorer:
    """Any open_clip model: cosine similarity of image and prompt."""
    from .models.clip import CLIPScorer

    return CLIPScorer.from_pretrained(
        model, pretrained=pretrained, batch_size=batch_size, device=device, dtype=dtype
    )


def _embedded_clip(batch_size: int = 64, device: Any = None, dtype: Any = None) -> Scorer:
    """The embedded CLIP: how well an image shows its prompt."""
    return _open_clip(_require_embedded("clip"), batch_size=batch_size, device=device, dtype=dtype)


def _independent(
    model: str | Path | None = None, clip: str | Path | None = None, batch_size: int = 64, device: Any = None
) -> Scorer:
    """Emotional valence without a language model or gradient: a held-out judge for the embedded model's images."""
    from .models.independent.scorer import IndependentScorer

    folder = _require_embedded("independent") if model is None else model
    seer = _require_embedded("clip") if clip is None else clip
    return IndependentScorer.from_pretrained(folder, seer, batch_size, device)


def _resmem(batch_size: int = 32, device: Any = None) -> Scorer:
    """ResMem: how well people will remember an image. Non-commercial licence; needs the extra "resmem"."""
    from .models.resmem import ResMemScorer

    return ResMemScorer.from_pretrained(batch_size=batch_size, device=device)


def _remote(
    url: str,
    dimension: str | None = None,
    token: str | None = None,
    token_file: str | Path | None = None,
    batch_size: int = 16,
    timeout: float = 60.0,
    retries: int = 4,
) -> Scorer:
    """A judge on a server (`cogguided serve`), as remote:http://host:port; needs the extra "remote"."""
    from .models.remote import RemoteScorer

    return RemoteScorer.connect(url, dimension, token, token_file, batch_size, timeout, retries)


def _register_built_in() -> None:
    from .models.fake import FakeScorer

    for name, dim in DIMENSIONS.items():
        info = ScorerInfo(name, dim.summary, dim.low, dim.high, False, "", "embedded", "Apache-2.0", "yes")
        register_scorer(name, _dimension_factory(name), info)
    clip = ScorerInfo("clip", _first_line(_embedded_clip), -1.0, 1.0, True, "", "embedded", "Apache-2.0", "yes")
    register_scorer("clip", _embedded_clip, clip)
    independent = ScorerInfo(
        "independent", _first_line(_independent), -3.0, 3.0, False, "human", "embedded", "CC BY-SA 4.0", "yes"
    )
    register_scorer("independent", _independent, independent)
    register_scorer("mllm", _mllm, ScorerInfo("mllm", _first_line(_mllm), source="model=..."))
    register_scorer(
        "open_clip",
        _open_clip,
        ScorerInfo("open_clip", _first_line(_open_clip), -1.0, 1.0, True, source="model=..."),
    )
    resmem = ScorerInfo(
        "resmem", _first_line(_resmem), 0.0, 1.0, False, "human", "resmem", "ResMem Non-commercial License", "no"
    )
    register_scorer("resmem", _resmem, resmem)
    register_scorer("remote", _remote, ScorerInfo("remote", _first_line(_remote), source="remote:http://host:port"))
    for judge, factory in JUDGES:
        register_scorer(judge.name, factory, judge)
    register_scorer(
        "fake", FakeScorer, ScorerInfo("fake", _first_line(FakeScorer), 0.0, 1.0, source="built in")
    )


_register_built_in()
