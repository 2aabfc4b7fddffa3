"""`cogguided info`: what is here; `cogguided scorers`: what images can be scored for; `check-scorer`: is it right?"""

from __future__ import annotations

import platform
import re
import warnings
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from .._errors import ModelError
from .._version import __version__
from .console import friendly, out

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "open_clip_torch", "pillow")
EXTRAS = {
    "bench": "ratings from the Hub and from parquet",
    "train": "aligning an MLLM by reward; TensorBoard; ratings from the Hub",
    "wandb": "reports of an alignment to Weights & Biases",
    "quantized": "aligning an MLLM whose frozen weights have 8 or 4 bits",
    "xformers": "memory-efficient attention on CUDA GPUs, back-end xformers",
    "resmem": "ResMem, a judge of memorability; non-commercial licence, 0.5 GB",
    "iqa": "metrics of image quality by pyiqa (MUSIQ, NIMA, TOPIQ, ...); non-commercial licence",
    "ray": "score and generate on a cluster, and the service `serve`",
    "remote": "judges on a server: of `cogguided serve`, vLLM, SGLang, ...",
    "torchmetrics": "scorers as torchmetrics metrics",
    "ui": "a page to work in, cogguided ui",
    "embedded": "training the embedded model again",
    "test": "running the tests",
    "docs": "building the site of the documentation",
    "browser-test": "running the tests of the page in a browser",
    "dev": "working on the code: tests, ruff, mypy",
}
"""What each extra of pyproject.toml is for."""


def installed(package: str) -> str | None:
    """Return the version of an installed package, or None.

    >>> installed("no-such-package") is None
    True
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def extra_packages(extra: str) -> list[str]:
    """Return the packages that an extra brings, by the metadata of the installed cogguided.

    >>> extra_packages("embedded")
    ['resvg_py', 'scikit-learn', 'scipy']
    """
    found = []
    for requirement in requires("cogguided") or ():
        match = re.match(r"([\w.-]+)[^;]*;.*extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if match and match[2] == extra and match[1] != "cogguided":
            found.append(match[1])
    return found


def devices() -> list[str]:
    """Return the devices that torch can use here, best first.

    >>> devices()[-1][:3]
    'cpu'
    """
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} ({facts.name}, {facts.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, f"cpu ({torch.get_num_threads()} threads)"]


def attention_backends(device: str | None = None) -> dict[str, str | None]:
    """Return every attention back-end of the installed diffusers, and why it does not work here; None: it does.

    A denoiser that is a transformer takes one by `pipe.transformer.set_attention_backend(name)`.

    Args:
        device: where; default: the GPU if there is one.

    >>> attention_backends("cpu")["native"] is None
    True
    """
    import torch
    from diffusers.models.attention_dispatch import AttentionBackendName

    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return {backend.value: _why_not(backend, place) for backend in AttentionBackendName}


def _why_not(backend: Any, device: str) -> str | None:
    import torch
    from diffusers.models import attention_dispatch

    try:
        attention_dispatch._check_attention_backend_requirements(backend)
    except RuntimeError as error:
        found = re.search(r"[Pp]lease (?:install it with )?(.+?)\.?$", str(error))
        return found[1].replace("`", "") if found else str(error)
    if "_HUB" in backend.name:
        return "fetches its kernel from the Hub when it is first used, so it is not tried here"
    if backend.name == "FLEX":  # takes seconds to compile: its package is looked for only
        return None
    kinds = [torch.float32] if device == "cpu" else [torch.float16, torch.bfloat16]
    why = ""
    for kind in kinds:
        query = torch.ones(1, 64, 2, 64, device=device, dtype=kind)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # of kernels that are tried in vain
                attention_dispatch.dispatch_attention_fn(query, query, query, backend=backend)
            return None
        except (RuntimeError, ValueError, NotImplementedError, TypeError, ImportError, AssertionError) as error:
            why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"fails on {device}: {why}"


def environment() -> dict[str, Any]:
    """Return all of it in JSON's types.

    >>> sorted(environment())
    ['attention', 'devices', 'extras', 'packages', 'versions']
    """
    return {
        "versions": {"cogguided": __version__, "python": platform.python_version()},
        "packages": {name: installed(name) for name in PACKAGES},
        "devices": devices(),
        "attention": attention_backends(),
        "extras": {
            extra: {"adds": what, "packages": {name: installed(name) for name in extra_packages(extra)}}
            for extra, what in EXTRAS.items()
        },
    }


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command()(scorers)
    app.command()(check_scorer)
    app.command()(info)


@friendly
def scorers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what images can be scored for, and where the scores come from."""
    from dataclasses import asdict

    from ..scorers import list_scorers

    infos = list_scorers()
    if as_json:
        out.print_json(data=[asdict(info) for info in infos])
        return
    table = narrow_table("name", "range", "grounding", last="what; from where, under which licence")
    for info in infos:
        limits = "" if info.low is None else f"{info.low:g} to {info.high:g}"
        summary = info.summary.rstrip(".") + (" (needs a prompt)" if info.needs_prompt else "")
        terms = f"; {info.licence}, commercial use: {info.commercial or 'ask'}" if info.licence else ""
        table.add_row(info.name, limits, info.grounding, f"{summary}\n{info.source}{terms}")
    out.print(table)


@friendly
def check_scorer(
    name: Annotated[str, typer.Argument(help="A judge whose authors publish values for their demo images.")],
    folder: Annotated[
        Path | None, typer.Option("--images", help="Their images, if you have them; else they are fetched.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Weights, if not those of the name.")] = None,
) -> None:
    """Compare a judge, with its real weights, with the values that its authors publish for their demo images."""
    from ..scorers.published import check

    table = narrow_table("image", "published", "here", "difference", last="")
    rows, allowed = check(name, folder, model)
    for image, published, here in rows:
        verdict = "agrees" if abs(here - published) <= allowed else "DIFFERS"
        table.add_row(image, f"{published:.4f}", f"{here:.4f}", f"{here - published:+.4f}", verdict)
    out.print(table)
    if not all(abs(here - published) <= allowed for _, published, here in rows):
        raise ModelError(f"{name}: differs from its authors' values by more than {allowed:g}")


@friendly
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, attention back-ends, what is installed and what each extra would add."""
    facts = environment()
    if as_json:
        out.print_json(data=facts)
        return
    table = Table("package", "version")
    for name, number in {**facts["versions"], **facts["packages"]}.items():
        table.add_row(name, number or "not installed")
    out.print(table)
    out.print("devices: " + ", ".join(facts["devices"]), highlight=False)
    table = Table("attention back-ends of diffusers", "here")
    reasons: dict[str | None, list[str]] = {None: []}
    for name, why in facts["attention"].items():
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        table.add_row(", ".join(names), why or "work: pipe.transformer.set_attention_backend(NAME)")
    out.print(table)
    table = narrow_table("extra", "installed", last="adds, and what it brings")
    for name, extra in facts["extras"].items():
        present = bool(extra["packages"]) and None not in extra["packages"].values()
        table.add_row(name, "yes" if present else "no", f"{extra['adds']} (brings {', '.join(extra['packages'])})")
    out.print(table)
    out.print('pip install "cogguided[extra]" installs one', highlight=False)


def narrow_table(*columns: str, last: str) -> Table:
    """Return a table in which only the last column is wrapped, so that it reads well in 80 columns."""
    table = Table()
    for name in columns:
        table.add_column(name, no_wrap=True)
    table.add_column(last)
    return table
