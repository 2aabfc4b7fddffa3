"""Choose SDXL's images by PickScore, and ask a judge that did not choose (HPS v2) whether they are better.

    python examples/sdxl_pickscore.py [PIPELINE PICKSCORE HPSV2 STEPS]

Without arguments SDXL and both judges come from the Hub (some 15 GB, and a GPU is wanted); local folders do as well.
"""

import sys

from cogguided import BestOfN, CogGuidedPipeline, load_scorer

base, pick, hps, steps = sys.argv[1:] or ("stabilityai/stable-diffusion-xl-base-1.0", None, None, 30)
pipe = CogGuidedPipeline.from_pretrained(base)
chooser = load_scorer("pickscore", **({"model": pick} if pick else {}))
held_out = load_scorer("hpsv2", **({"model": hps} if hps else {}))
out = pipe("a lighthouse at dusk", target=chooser, guidance=BestOfN(8), seed=0, num_inference_steps=int(steps))
images = [candidate.image for candidate in out.candidates]
scores = held_out(images, [candidate.prompt for candidate in out.candidates])
chosen = max(range(len(images)), key=lambda i: out.candidates[i].score)
print(f"PickScore chose {chosen + 1} of {len(images)}", end="; ")
print(f"HPS v2: {scores.values[chosen]:.4f}, mean {scores.values.mean():.4f}")
out.images[0].save("out.png")
