"""Reading a call: prompts, seeds and generators; and the plain call that no guidance takes part in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from .._errors import GenerationError, InputError
from ..guidance import BestOfN, Candidate, Guidance, Request, Run
from ..guidance.memory import is_out_of_memory
from ..guidance.run import NOT_SCORED
from ..guidance.types import Interrupted
from .arguments import PICTURES, is_text_argument
from .driving.sampler import PipelineSampler, cpu_generator
from .records.global_noise import state_of

Prompt = str | Sequence[str] | None


def wants_base_output(arguments: dict[str, Any], guided: bool) -> bool:
    """Whether a call asks for the base pipeline's own output: tensors, arrays, latents or a tuple.

    Raises:
        InputError: it does, although there is something to score or choose.

    >>> wants_base_output({"output_type": "latent"}, guided=False)
    True
    """
    raw = arguments.get("output_type", "pil") != "pil" or not arguments.get("return_dict", True)
    if raw and guided:
        raise InputError(
            "output_type and return_dict give the base pipeline's own output, which cannot be scored or "
            "chosen from: leave them out, or call without target and guidance"
        )
    return raw


BLOCK = 10_000
"""Seeds between equal prompts of a guided call, so that their candidates differ."""


def read_requests(
    prompt: Prompt, seed: int | Sequence[int] | None, arguments: dict[str, Any], guided: bool = False
) -> list[Request]:
    """Read prompts and seeds into one request a prompt; -1 is the seed of noise that comes from elsewhere.

    That is from generators that are given, or, where nothing is guided and no seed is given, from torch's global
    state, as in the base pipeline. With one seed for all, a prompt that occurs again gets the next one, or guided
    `BLOCK` further.

    Raises:
        InputError: no prompt, one that is no text, or seeds that do not fit.

    >>> read_requests(["a cat", "a dog"], 7, {})
    [Request(index=0, prompt='a cat', seed=7), Request(index=1, prompt='a dog', seed=7)]
    >>> [request.seed for request in read_requests(["a cat", "a dog", "a cat"], 7, {})]
    [7, 7, 8]
    >>> read_requests("a cat", None, {})
    [Request(index=0, prompt='a cat', seed=-1)]
    """
    if prompt is None:
        if arguments.get("prompt_embeds") is None:
            raise InputError("prompt: give a text, or a list of texts")
        prompts = [""] * len(arguments["prompt_embeds"])
    else:
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise InputError("prompt: the list is empty")
    for text in prompts:
        if not isinstance(text, str):
            raise InputError(f"prompt: expected text, got {type(text).__name__}")
        half = re.search("[\ud800-\udfff]", text)
        if half is not None:
            raise InputError(
                f"prompt: character {half.start() + 1} is half of one ({half[0]!a}, a lone surrogate), which no "
                "tokenizer takes: the text was cut or decoded wrongly"
            )
    if arguments.get("generator") is None and (guided or seed is not None):
        seeds = read_seeds(seed, len(prompts))
        if isinstance(seed, int):
            before: Counter[str] = Counter()
            for place, text in enumerate(prompts):
                seeds[place] = (seeds[place] + (BLOCK if guided else 1) * before[text]) % 2**63
                before[text] += 1
    elif seed is None:
        seeds = [-1] * len(prompts)
    else:
        raise InputError("give seed= or generator=, not both")
    return [Request(i, text, first) for i, (text, first) in enumerate(zip(prompts, seeds, strict=True))]


def read_seeds(seed: Any, count: int) -> list[int]:
    """Return the first seed of each of `count` prompts; for None each is drawn from torch's state.

    Raises:
        InputError: another number of seeds, or one that is no whole number from 0.

    >>> read_seeds(3, 2), read_seeds([3, 4], 2)
    ([3, 3], [3, 4])
    """
    if seed is None:
        seed = torch.randint(2**31, (count,)).tolist()
    seeds = list(seed) if isinstance(seed, list | tuple | range) else [seed] * count
    if len(seeds) != count:
        raise InputError(f"seed: expected one for all prompts or one for each of {count}, got {len(seeds)}")
    for value in seeds:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise InputError(f"seed: expected a whole number from 0 to 2^63 - 1, got {value!r}")
    return seeds


def generators(requests: Sequence[Request], arguments: dict[str, Any]) -> Any:
    """Return what the base call gets as `generator`: the caller's, one per image from the seeds, or None.

    >>> [g.initial_seed() for g in generators([Request(0, "a cat", 7)], {"num_images_per_prompt": 2})]
    [7, 8]
    """
    if arguments.get("generator") is not None or requests[0].seed < 0:
        return arguments.get("generator")
    images = arguments.get("num_images_per_prompt") or 1
    return [cpu_generator(request.seed + k) for request in requests for k in range(images)]


def fresh_seed(generator: torch.Generator) -> int | None:
    """Return the seed that makes a generator again; None if it was used before or is not on the CPU.

    >>> fresh_seed(torch.Generator().manual_seed(7))
    7
    """
    seed = generator.initial_seed()
    if generator.device.type != "cpu":
        return None
    return seed if torch.equal(generator.get_state(), cpu_generator(seed).get_state()) else None


def plan(
    steps: Sequence[Guidance], prompt: Prompt, sampler: PipelineSampler, requests: Sequence[Request]
) -> Sequence[Guidance]:
    """Return the steps of a call; without guidance, one image per prompt in one batch, as the base does it.

    Raises:
        InputError: guidance together with arguments that tie a call together.
    """
    tied = tied_arguments(sampler.arguments)
    if steps and tied:
        instead = list(dict.fromkeys(in_place_of(name) for name in tied))
        raise InputError(
            f"guidance draws batches of its own, which {', '.join(tied)} cannot follow: {'; '.join(instead)}"
        )
    if tied or (not steps and requests[0].seed < 0):
        return [OneCall(prompt, sampler)]
    return steps or [BestOfN(1, batch_size=len(requests))]


def tied_arguments(arguments: dict[str, Any]) -> list[str]:
    """Return the arguments that tie the images of a call together, so that it cannot be cut into batches.

    >>> tied_arguments({"negative_prompt": " ", "num_images_per_prompt": 4})
    ['num_images_per_prompt']
    """
    tied = [n for n, v in arguments.items() if is_text_argument(n) and isinstance(v, list)]
    tied += [n for n in PICTURES if isinstance(arguments.get(n), list)]
    tied += [n for n in ("generator", "latents", "num_images_per_prompt") if arguments.get(n) is not None]
    return sorted(tied + [n for n, v in arguments.items() if n.endswith("prompt_embeds") and v is not None])


def in_place_of(tied: str) -> str:
    """Say what to give under guidance in the place of an argument that ties a call together.

    >>> in_place_of("latents")
    'seed= in place of latents'
    """
    if tied.endswith("prompt_embeds"):
        return f"a text, prompt=, in place of {tied} (or call unguided; or swap the text encoder)"
    if tied in ("generator", "latents"):
        return f"seed= in place of {tied}"
    if tied == "num_images_per_prompt":
        return "keep= of the guidance in place of num_images_per_prompt"
    return f"one {'picture' if tied in PICTURES else 'text'} for all prompts as {tied}"


class OneCall:
    """The base pipeline's call exactly as asked for; its images become candidates, all of them kept."""

    name = "one_call"

    def __init__(self, prompt: Prompt, sampler: PipelineSampler) -> None:
        self.prompt = prompt if prompt is None or isinstance(prompt, str) else list(prompt)
        self.sampler = sampler

    def __call__(self, run: Run) -> None:
        """Make and score the images of a run."""
        given = generators(run.requests, self.sampler.arguments)
        self.sampler.arguments.pop("generator", None)
        each = given if isinstance(given, list) else [given]
        device = self.sampler.pipe._execution_device
        seeds = [fresh_seed(g or torch.default_generator) if g or device.type == "cpu" else None for g in each]
        state = {} if given is not None else {"state": state_of(device)}
        started = run.seconds
        stopped: Interrupted | None = None
        try:
            images = self.sampler.call(self.prompt, given)
        except Interrupted as caught:
            images, stopped = caught.images, caught
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise GenerationError(
                f"out of memory with the {len(run.requests)} prompts of this call in one batch, as the base pipeline "
                "draws them: pass seed=, which lets the batch be halved, or fewer prompts, or offload "
                "(pipe.enable_model_cpu_offload())"
            ) from error
        sampled = run.seconds
        run.keep = len(images) // len(run.requests)
        if len(seeds) != len(images):
            seeds = [None] * len(images)  # one generator drew the noise of several images
        texts = [run.requests[i // run.keep].prompt for i in range(len(images))]
        for i, image in enumerate(images):
            batch = {"prompts": texts, "seeds": seeds, "index": i, **state}
            seconds = {"sample": (sampled - started) / len(images)}
            made = Candidate(image, texts[i], seeds[i], i // run.keep, seconds=seconds, batch=batch)
            if run.target is not None:
                made.valid, made.error = False, NOT_SCORED
            made.finished = stopped is None
            run.candidates.append(made)
        if stopped is not None:
            raise stopped
        run.score(run.candidates)
        for candidate in run.candidates:
            candidate.seconds["score"] = (run.seconds - sampled) / len(images)
