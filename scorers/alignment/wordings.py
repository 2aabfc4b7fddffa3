"""Other ways to ask for a score, for training; scoring asks each question in its first wording."""

from __future__ import annotations

from ..dimensions import Dimension

OTHERS = {
    "aesthetics": (
        "Rate how beautiful this picture looks to people in general.",
        "Judge the visual appeal of the image as an average viewer would.",
        "Would people call this image ugly or beautiful? Say how much so.",
    ),
    "funniness": (
        "Rate how much this picture would amuse people in general.",
        "Judge how funny the image is to an average viewer.",
        "Would people laugh at this image? Say how much so.",
    ),
    "emotional_valence": (
        "Rate the feeling that this picture leaves in people, from unpleasant to pleasant.",
        "Judge whether the image makes an average viewer feel bad or good.",
        "Is the mood of this image sad, plain or happy? Say how much so.",
    ),
    "memorability": (
        "Rate how well this picture stays in people's memory.",
        "Judge the chance that an average viewer knows the image again after one look.",
        "Would people remember this image? Say how surely.",
    ),
}
"""Three more wordings for each dimension, to which the labels, their ranges and the format are added."""


def wordings(dim: Dimension, count: int) -> list[str]:
    """The question of a dimension in `count` wordings (1 to 4), its own first.

    >>> from ..dimensions import dimension
    >>> own, other = wordings(dimension("memorability"), 2)
    >>> print(other)
    Rate how well this picture stays in people's memory.
    Labels: very low 0 to 0.35; low 0.35 to 0.5; medium 0.5 to 0.65; high 0.65 to 0.8; very high 0.8 to 1.
    Answer with one label and a score with three decimals, as in: medium 0.575
    """
    ranges = "; ".join(
        f"{label} {low:g} to {high:g}"
        for label, low, high in zip(dim.labels, dim.edges, dim.edges[1:], strict=False)
    )
    middle = dim.labels[len(dim.labels) // 2]
    example = dim.answer(dim.middle(middle))
    form = (
        f"Labels: {ranges}.\nAnswer with one label and a score with {_words(dim.decimals)} decimals, "
        f"as in: {example}"
    )
    return [dim.question, *(f"{ask}\n{form}" for ask in OTHERS.get(dim.name, ()))][:count]


def _words(count: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(count, str(count))
