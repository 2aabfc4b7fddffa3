"""Steer eight particles by Feynman-Kac: the better ones are copied on the way, the worse ones dropped.

    python examples/fk_steering.py [FOLDER]
"""

import sys
from pathlib import Path

from cogguided import CogGuidedPipeline, FKSteering

TARGET = "emotional_valence"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/fk_steering")
pipe = CogGuidedPipeline.from_pretrained("embedded", target=TARGET)

plain = pipe("a smiley", seed=0)
out = pipe("a smiley", guidance=FKSteering(8, strength=20.0), seed=0)
print(f"a single sample: {plain.scores[0][TARGET]:+.3f}, {plain.seconds:.1f} s")
print(f"steered: {out.scores[0][TARGET]:+.3f}, {out.seconds:.1f} s, {len(out.candidates)} candidates")
for look in out.facts["guidance"]["fk"]:
    print(f"at {look['at']:.0%}: {look['effective']:.1f} effective particles, parents {look.get('parents', 'kept')}")
out.save(folder, overwrite=True)
print(f"see {folder / 'contact_sheet.png'}")
