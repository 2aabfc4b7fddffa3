"""Start 16 images, and let the worse half stop at a fifth and at two fifths of the way.

    python examples/halving.py [FOLDER]
"""

import sys
from pathlib import Path

from cogguided import CogGuidedPipeline, Halving

TARGET = "emotional_valence"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/halving")
pipe = CogGuidedPipeline.from_pretrained("embedded", target=TARGET)

plain = pipe("a smiley", seed=0)
out = pipe("a smiley", guidance=Halving(16, at=(0.2, 0.4)), seed=0)
print(f"a single sample: {plain.scores[0][TARGET]:+.3f}, {plain.seconds:.1f} s")
print(f"halving: {out.scores[0][TARGET]:+.3f}, {out.seconds:.1f} s, {len(out.candidates)} candidates")
print("went on to the end:", [c.seed for c in out.candidates if c.finished])
out.save(folder, overwrite=True)
print(f"see {folder / 'contact_sheet.png'}")
