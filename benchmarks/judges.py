"""Scores a second of every judge, beside its reference way: the authors' script, which takes one image at a time.

    python benchmarks/judges.py                            all, at tiny random size, and the embedded MLLM as it is
    python benchmarks/judges.py --only pickscore embedded:expected --repeats 15 --clock cpu
    python benchmarks/judges.py --json > judges.json

Both ways hold the same weights, loaded once, and take turns in one run, so that a busy machine hits both. Printed are the
medians, the ratio within each turn with its quartiles, and by how much their values differ at most, in parts of the range.
`--clock cpu` counts processor time, all threads together, which other programs disturb less.

The tiny judges are those of the tests (tests/scorers). At that size a judge is mostly overhead, which batches save; at full
size they save less on a CPU, and on a GPU as much as one image leaves idle. The reference ways: CLIP, SigLIP and MLLMs by
transformers' own calls, HPS v2 by open_clip's, each image by itself; the CogIP-Bench loop: one `generate` of at most 100
tokens a dimension and image, parsed (ours in batches of 32; expected is compared with it in time alone: it says more than the loop does); ImageReward
and CLIP-IQA, whose authors' code does not run on current packages: their formula on our network, each image by itself.
pyiqa is not here: its metrics take one image at a time in both ways.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging as tf_logging

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "scorers"))

from cogguided.scorers import load_scorer  # noqa: E402
from cogguided.scorers.mllm.parsing import parse_answer  # noqa: E402

WAYS = ("expected", "greedy", "levels", "yes_no")
SHOWS = 'Does this figure show "{}"? Please answer Yes or No.'
Values = Callable[[list[Image.Image], list[str]], Any]


@dataclass
class Case:
    """Two ways to the same values (images, or images x dimensions), and the width of their range."""

    ours: Values
    one: Callable[[Image.Image, str], Any]
    span: float
    comparable: bool = True


class Folders:
    """Where the tests' builders put their tiny models."""

    def __init__(self, home: Path) -> None:
        self.home, self.count = home, 0

    def mktemp(self, name: str) -> Path:
        self.count += 1
        path = self.home / f"{self.count} {name}"
        path.mkdir()
        return path

    def mllm(self, family: str) -> Path:
        import tiny_mllm

        return tiny_mllm.build(family, self.mktemp(family) / "model")


def values_of(scorer: Any) -> Values:
    return lambda images, prompts: scorer(images, prompts).values


def span_of(scorer: Any) -> float:
    return float(scorer.high - scorer.low)


def pickscore(folders: Folders) -> Case:
    import test_pickscore as tiny
    import transformers as tf

    places = tiny.folders.__wrapped__(folders)
    scorer = load_scorer("pickscore", model=places[0], processor=places[1])
    model, see = tf.CLIPModel.from_pretrained(places[0]).eval(), tf.AutoImageProcessor.from_pretrained(places[1], backend="pil")
    tok = tf.AutoTokenizer.from_pretrained(places[1])

    def one(image: Image.Image, prompt: str) -> torch.Tensor:
        words = tok([prompt], padding=True, truncation=True, max_length=77, return_tensors="pt")
        out = model(**words, **see(images=image, return_tensors="pt"))
        return out.logits_per_image[0, 0]

    return Case(values_of(scorer), one, span_of(scorer))


def siglip(folders: Folders) -> Case:
    import test_siglip as tiny
    import transformers as tf

    place = tiny.folder.__wrapped__(folders)
    scorer = load_scorer("siglip", model=place)
    model, see = tf.SiglipModel.from_pretrained(place).eval(), tf.AutoImageProcessor.from_pretrained(place, backend="pil")
    tok = tf.AutoTokenizer.from_pretrained(place)

    def one(image: Image.Image, prompt: str) -> torch.Tensor:
        words = tok([prompt.lower()], padding="max_length", max_length=64, truncation=True, return_tensors="pt")
        out = model(input_ids=words["input_ids"], **see(images=image, return_tensors="pt"))
        return out.logits_per_image[0, 0].sigmoid()

    return Case(values_of(scorer), one, span_of(scorer))


def hpsv2(folders: Folders) -> Case:
    import open_clip
    import test_hpsv2 as tiny

    from cogguided.scorers.models.hpsv2 import clip_batch, long_side_pad

    place = tiny.folder.__wrapped__(folders)
    scorer: Any = tiny.load(place)
    model: Any = scorer.model
    tokens = open_clip.get_tokenizer(tiny.NAME)

    def one(image: Image.Image, prompt: str) -> torch.Tensor:
        seen = model.encode_image(clip_batch([image], scorer.side, long_side_pad), normalize=True)
        return (seen @ model.encode_text(tokens([prompt]), normalize=True).T)[0, 0]

    return Case(values_of(scorer), one, span_of(scorer))


def laion_aesthetic(folders: Folders) -> Case:
    import test_laion_aesthetic as tiny
    import transformers as tf

    place = tiny.folder.__wrapped__(folders)
    scorer: Any = tiny.load(place)
    see = tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    clip = tf.CLIPVisionModelWithProjection.from_pretrained(place / "clip").eval()

    def one(image: Image.Image, prompt: str) -> torch.Tensor:
        features = clip(**see(images=image, return_tensors="pt")).image_embeds
        return scorer.model["head"](features / features.norm(dim=-1, keepdim=True))[0, 0]

    return Case(values_of(scorer), one, span_of(scorer))


def by_itself(scorer: Any) -> Case:
    """A judge whose authors' code does not run: the formula on our network, each image by itself."""

    def one(image: Image.Image, prompt: str) -> torch.Tensor:
        return scorer.judge(scorer.prepare([image], [prompt])).values[0]

    return Case(values_of(scorer), one, span_of(scorer))


def imagereward(folders: Folders) -> Case:
    import test_imagereward as tiny

    return by_itself(load_scorer("imagereward", model=tiny.folder.__wrapped__(folders)))


def clip_iqa(folders: Folders) -> Case:
    import test_clip_iqa as tiny

    return by_itself(load_scorer("clip_iqa", model=tiny.folder.__wrapped__(folders)))


def asked(scorer: Any, image: Image.Image, question: str, image_first: bool = True, begun: str = "") -> Any:
    """Inputs of one image and question by the processor's own chat template."""
    parts = [{"type": "image"}, {"type": "text", "text": question}]
    chat = [{"role": "user", "content": parts if image_first else parts[::-1]}]
    text = scorer.processor.apply_chat_template(chat, add_generation_prompt=True)
    return scorer.processor(images=[image], text=[text + begun], return_tensors="pt")


def vqascore(folders: Folders) -> Case:
    scorer: Any = load_scorer("vqascore", model=folders.mllm("qwen2_5_vl"), answer="low")
    (token,) = scorer.answer

    def one(image: Image.Image, prompt: str) -> torch.Tensor:
        inputs = asked(scorer, image, scorer.question.replace("{}", prompt))
        out = scorer.model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_scores=True, return_dict_in_generate=True
        )
        return out.scores[0][0].softmax(-1)[token]

    return Case(values_of(scorer), one, span_of(scorer))


def qalign(folders: Folders) -> Case:
    import test_qalign as tiny

    scorer: Any = tiny.load(folders.mllm("llava_onevision"))

    def one(image: Image.Image, prompt: str) -> torch.Tensor:
        logits = scorer.model(**asked(scorer, image, scorer.question, False, scorer.begun)).logits[0, -1]
        return logits[scorer.ids].softmax(-1) @ torch.tensor([5.0, 4, 3, 2, 1])

    return Case(values_of(scorer), one, span_of(scorer))


def hpsv3(folders: Folders) -> Case:
    import test_hpsv3 as tiny

    base = folders.mllm("qwen2_vl")
    scorer: Any = tiny.load(tiny.write(folders.mktemp("hps") / "v3", base), base)

    def one(image: Image.Image, prompt: str) -> torch.Tensor:
        inputs = scorer.prepare([image], [prompt])
        hidden = scorer.model["body"].model(**inputs).last_hidden_state[0]
        return scorer.model["head"](hidden[inputs["input_ids"][0] == scorer.token])[0, 0]

    return Case(values_of(scorer), one, span_of(scorer))


def unified_reward(folders: Folders) -> Case:
    """What is generated, as a number: how many tokens; a random model rates nothing."""
    import test_unified_reward as tiny

    scorer: Any = load_scorer("unified_reward", model=folders.mllm("qwen2_5_vl"), question=tiny.QUESTION)
    scorer.max_new_tokens = 32

    def ours(images: list[Image.Image], prompts: list[str]) -> torch.Tensor:
        return torch.tensor([float(len(text)) for text in scorer.answers(scorer.prepare(images, prompts))])

    def one(image: Image.Image, prompt: str) -> float:
        inputs = asked(scorer, image, scorer.question.replace("{prompt}", prompt))
        out = scorer.model.generate(**inputs, max_new_tokens=32, do_sample=False)
        said = out[0, inputs["input_ids"].shape[1] :]
        return float(len(scorer.processor.tokenizer.decode(said, skip_special_tokens=True)))

    return Case(ours, one, 1.0)


def embedded(readout: str) -> Callable[[Folders], Case]:
    """The embedded judge in all four dimensions, or asked about the prompt."""

    def make(folders: Folders) -> Case:
        scorer: Any = load_scorer("aesthetics", min_mass=0.0, **({} if readout == "yes_no" else {"readout": readout}))
        dims = scorer.facts.dimensions
        if readout == "yes_no":
            place = str(ROOT / "pipelines/embedded/weights/aligned")
            scorer = load_scorer("mllm", model=place, question=SHOWS, readout=readout, min_mass=0.0)
        scorer.batch_size = 32
        spans = np.array([dim.high - dim.low for dim in dims.values()])

        def ours(images: list[Image.Image], prompts: list[str]) -> torch.Tensor:
            if readout == "yes_no":
                return scorer(images, prompts).values
            found = scorer.score_all(images)
            return torch.stack([found[name].values for name in dims], dim=1) / spans

        def logits(image: Image.Image, question: str) -> torch.Tensor:
            return scorer.model(**asked(scorer, image, question)).logits[0, -1]

        def one(image: Image.Image, prompt: str) -> Any:
            tok = scorer.processor.tokenizer
            if readout == "yes_no":  # first tokens: what a script for one model looks up
                shares = logits(image, SHOWS.replace("{}", prompt)).softmax(-1)
                return shares[[tok(w, add_special_tokens=False)["input_ids"][0] for w in ("Yes", "No")]][0]
            values = []
            for dim in dims.values():
                if readout == "levels":
                    ids = [tok(w, add_special_tokens=False)["input_ids"][0] for w, _ in dim.weighed]
                    shares = logits(image, dim.question)[ids].softmax(-1)
                    values.append(float(shares @ torch.tensor([value for _, value in dim.weighed])))
                    continue
                inputs = asked(scorer, image, dim.question)
                out = scorer.model.generate(**inputs, max_new_tokens=100, do_sample=False)
                said = tok.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
                try:
                    values.append(parse_answer(said, dim)[0])
                except ValueError:
                    values.append(float("nan"))
            return torch.tensor(values) / spans

        return Case(ours, one, 1.0, readout == "greedy")

    return make


CLIPS = (pickscore, siglip, hpsv2, laion_aesthetic, imagereward, clip_iqa)
CASES: dict[str, Callable[[Folders], Case]] = {
    **{make.__name__: make for make in (*CLIPS, vqascore, qalign, hpsv3, unified_reward)},
    **{f"embedded:{way}": embedded(way) for way in WAYS},
}


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--num-images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--images", type=Path, help="folder of pictures; default: noise of 64 x 64")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


@torch.inference_mode()
def measure(case: Case, images: list[Image.Image], repeats: int, clock: Callable[[], float]) -> dict[str, Any]:
    prompts = [f"a {word} picture" for word in ("low", "high", "medium", "neutral")] * len(images)
    prompts = prompts[: len(images)]

    def reference() -> torch.Tensor:
        return torch.stack([torch.as_tensor(case.one(i, p)) for i, p in zip(images, prompts, strict=True)])

    ours = torch.as_tensor(case.ours(images, prompts))
    gap = (ours.double() - reference().double()).abs()
    ratios, fast, slow = [], [], []
    for _ in range(repeats):
        start = clock()
        case.ours(images, prompts)
        middle = clock()
        reference()
        slow.append(clock() - middle)
        fast.append(middle - start)
        ratios.append(slow[-1] / fast[-1])
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "ours, images/s": len(images) / statistics.median(fast),
        "one by one, images/s": len(images) / statistics.median(slow),
        "ratio": ratio,
        "quartiles": [low, high],
        "largest difference": float(gap[gap.isfinite()].max()) / case.span if case.comparable else None,
    }


def main() -> None:
    arguments = read_arguments()
    if arguments.repeats < 2:
        raise SystemExit("--repeats: two or more, for a spread")
    warnings.simplefilter("ignore")
    tf_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    if arguments.images is None:
        images = [Image.effect_noise((64, 64), 20 + k).convert("RGB") for k in range(arguments.num_images)]
    else:
        files = sorted(f for f in arguments.images.iterdir() if f.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"})
        images = [Image.open(file).convert("RGB") for file in files[: arguments.num_images]]
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    report = {}
    with tempfile.TemporaryDirectory() as home:
        folders = Folders(Path(home))
        for name in arguments.only or CASES:
            report[name] = found = measure(CASES[name](folders), images, arguments.repeats, clock)
            if not arguments.json:
                gap = found["largest difference"]
                print(
                    f"{name:20} {found['ours, images/s']:8.1f} /s   one by one {found['one by one, images/s']:7.1f} /s   "
                    f"{found['ratio']:5.1f} x [{found['quartiles'][0]:.1f}, {found['quartiles'][1]:.1f}]   "
                    + ("" if gap is None else f"differ by {gap:.1e}"),
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
