"""Reading what the command line was given."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .._defaults import AUTO
from .._errors import InputError
from .._texts import decode, prompt_lines, read_text

if TYPE_CHECKING:
    from ..integrations.ray import Workers
    from ..pipelines import CogGuidedPipeline

RAY = typer.Option(
    "--ray",
    help="Work on Ray: 'local' (processes on this machine), 'auto' (the cluster that this machine is in), or its "
    "host:port. Extra ray.",
)
WORKERS = typer.Option("--workers", min=1, help="With --ray: processes, each with one loaded model.")
READOUT = typer.Option(
    help="How an MLLM is read: expected, greedy, levels or yes_no; default: as it is meant to be."
)
LEVELS = typer.Option(help="Words that may answer it and their values, as in bad=1,good=5; case does not matter.")
LOW = typer.Option(help="Lowest value; default: of the levels.")
HIGH = typer.Option(help="Highest value; default: of the levels.")
GPUS = typer.Option("--gpus-per-worker", min=0, help="With --ray: of each; 0.5 lets two share one.")


def read_workers(address: str | None, count: int, gpus: float) -> Workers | None:
    """Return the workers that --ray asks for, None without it.

    >>> read_workers("local", 2, 0.5), read_workers(None, 2, 0)
    (Workers(address='local', count=2, gpus=0.5), None)
    """
    if address is None:
        return None
    from ..integrations.ray import Workers

    return Workers(address, count, gpus)


def read_prompts(prompts: list[str] | None, file: Path | None) -> list[str]:
    """Return the prompts given as arguments and those in a file, one a line; "-" is standard input.

    Lines that begin with "#" are comments.

    Raises:
        InputError: the file is no text.

    >>> read_prompts(["a cat"], None)
    ['a cat']
    """
    texts = list(prompts or [])
    if file is not None:
        texts += prompt_lines(
            decode(sys.stdin.buffer.read(), "standard input") if str(file) == "-" else read_text(file)
        )
    if not texts:
        raise typer.BadParameter("give a prompt, or --prompts FILE", param_hint="PROMPTS")
    return texts


def read_size(size: str | None) -> dict[str, int]:
    """Return width and height of "512" or "768x512".

    >>> read_size("768x512")
    {'width': 768, 'height': 512}
    """
    if size is None:
        return {}
    width, _, height = size.lower().partition("x")
    if not width.isdigit() or not (height or width).isdigit():
        raise typer.BadParameter(f"expected 512 or 768x512, got {size!r}", param_hint="--size")
    return {"width": int(width), "height": int(height or width)}


def read_values(pairs: list[str] | None) -> dict[str, Any]:
    """Return arguments of "name=value" texts; a value is JSON, or else text.

    >>> read_values(["guidance_scale=5", "negative_prompt=blurry"])
    {'guidance_scale': 5, 'negative_prompt': 'blurry'}
    """
    settings = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected name=value, got {pair!r}", param_hint="--set")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


def read_question(
    readout: str | None, question: str | None, levels: str | None, low: float | None, high: float | None
) -> dict[str, Any]:
    """Return the arguments of `load_scorer` that were given; levels are "word=value" with commas between.

    >>> read_question("levels", "Mood?", "very sad=-1, glad=1", None, None)["levels"]
    {'very sad': -1.0, 'glad': 1.0}
    """
    values: dict[str, float] = {}
    for part in (levels or "").split(",") if levels is not None else ():
        word, _, value = (piece.strip() for piece in part.rpartition("="))
        try:
            number = float(value)
        except ValueError:
            number = None
        if not word or number is None or word in values:
            raise typer.BadParameter(
                f"expected words and values, each once, as in bad=1,good=5, got {levels!r}", param_hint="--levels"
            )
        values[word] = number
    given = {"readout": readout, "question": question, "levels": values or None, "low": low, "high": high}
    return {name: value for name, value in given.items() if value is not None}


def load_asked(judge: str | None, name: str | None, own: dict[str, Any]) -> Any:
    """Load an MLLM that is read, or asked, as `read_question` says; `name` names the score of a question of its own.

    Raises:
        InputError: no judge, or one that is no MLLM.

    >>> load_asked("fake", None, {"readout": "greedy"})
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: scorer 'fake' is no MLLM: --readout cannot be used with it
    """
    from ..scorers import load_scorer
    from ..scorers.registry import scorer_arguments

    flags = ", ".join(f"--{flag}" for flag in own)
    if judge is None:
        raise InputError(f"{flags}: say by --scorer which MLLM is meant")
    takes = scorer_arguments(judge)
    if "readout" not in takes:
        raise InputError(f"scorer '{judge}' is no MLLM: {flags} cannot be used with it")
    if name is not None and "question" in own and "dimension" not in takes:
        raise InputError(f"--question: '{judge}' has one name for one score; give its model's folder or hub name")
    named = {"dimension": name} if name is not None and "dimension" in takes else {}
    return load_scorer(judge, **own, **named)


def read_dtype(name: str) -> Any:
    """Return the torch dtype of a name.

    >>> read_dtype("float16")
    torch.float16
    """
    import torch

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes:
        raise typer.BadParameter(f"expected one of {', '.join(dtypes)}, got {name!r}", param_hint="--dtype")
    return dtypes[name]


def best_device(name: str | None = None) -> Any:
    """Return a device by name, or the first there is of cuda, mps and cpu.

    Raises:
        InputError: no such device here.

    >>> best_device("cpu")
    device(type='cpu')
    """
    import torch

    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def place(pipe: Any, device: str | None, offload: bool = False) -> None:
    """Put a pipeline on a device by name, or the best there is; `offload`: each part only while it is needed.

    >>> place(None, "no such device")
    Traceback (most recent call last):
    ...
    cogguided._errors.InputError: device 'no such device' cannot be used here: ...
    """
    where = best_device(device)
    if offload:
        pipe.enable_model_cpu_offload(device=where)
    else:
        pipe.to(where)


@dataclass(frozen=True)
class Asked:
    """What the command line says of the pipeline and its guidance; loaded here, or by each worker of Ray."""

    model: str
    target: str | None
    scorer: str | None
    dtype: str
    device: str | None
    offload: bool
    proposer: str
    search: tuple[Any, ...]
    few: bool
    own: dict[str, Any]

    def load(self) -> CogGuidedPipeline:
        """Load the pipeline, with its guidance as its own.

        Executed in ``tests/pipelines/test_many_prompts.py``.
        """
        from ..guidance.search.named import named_guidance
        from ..pipelines import CogGuidedPipeline

        pipe: CogGuidedPipeline = CogGuidedPipeline.from_pretrained(
            self.model, target=self.target, scorer=self._judge(), dtype=read_dtype(self.dtype)
        )
        place(pipe, self.device, self.offload)
        scored = any(wish is not None for wish in (self.target, self.scorer, pipe.target, pipe.scorer))
        if pipe.guidance and self.search == (AUTO, None, 1, None, None, None, None):
            return pipe
        search, n, keep, rewrite, batch_size, draft_steps, full = self.search
        pipe.guidance = named_guidance(
            search, n, keep, rewrite, self.proposer, scored, batch_size, draft_steps, full, self.few
        )
        return pipe

    def _judge(self) -> Any:
        """What scores: a name, or an MLLM loaded to be asked in the way that was said."""
        from ..scorers.target import parse_weights

        if not self.own:
            return self.scorer
        first = next(iter(parse_weights(self.target)), None) if self.target is not None else None
        if "question" in self.own:
            return load_asked(self.scorer, first, self.own)
        return load_asked(self.scorer or first, None, self.own)


def meanings(settings: type) -> dict[str, str]:
    """Return what each setting of a class is, out of the "Attributes:" of its documentation.

    >>> from ..guidance.finetuning import FinetuneConfig
    >>> meanings(FinetuneConfig)["weight_decay"]
    'of AdamW.'
    """
    text = (settings.__doc__ or "").partition("Attributes:")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        words = line.strip()
        head, colon, rest = words.partition(": ")
        if colon and head.isidentifier():
            name = head
            found[name] = rest
        elif name and words:
            found[name] += f" {words}"
    return found


def silence_libraries(generator: bool = True) -> None:
    """Leave the terminal to our own progress bar; `generator`: also diffusers, slow to import."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if generator:
        from diffusers.utils import logging as diffusers_logging

        diffusers_logging.disable_progress_bar()
