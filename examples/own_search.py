"""A search of your own: sample until the score passes a threshold, or the budget ends.

    python examples/own_search.py [FOLDER]

A package brings it to the command line (`cogguided generate "a cat" --target memorability --search until_good`) by
one line in its pyproject.toml:

    [project.entry-points."cogguided.guidance"]
    until_good = "my_package:UntilGood"
"""

import sys
from dataclasses import dataclass
from typing import ClassVar

from cogguided import CogGuidedPipeline
from cogguided.guidance import Run


@dataclass(frozen=True)
class UntilGood:
    """Draw `batch_size` images at a time until one of every prompt scores `threshold`, or `n` are drawn."""

    n: int = 64
    threshold: float = 0.6  # of the target's total: terms in [0, 1] times their weights
    batch_size: int = 4
    keep: int = 1
    name: ClassVar[str] = "until_good"

    def __call__(self, run: Run) -> None:
        run.keep = self.keep
        waiting = {request.index for request in run.requests}
        for first in range(0, self.n, self.batch_size):
            made = run.make(run.jobs(self.batch_size, self.name, first), self.batch_size)
            waiting -= {candidate.request for candidate in made if candidate.score >= self.threshold}
            if not waiting or not made:  # all are good, or the budget ended
                return
        run.note(f"no image of {len(waiting)} prompts reached {self.threshold}")


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "out/own_search"
    pipe = CogGuidedPipeline.from_pretrained("embedded", target="emotional_valence")
    out = pipe(["a face", "a cat"], guidance=UntilGood(threshold=0.75), budget="60s", seed=0)
    for candidate in out.chosen:
        print(f"{candidate.prompt}: {candidate.score:.3f}, seed {candidate.seed}")
    print(f"{len(out.candidates)} candidates in {out.seconds:.1f} s: {out.save(folder, overwrite=True)}")
