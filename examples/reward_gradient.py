"""Climb the gradient of the MLLM's emotional valence on the initial noise.

    python examples/reward_gradient.py [FOLDER]
"""

import sys
from pathlib import Path

from cogguided import CogGuidedPipeline, RewardGradient

TARGET = "emotional_valence"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/reward_gradient")
pipe = CogGuidedPipeline.from_pretrained("embedded", target=TARGET)

plain = pipe("a cat", seed=0)
out = pipe("a cat", guidance=RewardGradient(2, iterations=8), seed=0)
print(f"a single sample: {plain.scores[0][TARGET]:+.3f}, {plain.seconds:.1f} s")
print(f"gradient: {out.scores[0][TARGET]:+.3f}, {out.seconds:.1f} s, {len(out.candidates)} candidates")
print("on the way up, by seed:", out.facts["guidance"]["gradient"]["values"])
out.save(folder, overwrite=True)
print(f"see {folder / 'contact_sheet.png'}")
