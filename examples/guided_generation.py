"""Draw eight candidates of each prompt and keep the one that feels happiest, and the one that feels saddest.

    python examples/guided_generation.py [FOLDER]

The folder gets the chosen images, all the others, a contact sheet, and candidates.json to make any again.
"""

import sys
from pathlib import Path

from cogguided import BestOfN, CogGuidedPipeline

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/guided_generation")
pipe = CogGuidedPipeline.from_pretrained("embedded")

for name, target in {"happy": "emotional_valence", "sad": "emotional_valence=-1"}.items():
    out = pipe(["a face", "a cat"], target=target, guidance=BestOfN(8), seed=0)
    for candidate in out.chosen:
        valence = candidate.scores["emotional_valence"]
        print(f"{name} '{candidate.prompt}': seed {candidate.seed}, valence {valence:+.2f} of -3 to 3")
    out.save(folder / name, overwrite=True)
    print(f"see {folder / name / 'contact_sheet.png'}")
