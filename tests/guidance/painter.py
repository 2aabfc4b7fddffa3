"""A generator of plain colours, and what goes with it, for tests of what a search decides."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from cogguided import Budget, FakeScorer
from cogguided.guidance import Request, Run
from cogguided.scorers import Scores, load_target

WORLD = {"a cat": (100, 200), "a better cat": (150, 199), "a great dog": (240, 100), "the same cat": (100, 200)}


@dataclass(frozen=True)
class Rows:
    prompts: tuple
    noise: tuple
    done: int = 0
    steps: int = 0
    total: int = 10

    def select(self, rows):
        return replace(self, prompts=tuple(self.prompts[i] for i in rows), noise=tuple(self.noise[i] for i in rows))


class Painter:
    """A generator whose images are grounds of one colour: red says how good a wording is, green how faithful."""

    def __init__(self, worlds, noise=4, paired=True):
        self.worlds, self.noise, self.paired, self.nfe, self.drawn = worlds, noise, paired, 0, []

    def begin(self, prompts, noise, overrides=None):
        return Rows(tuple(prompts), tuple(noise), total=(overrides or {}).get("num_inference_steps", 10))

    def advance(self, rows, until, eta=0.0, seeds=None):
        self.nfe += len(rows.prompts) * rows.total
        return replace(rows, done=round(until * rows.total), steps=rows.total)

    def decode(self, rows, clean=False, quick=False):
        self.drawn += [(p, n.seed, rows.total) for p, n in zip(rows.prompts, rows.noise, strict=True)]
        images = []
        for prompt, noise in zip(rows.prompts, rows.noise, strict=True):
            good, faithful = self.worlds[prompt]
            own = 0 if self.paired else len(prompt)
            jitter = int(np.random.default_rng([noise.seed, own]).integers(-self.noise, self.noise + 1))
            images.append(Image.new("RGB", (4, 4), (good + jitter, faithful, 0)))
        return images, [{"entry": 0, "index": i} for i in range(len(images))]

    def join(self, parts):
        first = parts[0]
        return replace(first, prompts=sum((p.prompts for p in parts), ()), noise=sum((p.noise for p in parts), ()))


class Channel(FakeScorer):
    """The mean of one colour channel, 0 to 1."""

    def __init__(self, channel, name):
        super().__init__(name)
        self.channel = channel

    def __call__(self, images, prompts=None):
        return Scores(torch.tensor([np.asarray(im)[..., self.channel].mean() / 255 for im in images]))


class Listed:
    """Proposes what it was given, and remembers what it was told."""

    name = "listed"

    def __init__(self, *rounds):
        self.rounds, self.told = list(rounds), []

    def propose(self, prompt, target, history, n, seed):
        self.told.append(list(history))
        return self.rounds.pop(0) if self.rounds else []


def run_of(painter, prompts=("a cat",), budget=None):
    requests = [Request(i, prompt, 0) for i, prompt in enumerate(prompts)]
    target = load_target({Channel(0, "red"): 1.0})
    return Run(requests, painter, target, Budget.parse(budget), load=lambda name: Channel(1, name))
