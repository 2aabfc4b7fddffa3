"""Draw 16 drafts of four steps, then the best two in full, from the same noise.

    python examples/drafts.py [FOLDER]
"""

import sys
from pathlib import Path

from cogguided import CogGuidedPipeline, Drafts

TARGET = "emotional_valence"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/drafts")
pipe = CogGuidedPipeline.from_pretrained("embedded", target=TARGET)

plain = pipe("a face", seed=0)
out = pipe("a face", guidance=Drafts(16, steps=4, full=2), seed=0)
print(f"a single sample: {plain.scores[0][TARGET]:+.3f}, {plain.seconds:.1f} s")
print(f"16 drafts, two in full: {out.scores[0][TARGET]:+.3f}, {out.seconds:.1f} s, {len(out.candidates)} candidates")

out.save(folder, overwrite=True)
print(f"see {folder / 'contact_sheet.png'}")
