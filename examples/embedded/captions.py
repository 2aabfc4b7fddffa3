"""What people might type to get a picture: full names, names with a style, keywords, and open words like "a
face".
"""

from __future__ import annotations

import random

from data import STYLE_WORDS, STYLES, Concept

# One open word can stand for many pictures, so that each seed draws another one.
GROUP_WORDS = {
    "Animals & Nature": ("animal",),
    "Food & Drink": ("food",),
    "Smileys & Emotion": ("emoji",),
}
PLANTS = (
    "bouquet|cherry blossom|rose|hibiscus|sunflower|blossom|tulip|seedling|evergreen tree|deciduous tree|palm tree|"
    "cactus|shamrock|four leaf clover|maple leaf|fallen leaf|nest with eggs|mushroom"
).split("|")
HEADS = {
    "fruit": "grapes|watermelon|tangerine|lemon|banana|pineapple|red apple|green apple|pear|peach|cherries|strawberry|"
    "kiwi fruit|coconut|avocado|tomato",
    "vegetable": "eggplant|carrot|ear of corn|hot pepper|cucumber|broccoli|onion",
    "cake": "birthday cake|shortcake|cupcake",
    "dessert": "birthday cake|shortcake|cupcake|doughnut|cookie|soft ice cream|ice cream|chocolate bar|candy|lollipop|"
    "pancakes|waffle",
    "drink": "glass of milk|hot beverage|teapot|wine glass|cocktail glass|tropical drink|beer mug|clinking beer mugs|"
    "cup with straw|bubble tea|bottle with popping cork",
    "flower": "bouquet|cherry blossom|rose|hibiscus|sunflower|blossom|tulip",
    "plant": "|".join(PLANTS),
    "tree": "evergreen tree|deciduous tree|palm tree|christmas tree",
    "bird": "turkey|chicken|rooster|hatching chick|baby chick|bird|penguin|dove|eagle|duck|swan|owl|flamingo|peacock|"
    "parrot",
    "insect": "butterfly|ant|honeybee|lady beetle|spider|scorpion|snail",
    "sea animal": "spouting whale|whale|dolphin|fish|tropical fish|blowfish|shark|octopus|crab|lobster|shrimp",
    "monster": "ghost|alien|alien monster|robot|skull|clown face|smiling face with horns|angry face with horns|"
    "pile of poo",
    "monkey": "see-no-evil monkey|hear-no-evil monkey|speak-no-evil monkey|monkey face|monkey",
    "weather": "sun|cloud|rainbow|umbrella|snowman|full moon",
    "car": "police car|ambulance|bus",
    "ball": "soccer ball|basketball",
    "hand": "thumbs up|thumbs down|clapping hands",
}
MEMBERS = {head: frozenset(names.split("|")) for head, names in HEADS.items()}
# Keywords of CLDR that people would put before "face" or "cat".
MOODS = frozenset(
    "happy sad angry mad cry crying tired sleepy sick cool love funny silly scared fear shock shocked surprised smile "
    "smiling laugh laughing kiss worried nervous evil party disappointed embarrassed confused bored cold hot grin "
    "cheerful upset tears joking wink frown romance excited rage shy calm".split()
)


def open_words(concept: Concept) -> tuple[str, ...]:
    """Words that name a whole family of pictures this one belongs to."""
    words = [head for head, names in MEMBERS.items() if concept.name in names]
    last = concept.name.rsplit(" ", 1)[-1]
    if concept.group == "Smileys & Emotion":
        if "heart" in concept.name and "face" not in concept.name and "cat" not in concept.name:
            words.append("heart")
        elif "cat" in concept.name.split():
            words.append("cat")
        elif " face" in f" {concept.name}" or concept.name in (
            "star-struck",
            "rolling on the floor laughing",
        ):
            words += ["face", "face", "smiley"]
    elif last in ("face", "cat", "dog") and concept.name.split()[0] not in ("hot",):
        words.append(concept.name.split()[0] if last == "face" else last)
    if concept.name in PLANTS:
        return tuple(words)
    return (*words, *GROUP_WORDS.get(concept.group, ("thing",)))


def mood_words(concept: Concept) -> list[str]:
    return [word for word in concept.keywords if word in MOODS]


def families(chosen: list[Concept]) -> dict[str, list[int]]:
    """Every open prompt, with or without a mood ("face", "happy face", "animal"), and the concepts it stands for."""
    found: dict[str, list[int]] = {}
    for index, concept in enumerate(chosen):
        heads = set(open_words(concept))
        for head in heads:
            found.setdefault(head, []).append(index)
        for head in heads & {"face", "cat", "smiley"}:
            for mood in mood_words(concept):
                found.setdefault(f"{mood} {head}", []).append(index)
    return {text: members for text, members in found.items() if len(members) > 1}


def partial(rng: random.Random, concept: Concept) -> str:
    """A caption that leaves something open: a family, a mood and a family, or keywords alone."""
    heads = open_words(concept)
    head = rng.choice(heads) if heads else concept.name
    moods = mood_words(concept)
    draw = rng.random()
    if draw < 0.5:
        return head
    if draw < 0.75 and moods and head in ("face", "cat", "smiley", "emoji"):
        return f"{rng.choice(moods)} {head}"
    if concept.keywords:
        return rng.choice(concept.keywords)
    return concept.name


def caption(rng: random.Random, concept: Concept, style: int) -> str:
    """One caption for training: mostly the name, one in three left open; the style is named one time in
    five.
    """
    return dressed(rng, partial(rng, concept) if rng.random() < 0.36 else concept.name, style)


def dressed(rng: random.Random, text: str, style: int) -> str:
    """The words of a caption as people would type them: at times with a style, an article, a capital."""
    if rng.random() < 0.2:
        text = f"{STYLE_WORDS[STYLES[style]]} {text}"
    if rng.random() < 0.3:
        text = f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
    return text.capitalize() if rng.random() < 0.1 else text


def described(concept: Concept, style: int) -> str:
    """The full description that the MLLM gives: style, name and up to six keywords."""
    words = [word for word in concept.keywords if word != concept.name][:6]
    return f"{STYLE_WORDS[STYLES[style]]} {concept.name}" + (f": {', '.join(words)}" if words else "")
