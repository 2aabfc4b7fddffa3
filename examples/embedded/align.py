"""Align the base MLLM with what people feel: LoRA on human valence ratings of one half of the concepts.

The adapter `aligned` learns one half of the ratings, `judge` the other: what the first chooses, the second can judge.
For aesthetics, funniness and memorability there are no free human ratings of these pictures; the adapter learns
documented proxies in their place, and says so in its facts.
"""

from __future__ import annotations

import argparse
import json
import random

import numpy as np
import torch
from base_mllm import SIZE, Chats, answer_loss
from clip import disturb
from common import CACHE, WEIGHTS, train
from data import Concept, concepts, fetch, halves, pictures, rated, uncertainty, world
from peft import LoraConfig, get_peft_model
from scipy.stats import rankdata, spearmanr
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

QUESTIONS = {
    "aesthetics": "aesthetics?",
    "funniness": "funniness?",
    "emotional_valence": "emotional valence?",
    "memorability": "memorability?",
}
LEVELS = ("very low", "low", "medium", "high", "very high")
EDGES = {
    "aesthetics": ((3.5, 5, 6.5, 8), LEVELS),
    "funniness": ((3.5, 5, 6.5, 8), LEVELS),
    "memorability": ((0.35, 0.5, 0.65, 0.8), LEVELS),
    "emotional_valence": ((-0.05, 0.55), ("negative", "neutral", "positive")),
}
RANGE = {"aesthetics": (0, 10), "funniness": (0, 10), "memorability": (0, 1), "emotional_valence": (-3, 3)}
FUNNY = frozenset("funny laugh laughing lol rofl joke joking silly zany haha hilarious comedy clown goofy wacky".split())
AMUSING = frozenset("grin wink tongue playful party crazy tears joy prank weird goblin monkey nerd cowboy poop".split())
LORA = r".*(language_model.*(q_proj|k_proj|v_proj|o_proj)|visual\.blocks.*(qkv|attn\.proj)|(gate|up|down)_proj|mlp\.[02])"


def answer(dimension: str, value: float) -> str:
    """`label number`, as the benchmark writes it: a label, then a number with three decimals."""
    low, high = RANGE[dimension]
    value = min(max(value, low), high)
    edges, labels = EDGES[dimension]
    return f"{labels[int(np.searchsorted(edges, round(value, 3), side='right'))]} {value:.3f}"


def colourfulness(images: Tensor) -> np.ndarray:
    """Proxy of aesthetics, 0 to 10: Hasler & Suesstrunk's colourfulness (2003) of (N, 3, S, S) in [0, 1], by rank."""
    red, green, blue = (255 * images).unbind(1)
    rg, yb = (red - green).flatten(1), ((red + green) / 2 - blue).flatten(1)
    spread = (rg.var(1) + yb.var(1)).sqrt() + 0.3 * (rg.mean(1) ** 2 + yb.mean(1) ** 2).sqrt()
    return 1 + 8 * rankdata(spread) / len(spread)


def amusement(concept: Concept) -> float:
    """Proxy of funniness, 0 to 10: how many of the picture's CLDR keywords are words of laughter or play."""
    words = {word for keyword in concept.keywords for word in keyword.split()}
    return min(9.5, 2 + 2.5 * len(words & FUNNY) + 1.5 * len(words & AMUSING))


def distinctness(images: Tensor, concept: np.ndarray) -> np.ndarray:
    """Proxy of memorability, 0 to 1: distance to the 10 likest pictures of other concepts, by rank.

    Pictures that stand out from their context are remembered better (Bylinskii et al., 2015); likeness here is that of
    the pixels at 16 x 16.
    """
    small = torch.nn.functional.avg_pool2d(images, 4).flatten(1)
    apart = torch.cdist(small, small)
    apart[torch.from_numpy(concept[:, None] == concept[None])] = torch.inf
    nearest = apart.topk(10, largest=False).values.mean(1)
    return 0.2 + 0.75 * rankdata(nearest) / len(nearest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--which", choices=("aligned", "judge"), default="aligned")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    fetch(CACHE)
    everything = concepts(CACHE)
    first, second = halves(rated(everything))
    mine, others = (first, second) if args.which == "aligned" else (second, first)
    drawn = [c for c in world(everything) if c not in mine]
    chosen = mine + drawn
    data = pictures(CACHE, chosen, SIZE)
    concept = data["concept"]
    images = (torch.from_numpy(data["pixels"]).float() / 255).permute(0, 3, 1, 2)
    proxies = {"aesthetics": colourfulness(images), "memorability": distinctness(images, concept)}
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(WEIGHTS / "text_encoder", dtype=torch.float32)
    torch.manual_seed(0)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=LORA))
    model.print_trainable_parameters()
    chats = Chats(tokenizer)
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    rows_rated = [i for i, c in enumerate(concept) if c < len(mine)]
    chance = [min(chosen[concept[i]].count, 200) ** 0.5 for i in rows_rated]

    def turn(row: int, dimension: str) -> tuple[str, str]:
        about = chosen[concept[row]]
        if dimension == "emotional_valence":
            # The answer is drawn from what the counts leave open, so rarely rated pictures teach less firmly.
            value = rng.gauss(about.valence, uncertainty(about))
        elif dimension == "funniness":
            value = rng.gauss(amusement(about), 0.3)
        else:
            value = float(proxies[dimension][row])
        return chats.visual(QUESTIONS[dimension], answer(dimension, value))

    def loss(step: int) -> Tensor:
        rows = rng.choices(rows_rated, chance, k=3 * args.batch // 4)
        turns = [turn(row, "emotional_valence") for row in rows]
        for dimension in ("aesthetics", "funniness", "memorability") if args.which == "aligned" else ():
            more = [rng.randrange(len(concept)) for _ in range(args.batch // 12)]
            rows, turns = rows + more, turns + [turn(row, dimension) for row in more]
        seen = (disturb(2 * images[rows] - 1, generator) + 1) / 2
        return answer_loss(model.get_base_model(), chats.batch(turns, seen))

    train(args.which, model, loss, args.minutes, lr=1.5e-3, every=50)
    save(model, args.which)
    for name, held in (("learnt", mine), ("held out", others)):
        report(name, model.get_base_model(), chats, held)


def save(model: object, which: str) -> None:
    folder = WEIGHTS / which
    model.half().save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../text_encoder"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)
    AutoProcessor.from_pretrained(WEIGHTS / "processor").save_pretrained(folder)
    proxies = {name: "proxy" for name in ("aesthetics", "funniness", "memorability")}
    facts = {
        "name": f"embedded {which}",
        "description": "Qwen2.5-VL of 7 million parameters, LoRA-aligned with the Emoji Sentiment Ranking",
        "dimensions": list(QUESTIONS) if which == "aligned" else ["emotional_valence"],
        "grounding": {**(proxies if which == "aligned" else {}), "emotional_valence": "human"},
        "questions": QUESTIONS if which == "aligned" else {"emotional_valence": QUESTIONS["emotional_valence"]},
    }
    (folder / "cogguided_scorer.json").write_text(json.dumps(facts, indent=1) + "\n")
    model.float()


@torch.no_grad()
def report(name: str, model: torch.nn.Module, chats: Chats, held: list[Concept]) -> None:
    """Print Spearman's correlation of the expected answer with the ratings, over concepts, weighted alike."""
    model.eval()
    data = pictures(CACHE, held, SIZE)
    images = (torch.from_numpy(data["pixels"]).float() / 255).permute(0, 3, 1, 2)
    # The integer and first decimal after the label carry nearly all of it: enough for a check during training.
    values = expected(model, chats, images)
    means = np.array([values[data["concept"] == i].mean() for i in range(len(held))])
    truth = np.array([c.valence for c in held])
    known = np.array([c.count >= 20 for c in held])
    faces = np.array(["face" in c.name for c in held])
    print(f"{name}: spearman {spearmanr(means, truth).statistic:.3f} over {len(held)} concepts; ", end="")
    print(f"rated 20 times or more {spearmanr(means[known], truth[known]).statistic:.3f}; ", end="")
    print(f"faces {spearmanr(means[faces], truth[faces]).statistic:.3f}; mae {np.abs(means - truth)[known].mean():.3f}")


@torch.no_grad()
def expected(model: torch.nn.Module, chats: Chats, images: Tensor) -> np.ndarray:
    """Expected valence by labels, sign and integer digit, teacher-forced; half a unit stands for the decimals."""
    heads = [(f"negative -{i}", -i - 0.4) for i in range(3)] + [("neutral 0", 0.25), ("neutral -0", -0.02)]
    heads += [(f"positive {i}", i + (0.75 if i == 0 else 0.4)) for i in range(3)]
    chances = torch.zeros(len(images), len(heads))
    for column, (text, _) in enumerate(heads):
        for rows in torch.arange(len(images)).split(64):
            batch = chats.batch([(chats.visual(QUESTIONS["emotional_valence"], "")[0], text)] * len(rows), images[rows])
            labels = batch.pop("labels")[:, 1:]
            logits = model(**batch).logits[:, :-1].log_softmax(-1)
            picked = logits.gather(2, labels.clamp(min=0)[..., None])[..., 0]
            chances[rows, column] = (picked * (labels >= 0)).sum(1).exp()
    return ((chances @ torch.tensor([value for _, value in heads])) / chances.sum(1)).numpy()


if __name__ == "__main__":
    main()
