"""Could a search leave bad noises out before they are drawn? What a look after few steps knows of the finished image.

On the embedded model, for 40 prompts x 32 seeds (of each prompt its own) and five steps: the scores of the finished
images, and after each step two forecasts of them:

- the judge's own look: the clean image that the latents predict, decoded and scored, as `Halving` does;
- a surrogate: ridge regression from those predicted latents to the score, fitted to the images of other prompts (five
  folds; prompts with the same last word are in one), as a search could learn it from what it has scored so far.

The first table is each forecast's correlation with the score, within prompts. The second draws from these images what
a search would get that begins `first` noises, stops after some steps all but the `kept` that are forecast best,
finishes and scores these, and takes the best; its price is that of the steps and looks it took, by two proportions:
as measured here in processor time of one thread, and with a generator whose 20 steps cost 30 times one score.

    python benchmarks/screening.py --out out/screening            # collects what is missing, then reports
    python benchmarks/screening.py --out out/screening --report   # of what is there

Gains are in means over dimensions of (best - mean), of best-of-16's; intervals 95 %, bootstrap over families of prompts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import QwenImagePipeline
from search import DEV

from cogguided import CogGuidedPipeline

DIMENSIONS = ("emotional_valence", "funniness", "memorability")
SEEDS, BATCH = 32, 16
PLANS = [
    (16, 0, 16), (8, 0, 8), (10, 0, 10),
    (32, 1, 5), (32, 1, 8), (24, 2, 6), (24, 2, 8), (16, 2, 6), (16, 3, 6),
]  # fmt: skip
"""First noises, steps after which they are forecast (0: never), and how many are finished."""
RATIO = 30
"""Price of 20 steps in scores, with a large generator: one of seconds and a judge of tenths."""


class Collecting:
    """The generator, step by step, and the judges, with the processor time that each takes an image."""

    def __init__(self, steps: int) -> None:
        guided = CogGuidedPipeline.from_pretrained("embedded")
        self.pipe = QwenImagePipeline(**guided.components)
        self.pipe.set_progress_bar_config(disable=True)
        self.arguments = {**guided._settings.call_defaults, "num_inference_steps": steps}
        self.judges = [guided.load_target(name) for name in DIMENSIONS]
        mean, std = (torch.tensor(self.pipe.vae.config[f"latents_{k}"]).view(1, -1, 1, 1, 1) for k in ("mean", "std"))
        self.mean, self.std = mean, std
        self.steps = steps

    @torch.inference_mode()
    def draw(self, prompt: str, seeds: list[int]) -> tuple[list[torch.Tensor], float]:
        """Return the clean latents predicted after each step, the last the finished ones, and seconds a step."""
        size, count = self.arguments["height"], len(seeds)
        noise = [torch.Generator().manual_seed(s) for s in seeds]
        channels = self.pipe.transformer.config.in_channels // 4
        before = [self.pipe.prepare_latents(count, channels, size, size, torch.float32, "cpu", noise)]
        clean: list[torch.Tensor] = []

        def follow(pipe: Any, step: int, at: Any, kept: dict[str, Any]) -> dict[str, Any]:
            now, sigmas = kept["latents"], pipe.scheduler.sigmas
            speed = (now - before[-1]) / (sigmas[step + 1] - sigmas[step])
            clean.append(now - sigmas[step + 1] * speed)
            before.append(now)
            return kept

        noise = [torch.Generator().manual_seed(s) for s in seeds]
        begun = time.process_time()
        self.pipe(
            prompt, num_images_per_prompt=count, generator=noise, output_type="latent",
            callback_on_step_end=follow, **self.arguments,
        )  # fmt: skip
        return clean, (time.process_time() - begun) / count / self.steps

    @torch.inference_mode()
    def look(self, clean: torch.Tensor) -> tuple[np.ndarray, list[float]]:
        """Return scores (B, dimensions), and the seconds of decoding and of one score an image."""
        size, count = self.arguments["height"], len(clean)
        begun = time.process_time()
        latents = self.pipe._unpack_latents(clean, size, size, self.pipe.vae_scale_factor)
        decoded = self.pipe.vae.decode(latents * self.std + self.mean, return_dict=False)[0][:, :, 0]
        images = self.pipe.image_processor.postprocess(decoded, output_type="pil")
        drawn = time.process_time()
        scores = np.stack([judge(images).total.numpy() for judge in self.judges], 1)
        return scores, [(drawn - begun) / count, (time.process_time() - drawn) / count / len(DIMENSIONS)]

    def prompt(self, number: int) -> dict[str, np.ndarray]:
        """All of one prompt: latents (seeds, steps, ...), scores (seeds, steps, dimensions), seconds (3,)."""
        latents, scores, seconds = [], [], []
        for start in range(0, SEEDS, BATCH):
            seeds = [1000 * number + start + k for k in range(BATCH)]
            clean, each = self.draw(DEV[number], seeds)
            looks = [self.look(c) for c in clean]
            latents.append(torch.stack(clean, 1).flatten(2).half().numpy())
            scores.append(np.stack([look for look, _ in looks], 1))
            seconds.append([each, *np.mean([spent for _, spent in looks], 0)])
        return {
            "latents": np.concatenate(latents), "scores": np.concatenate(scores), "seconds": np.mean(seconds, 0),
        }  # fmt: skip


def collect(out: Path, steps: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    collecting: Collecting | None = None
    for number, prompt in enumerate(DEV):
        file = out / f"{number:02}.npz"
        if file.exists():
            continue
        collecting = collecting or Collecting(steps)
        part = file.with_suffix(".part.npz")
        np.savez(part, **collecting.prompt(number))  # type: ignore[arg-type]
        part.replace(file)
        print(f"{number + 1} of {len(DEV)}: {prompt}", flush=True)


class Images:
    """What was collected: scores (prompts, seeds, steps, dimensions) in spreads within prompts, forecasts alike."""

    def __init__(self, out: Path) -> None:
        files = sorted(f for f in out.glob("??.npz"))
        found = [dict(np.load(file)) for file in files]
        if len(found) < 10:
            raise SystemExit(f"{out}: {len(found)} prompts are there; run without --report first")
        self.families = np.array([DEV[int(f.stem)].split()[-1] for f in files])
        self.seconds = np.median([one["seconds"] for one in found], 0)
        looks = np.stack([one["scores"] for one in found]).astype(float)
        self.scores = looks[:, :, -1]
        self.forecasts = {"the judge's look": looks, "a surrogate": self.surrogate([one["latents"] for one in found])}
        self.steps = looks.shape[2]

    def surrogate(self, latents: list[np.ndarray]) -> np.ndarray:
        """Return forecasts of each prompt by a ridge fitted to those of other families."""
        prompts, seeds, dims = self.scores.shape
        wanted = (self.scores - self.scores.mean(1, keepdims=True)).reshape(prompts * seeds, dims)
        names = sorted(set(self.families))
        fold = np.repeat([names.index(name) % 5 for name in self.families], seeds)
        made = []
        for step in range(latents[0].shape[1]):
            seen = np.concatenate(
                [one[:, step].astype(float) - one[:, step].astype(float).mean(0) for one in latents]
            )
            kernel = seen @ seen.T
            kernel /= np.trace(kernel) / len(kernel)
            told = np.zeros_like(wanted)
            for part in range(5):
                there, here = fold != part, fold == part
                fitted = np.linalg.solve(kernel[np.ix_(there, there)] + np.eye(there.sum()), wanted[there])
                told[here] = kernel[np.ix_(here, there)] @ fitted
            made.append(told.reshape(prompts, seeds, dims))
        return np.stack(made, 2)


def bootstrap(values: np.ndarray, families: np.ndarray, count: int = 2000) -> tuple[float, float, float]:
    """Return the mean of values by prompt, or the ratio of means of two columns, with its 95 % interval."""
    rng, names = np.random.default_rng(0), sorted(set(families))
    where = [np.flatnonzero(families == name) for name in names]

    def told(rows: np.ndarray) -> float:
        means = np.nanmean(values[rows], 0)
        return float(means if means.ndim == 0 else means[0] / means[1])

    drawn = [told(np.concatenate([where[k] for k in rng.integers(0, len(names), len(names))])) for _ in range(count)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return told(np.arange(len(values))), float(low), float(high)


def correlations(images: Images) -> str:
    lines = ["| after step | forecast | " + " | ".join(DIMENSIONS) + " |", "|---|---|" + "---|" * len(DIMENSIONS)]
    for step in range(images.steps):
        for name, told in images.forecasts.items():
            if step == images.steps - 1 and name != "a surrogate":
                continue
            cells = []
            for d in range(len(DIMENSIONS)):
                pairs = [(told[p, :, step, d], images.scores[p, :, d]) for p in range(len(images.scores))]
                each = [np.corrcoef(*pair)[0, 1] if pair[0].std() * pair[1].std() > 0 else 0.0 for pair in pairs]
                cells.append("{:.2f} [{:.2f}, {:.2f}]".format(*bootstrap(np.array(each), images.families)))
            lines.append(f"| {step + 1} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gains(images: Images, plan: tuple[int, int, int], told: np.ndarray, draws: int = 200) -> np.ndarray:
    """Return the mean gain of a plan for each prompt, in spreads within the prompt, over dimensions and draws."""
    first, after, kept = plan
    rng = np.random.default_rng(1)
    scores = images.scores - images.scores.mean(1, keepdims=True)
    scores /= np.where(scores.std(1, keepdims=True) > 0, scores.std(1, keepdims=True), 1)
    found = np.zeros((draws, len(scores), len(DIMENSIONS)))
    for draw in range(draws):
        taken = rng.permutation(SEEDS)[:first]
        finished = scores[:, taken]
        if after:
            order = np.argsort(-told[:, taken, after - 1], 1)[:, :kept]
            finished = np.take_along_axis(finished, order, 1)
        found[draw] = finished.max(1)
    return found.mean((0, 2))


def prices(images: Images, plan: tuple[int, int, int], looks: bool) -> list[float]:
    """Return what a plan costs, of best-of-16 at as many steps: as measured here, and by `RATIO`."""
    step, decode, score = images.seconds
    paid = []
    for each, seen in ((step, decode + score), (RATIO / 20, 1.0)):
        costs = []
        for first, after, kept in (plan, (16, 0, 16)):
            drawn = first * after + kept * (images.steps - after)
            costs.append(drawn * each + (kept + (first if looks and after else 0)) * seen)
        paid.append(costs[0] / costs[1])
    return paid


def report(images: Images) -> None:
    step, decode, score = images.seconds * 1000
    print(f"{len(images.scores)} prompts x {SEEDS} seeds, {images.steps} steps. Processor time an image: a step")
    print(f"{step:.1f} ms, decoding {decode:.1f} ms, one score {score:.1f} ms.\n\n{correlations(images)}\n")
    print(
        "| begun | forecast after | by | finished | gain, of best-of-16's | price here | price, a large generator |"
    )
    print("|---|---|---|---|---|---|---|")
    whole = gains(images, PLANS[0], images.scores[:, :, None])
    for plan in PLANS:
        for name, told in images.forecasts.items() if plan[1] else [("", images.scores[:, :, None])]:
            ratio = bootstrap(np.stack([gains(images, plan, told), whole], 1), images.families)
            here, large = prices(images, plan, name == "the judge's look")
            cells = "{:.2f} [{:.2f}, {:.2f}]".format(*ratio)
            after = f"step {plan[1]}" if plan[1] else "never"
            print(f"| {plan[0]} | {after} | {name} | {plan[2]} | {cells} | {here:.2f} | {large:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/screening"))
    parser.add_argument("--steps", type=int, default=5, help="of each image (default: 5)")
    parser.add_argument("--report", action="store_true", help="of what is there; draw nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.report:
        collect(args.out, args.steps)
    report(Images(args.out))


if __name__ == "__main__":
    main()
