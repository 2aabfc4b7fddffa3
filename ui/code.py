"""The Python and the command that do what the page does, to copy."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from ..guidance import Guidance
from .settings import Settings

HEAD = "from cogguided import {names}\n"


def short(step: Guidance) -> str:
    """Return a guidance as it is typed: without what it does anyway.

    >>> from ..guidance import BestOfN
    >>> short(BestOfN(8)), short(BestOfN(8, keep=2))
    ('BestOfN(8)', 'BestOfN(8, keep=2)')
    """
    said = []
    for place, field in enumerate(dataclasses.fields(step)):  # type: ignore[arg-type]
        value = getattr(step, field.name)
        if field.default is dataclasses.MISSING or value != field.default:
            said.append(repr(value) if place == 0 else f"{field.name}={value!r}")
    return f"{type(step).__name__}({', '.join(said)})"


def python_code(settings: Settings, folder: Path | str) -> str:
    """Return a script that makes the same images.

    >>> print(python_code(Settings("a face", {"clip": 1.0}, search="best_of_n", n=4), "out/faces"))
    from cogguided import BestOfN, CogGuidedPipeline
    <BLANKLINE>
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    out = pipe("a face", target="clip", guidance=BestOfN(4), seed=0)
    out.save("out/faces")
    """
    steps = settings.guidance()
    public = [type(step).__name__ for step in steps if type(step).__module__.startswith(f"{_package()}.")]
    others = [f"from {type(step).__module__} import {type(step).__name__}\n" for step in steps]
    others = [line for line, step in zip(others, steps, strict=True) if type(step).__name__ not in public]
    loading = [_text(settings.model)]
    if settings.scorer is not None:
        loading.append(f"scorer={_text(settings.scorer)}")
    first = "" if settings.dtype == "float32" else "import torch\n"
    if first:
        loading.append(f"dtype=torch.{settings.dtype}")
    call = [_text(settings.prompt)]
    if settings.target_text is not None:
        call.append(f"target={_text(settings.target_text)}")
    if steps:
        said = ", ".join(map(short, steps))
        call.append(f"guidance={said}" if len(steps) == 1 else f"guidance=[{said}]")
    call.append(f"seed={settings.seed}")
    if settings.budget is not None:
        call.append(f"budget={_text(settings.budget)}")
    call += [f"{name}={value}" for name, value in settings.arguments.items()]
    place = "" if settings.device in (None, "cpu") else f"pipe.to({_text(settings.device)})\n"
    return (
        f"{first}{HEAD.format(names=', '.join(sorted({'CogGuidedPipeline', *public})))}{''.join(others)}\n"
        f"pipe = CogGuidedPipeline.from_pretrained({', '.join(loading)})\n{place}"
        f"out = pipe({', '.join(call)})\nout.save({_text(str(folder))})"
    )


def command(settings: Settings, folder: Path | str) -> str:
    """Return the command that makes the same images.

    >>> command(Settings("a face", {"clip": -0.5}, seed=3, steps=5), "out/faces")
    "cogguided generate --target clip=-0.5 --seed 3 --steps 5 --out out/faces -- 'a face'"
    """
    words = ["cogguided", "generate"]
    given = {
        "--model": None if settings.model == "embedded" else settings.model,
        "--target": settings.target_text,
        "--scorer": settings.scorer,
        "--search": None if settings.search == "auto" else settings.search,
        "--n": settings.n,
        "--keep": None if settings.keep == 1 else settings.keep,
        "--rewrite": settings.rewrite,
        "--seed": settings.seed,
        "--steps": settings.steps,
        "--size": settings.size,
        "--budget": settings.budget,
        "--device": settings.device,
        "--dtype": None if settings.dtype == "float32" else settings.dtype,
        "--out": folder,
    }
    for option, value in given.items():
        if value is not None:
            words += [option, str(value)]
    return shlex.join([*words, "--", settings.prompt])


def _text(value: object) -> str:
    """A text as Python has it, in double quotes where that costs no escapes."""
    said = repr(str(value))
    return f'"{said[1:-1]}"' if said[0] == "'" and '"' not in said else said


def _package() -> str:
    return __name__.split(".", maxsplit=1)[0]
