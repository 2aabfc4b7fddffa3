"""Search round the best noise: four starts, then three rounds of four neighbours.

    python examples/noise_search.py [FOLDER]
"""

import sys
from pathlib import Path

from cogguided import CogGuidedPipeline, NoiseSearch

TARGET = "emotional_valence"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/noise_search")
pipe = CogGuidedPipeline.from_pretrained("embedded", target=TARGET)

plain = pipe("a cat", seed=0)
out = pipe("a cat", guidance=NoiseSearch(4, 4, rounds=3), seed=0)
print(f"a single sample: {plain.scores[0][TARGET]:+.3f}, {plain.seconds:.1f} s")
print(f"noise search: {out.scores[0][TARGET]:+.3f}, {out.seconds:.1f} s, {len(out.candidates)} candidates")

out.save(folder, overwrite=True)
print(f"see {folder / 'contact_sheet.png'}")
