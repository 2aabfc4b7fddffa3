"""Try six other wordings of a prompt; keep one only if it is better beyond noise and means the same.

    python examples/rewrite_prompt.py [FOLDER]
"""

import sys
from pathlib import Path

from cogguided import CogGuidedPipeline, RewritePrompt

TARGET = "emotional_valence"
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/rewrite_prompt")
pipe = CogGuidedPipeline.from_pretrained("embedded", target=TARGET)

plain = pipe("a [face]", seed=0)
out = pipe("a [face]", guidance=RewritePrompt(6, images=3), seed=0)
print(f"a single sample: {plain.scores[0][TARGET]:+.3f}, {plain.seconds:.1f} s")
print(f"rewritten: {out.scores[0][TARGET]:+.3f}, {out.seconds:.1f} s, {len(out.candidates)} candidates")
(told,) = out.facts["guidance"]["rewrite"]["requests"]
for wording in told["wordings"]:
    verdict = "chosen" if wording["chosen"] else wording["rejected"] or ""
    score, low_high = wording["score"], wording["interval"]
    print(f"{wording['prompt']:24s} {score:.3f} {low_high}  faithful {wording['faithfulness']:.3f}  {verdict}")
out.save(folder, overwrite=True)
print(f"see {folder / 'contact_sheet.png'}")
