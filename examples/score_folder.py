"""Score all images of a folder in every dimension at once, and rank them by one.

    python examples/score_folder.py [FOLDER]

Without a folder, a few pictures are drawn first. The command `cogguided score FOLDER` does the same.
"""

import sys
from pathlib import Path

from cogguided import CogGuidedPipeline, load_scorer

if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
else:
    folder = Path("out/score_folder")
    pipe = CogGuidedPipeline.from_pretrained("embedded")
    prompts = ["red heart", "crying cat", "pizza", "angry face", "birthday cake", "skull"]
    pipe(prompts, seed=0).save(folder, overwrite=True)

files = sorted(file for file in folder.glob("*.png") if file.name != "contact_sheet.png")
scorer = load_scorer("emotional_valence")
scores = scorer.score_all(files)  # the pictures are looked at once for all four dimensions

print("  ".join(f"{name:>17}" for name in scores), " file")
order = scores["emotional_valence"].values.nan_to_num(-99).argsort(descending=True).tolist()
for i in order:
    values = [f"{s.values[i]:17.3f}" if s.valid[i] else f"{'no score':>17}" for s in scores.values()]
    print("  ".join(values), "", files[i].name)
