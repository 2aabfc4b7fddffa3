"""Draw twelve drafts, half of them in other wordings, then the best two in full, from the same noise.

    python examples/joint_search.py [FOLDER]
"""

import sys
from pathlib import Path

from cogguided import CogGuidedPipeline, JointSearch

TARGET = "emotional_valence"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/joint_search")
pipe = CogGuidedPipeline.from_pretrained("embedded", target=TARGET)

plain = pipe("a cat", seed=0)
out = pipe("a cat", guidance=JointSearch(12), seed=0)
print(f"a single sample: {plain.scores[0][TARGET]:+.3f}, {plain.seconds:.1f} s")
print(f"joint search: {out.scores[0][TARGET]:+.3f}, {out.seconds:.1f} s, {len(out.candidates)} candidates")
(told,) = out.facts["guidance"]["joint"]["requests"]
for wording in told["wordings"]:
    print(f"{wording['prompt']:20s} {wording['images']} drafts, {wording['score']:.3f}  {wording['rejected'] or ''}")
out.save(folder, overwrite=True)
print(f"see {folder / 'contact_sheet.png'}")
