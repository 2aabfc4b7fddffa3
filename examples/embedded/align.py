"""Align the base MLLM with what people feel: LoRA on human valence ratings of one half of the concepts.

The adapter `aligned` learns one half of the ratings, `judge` the other: what the first chooses, the second
can judge. Pictures that its half does not rate are taught what their names and keywords suggest by that half, and by
half of the words of a rated lexicon (`data.spread`), so neither adapter ever learns from a rating of the other's. For
aesthetics, funniness and memorability there are no free human ratings of these pictures; the adapter learns documented
proxies in their place, and says so in its facts.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace

import numpy as np
import torch
from base_mllm import IGNORE, IMAGE_TOKENS, PATCH, SIZE, Chats, known, patches, placed
from clip import disturb
from common import CACHE, WEIGHTS, train
from data import (
    SUGGESTED_STD,
    Concept,
    concepts,
    fetch,
    halves,
    has_picture,
    lexicon,
    pictures,
    rated,
    spread,
    uncertainty,
)
from peft import LoraConfig, get_peft_model
from scipy.stats import rankdata, spearmanr
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from cogguided.scorers.alignment import recipe
from cogguided.scorers.alignment.soft_labels import AnswerSpace, answer_steps, draw_number, one_hot
from cogguided.scorers.alignment.training.losses import Targets, answer_loss
from cogguided.scorers.dimensions import dimension
from cogguided.scorers.mllm import MLLMScorer

QUESTIONS = {
    "aesthetics": "aesthetics?",
    "funniness": "funniness?",
    "emotional_valence": "emotional valence?",
    "memorability": "memorability?",
}
FUNNY = frozenset(
    [
        "funny",
        "laugh",
        "laughing",
        "lol",
        "rofl",
        "joke",
        "joking",
        "silly",
        "zany",
        "haha",
        "hilarious",
        "comedy",
        "clown",
        "goofy",
        "wacky",
    ]
)
AMUSING = frozenset(
    [
        "grin",
        "wink",
        "tongue",
        "playful",
        "party",
        "crazy",
        "tears",
        "joy",
        "prank",
        "weird",
        "goblin",
        "monkey",
        "nerd",
        "cowboy",
        "poop",
    ]
)
LORA = r".*language_model.*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def sample_answers(name: str) -> list[str]:
    """Answers that hold every label and every digit of a dimension."""
    scale = dimension(name)
    return [scale.answer(value) for value in np.linspace(scale.low, scale.high, 200).tolist()]


def colourfulness(images: Tensor) -> np.ndarray:
    """Proxy of aesthetics, 0 to 10: Hasler & Suesstrunk's colourfulness (2003) of (N, 3, S, S) in [0, 1],
    by rank.
    """
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

    Pictures that stand out from their context are remembered better (Bylinskii et al., 2015); likeness here
    is that of the pixels at 16 x 16.
    """
    small = torch.nn.functional.avg_pool2d(images, 4).flatten(1)
    apart = torch.cdist(small, small)
    apart[torch.from_numpy(concept[:, None] == concept[None])] = torch.inf
    nearest = apart.topk(10, largest=False).values.mean(1)
    return 0.2 + 0.75 * rankdata(nearest) / len(nearest)


@torch.no_grad()
def glances(model: Qwen2_5_VLForConditionalGeneration, images: Tensor, times: int) -> Tensor:
    """What the vision tower says of each picture, seen a little differently each time: (times, N, 16, 256)."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.tensor([[1, SIZE // PATCH, SIZE // PATCH]])
    rounds = []
    for k in range(times):
        parts = []
        for part in images.split(32):
            seen = part if k == 0 else ((disturb(2 * part - 1, generator) + 1) / 2).clamp(0, 1)
            out = model.model.visual(patches(seen).flatten(0, 1), grid_thw=grid.repeat(len(part), 1))
            parts.append(out.pooler_output.view(len(part), IMAGE_TOKENS, -1))
        rounds.append(torch.cat(parts))
    return torch.stack(rounds)


class Answers:
    """Draws questions and answers about pictures."""

    def __init__(
        self, chosen: list[Concept], own: int, concept: np.ndarray, images: Tensor, chats: Chats,
        words: dict[str, float],
    ) -> None:  # fmt: skip
        """The first `own` concepts are taught their ratings, the rest what those and `words` suggest for them."""
        self.chosen, self.concept, self.chats, self.rng = chosen, concept, chats, random.Random(0)
        self.valence = [(about.valence, uncertainty(about)) for about in chosen[:own]]
        self.valence += [(value, SUGGESTED_STD) for value in spread(chosen[:own], chosen[own:], words)]
        self.spaces: dict[str, AnswerSpace] = {}
        self.proxies = {"aesthetics": colourfulness(images), "memorability": distinctness(images, concept)}

    def space(self, name: str) -> AnswerSpace:
        """Answers of a dimension, to one decimal (two on the short scale), which is what ratings are known to: zeros
        are soon learnt, and reading the scores is quick.
        """
        if name not in self.spaces:
            whole = AnswerSpace.of(lambda texts: self.chats.tokenizer(texts).input_ids, dimension(name))
            unit = 100 if name == "memorability" else 10
            some = np.abs(whole.values * unit - np.round(whole.values * unit)) < 1e-6
            self.spaces[name] = replace(whole, values=whole.values[some], paths=whole.paths[some])
        return self.spaces[name]

    def felt(self, row: int, name: str) -> tuple[float, float]:
        """What is taught about a picture, and how firmly (a standard deviation)."""
        about = self.chosen[self.concept[row]]
        if name == "emotional_valence":
            return self.valence[self.concept[row]]
        if name == "funniness":
            return amusement(about), 0.3
        return float(self.proxies[name][row]), 0.03 if name == "memorability" else 0.2

    def batch(self, rows: list[int], names: list[str]) -> tuple[dict[str, Tensor], Targets]:
        """Questions about pictures with answers drawn from what people felt, and what each token should be."""
        turns, steps, told, scores = [], [], [], []
        for row, name in zip(rows, names, strict=True):
            space, (score, std) = self.space(name), self.felt(row, name)
            index = draw_number(space, score, std, self.rng.random())
            turns.append(self.chats.visual(QUESTIONS[name], space.dim.answer(space.values[index])))
            steps.append([*answer_steps(space, score, std, index), one_hot(self.chats.end)])
            told.append(float(space.values[index]))
            scores.append(min(max(score, space.dim.low), space.dim.high))
        ranges = [(dimension(name).low, dimension(name).high) for name in names]
        return self.chats.batch(turns), Targets.stack(steps, told, scores, ranges)


def taught(model: Qwen2_5_VLForConditionalGeneration, batch: dict[str, Tensor], targets: Targets) -> Tensor:
    """The aligner's loss on a batch whose pictures are in place."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[batch["labels"][:, 1:] != IGNORE])
    return answer_loss(logits, targets, value_weight=recipe("embedded").value_weight)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--which", choices=("aligned", "judge"), default="aligned")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--batch", type=int, default=48)
    args = parser.parse_args()
    fetch(CACHE)
    everything = [c for c in concepts(CACHE) if has_picture(CACHE, c.char)]
    first, second = halves(rated(everything))
    mine, others = (first, second) if args.which == "aligned" else (second, first)
    chosen = mine + [c for c in known(everything) if c not in mine]
    data = pictures(CACHE, chosen, SIZE)
    images = (torch.from_numpy(data["pixels"]).float() / 255).permute(0, 3, 1, 2)
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    base = Qwen2_5_VLForConditionalGeneration.from_pretrained(WEIGHTS / "text_encoder", dtype=torch.float32)
    seen = glances(base, images, 8)
    torch.manual_seed(0)
    # The base model never wrote an answer: the embeddings of its words are untrained, too short to be sure
    # of.
    told = sorted(
        {token for name in QUESTIONS for text in sample_answers(name) for token in tokenizer(text).input_ids}
    )
    lora = LoraConfig(
        r=32,
        lora_alpha=64,
        lora_dropout=0.05,
        target_modules=LORA,
        trainable_token_indices={"embed_tokens": told},
    )
    model = get_peft_model(base, lora)
    words = lexicon(CACHE, 0 if args.which == "aligned" else 1)
    answers = Answers(chosen, len(mine), data["concept"], images, Chats(tokenizer), words)
    rng = answers.rng
    rows_rated = [i for i, c in enumerate(data["concept"]) if c < len(mine)]
    rows_suggested = [i for i, c in enumerate(data["concept"]) if c >= len(mine)]
    chance = [min(chosen[data["concept"][i]].count, 200) ** 0.5 for i in rows_rated]
    proxies = ("aesthetics", "funniness", "memorability") if args.which == "aligned" else ()

    def loss(step: int) -> Tensor:
        count = args.batch - len(proxies) * (args.batch // 8)
        rows = rng.choices(rows_rated, chance, k=count // 2) + rng.choices(rows_suggested, k=count - count // 2)
        names = ["emotional_valence"] * count
        for name in proxies:
            rows += [rng.randrange(len(images)) for _ in range(args.batch // 8)]
            names += [name] * (args.batch // 8)
        which = torch.randint(len(seen), (len(rows),))
        inner = model.get_base_model()
        batch, targets = answers.batch(rows, names)
        return taught(inner, placed(inner, batch, seen[which, rows]), targets)

    train(args.which, model, loss, args.minutes, lr=2e-3, weight_decay=0.0, decay=0.7, every=50)
    save(model, args.which)
    for name, held in (("learnt", mine), ("held out", others)):
        report(name, args.which, held)


def save(model: object, which: str) -> None:
    folder = WEIGHTS / which
    model.half().save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../text_encoder"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)
    proxies = dict.fromkeys(("aesthetics", "funniness", "memorability"), "proxy")
    facts = {
        "name": f"embedded {which}",
        "description": "Qwen2.5-VL of 7 million parameters, LoRA-aligned with the Emoji Sentiment Ranking",
        "licence": "CC BY-SA 4.0",
        "dimensions": list(QUESTIONS) if which == "aligned" else ["emotional_valence"],
        "grounding": {**(proxies if which == "aligned" else {}), "emotional_valence": "human"},
        "questions": QUESTIONS if which == "aligned" else {"emotional_valence": QUESTIONS["emotional_valence"]},
    }
    (folder / "cogguided_scorer.json").write_text(json.dumps(facts, indent=1) + "\n")
    model.float()


def report(name: str, which: str, held: list[Concept]) -> None:
    """Print Spearman's correlation of the saved scorer with the ratings, over concepts rated 20 times or
    more.
    """
    scorer = MLLMScorer.from_pretrained(WEIGHTS / which, dimension="emotional_valence")
    held = [c for c in held if c.count >= 20]
    data = pictures(CACHE, held, SIZE)
    values = scorer((torch.from_numpy(data["pixels"]).float() / 255).permute(0, 3, 1, 2)).values.numpy()
    means = np.array([values[data["concept"] == i].mean() for i in range(len(held))])
    truth = np.array([c.valence for c in held])
    for kind, chosen in (("all", truth > -9), ("faces", np.array(["face" in c.name for c in held]))):
        rho = spearmanr(means[chosen], truth[chosen]).statistic
        error = np.abs(means - truth)[chosen].mean()
        spread = f"spread {means[chosen].std():.2f} of {truth[chosen].std():.2f}"
        print(f"{which}, {name}, {kind}: {chosen.sum()} concepts, spearman {rho:.3f}, mae {error:.3f}, {spread}")


if __name__ == "__main__":
    main()
