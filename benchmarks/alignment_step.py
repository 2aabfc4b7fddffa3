"""One loss step of alignment, ours beside a plain re-statement of the official way: time and peak memory.

    python benchmarks/alignment_step.py                                   # batch 4 x 1,024 tokens, vocabulary 32k
    python benchmarks/alignment_step.py --device cuda --vocab 152064 --hidden 3584 --dtype bfloat16

From the last hidden states (batch, tokens, hidden) through the frozen vocabulary head to the loss, and back to the
hidden states. The official way takes all tokens through the head and the log-softmax and loops over supervised
tokens and digits in Python; ours takes the supervised tokens only. The loss is the same number: it is checked.
Each way runs in a process of its own, so that peak memory (the process's on a CPU, torch's on a GPU) is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from cogguided.scorers.alignment.soft_labels import digit_probs, one_hot, token_steps
from cogguided.scorers.alignment.training.losses import Targets, answer_loss

ETA, DIGIT_WEIGHT, IGNORE = 0.15, 2.0, -100
ANSWERS = ("medium 5.577", "very high 9.120", "low 4.105", "high 7.218")
FIRST_DIGIT, WORD = 100, 500  # token ids, somewhere in the vocabulary


def spell(answer: str) -> list[int]:
    """A token a character of the number, one a word of the label, and the end of the turn."""
    *words, number = answer.split()
    tokens = [WORD + len(word) for word in words] + [WORD + 20]
    return [*tokens, *(WORD + 30 if c == "." else FIRST_DIGIT + int(c) for c in number), WORD + 40]


def batch(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, head, and labels with answers of different length somewhere near the end of each row."""
    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, args.dtype)
    hidden = torch.randn(args.batch, args.tokens, args.hidden, generator=generator).to(args.device, kind)
    head = torch.randn(args.vocab, args.hidden, generator=generator).mul_(args.hidden**-0.5).to(args.device, kind)
    labels = torch.full((args.batch, args.tokens), IGNORE)
    for row in range(args.batch):
        told = spell(ANSWERS[row % len(ANSWERS)])
        end = args.tokens - 7 * (row % 3)
        labels[row, end - len(told) : end] = torch.tensor(told)
    return hidden, head, labels


def official(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-softmax of the whole sequence, then Python loops over tokens and digits, each reading from the device.

    The supervised rows are picked before the loops: to index the whole in each would cost its gradient the
    whole's size every time, and make the comparison look better than it needs to.
    """
    logprobs = torch.log_softmax((hidden @ head.T).float(), dim=-1)
    supervised = labels[:, 1:] != IGNORE
    total = torch.zeros((), device=hidden.device)
    chosen, tokens = logprobs[:, :-1][supervised], labels[:, 1:][supervised]
    for here, label in zip(chosen, tokens, strict=True):
        token = int(label.item())
        if not FIRST_DIGIT <= token < FIRST_DIGIT + 10:
            total = total - here[token]
            continue
        soft = digit_probs(token - FIRST_DIGIT, ETA)
        for digit in range(10):
            total = total - DIGIT_WEIGHT * float(soft[digit]) * here[FIRST_DIGIT + digit]
    return total / len(tokens)


def prepare_ours(labels: torch.Tensor, device: str) -> tuple[torch.Tensor, Targets]:
    """What the collator makes, beside the step: positions of supervised tokens, and their targets."""
    rows, columns = (labels[:, 1:] != IGNORE).nonzero(as_tuple=True)
    digits = {FIRST_DIGIT + digit: digit for digit in range(10)}
    answers = []
    for row in labels:
        told = row[row != IGNORE].tolist()
        answers.append([*token_steps(told[:-1], digits, ETA, DIGIT_WEIGHT, list(digits)), one_hot(told[-1])])
    zeros = [0.0] * len(answers)
    targets = Targets.stack(answers, zeros, zeros, [(0.0, 10.0)] * len(answers))
    return (rows * labels.shape[1] + columns).to(device), targets.to(device)


def ours(hidden: torch.Tensor, head: torch.Tensor, positions: torch.Tensor, targets: Targets) -> torch.Tensor:
    return answer_loss(hidden.flatten(0, 1).index_select(0, positions) @ head.T, targets)


def peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(way: str, args: argparse.Namespace) -> dict[str, object]:
    """Seconds of each step after a first one, peak bytes above what inputs take, and the loss."""
    hidden, head, labels = batch(args)
    made = prepare_ours(labels, args.device)
    labels = labels.to(args.device)
    hidden.requires_grad_()
    hidden.grad = torch.zeros_like(hidden)  # part of what any step needs
    before = peak(args.device)
    seconds, loss = [], torch.zeros(())
    for _ in range(args.repeats + 1):
        start = time.perf_counter()
        loss = official(hidden, head, labels) if way == "official" else ours(hidden, head, *made)
        loss.backward()
        if args.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[1:], "bytes": peak(args.device) - before, "loss": loss.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=32_000)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--way", choices=("official", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args)))
        return
    found = {}
    for way in ("official", "ours"):
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--way", way], check=True, capture_output=True, text=True
        )
        found[way] = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(
        found["ours"]["loss"], found["official"]["loss"], rtol=1e-5 if args.dtype == "float32" else 1e-2
    )
    logits = args.batch * args.tokens * args.vocab * 4
    print(
        f"batch {args.batch} x {args.tokens} tokens, vocabulary {args.vocab}, hidden {args.hidden}, {args.dtype} on {args.device}"
    )
    print(
        f"loss {found['ours']['loss']:.5f} both ways; the whole sequence's logits in float32: {logits / 2**20:.0f} MiB"
    )
    print(f"{'':10}{'step, ms: median (min to max)':>36}{'peak memory, MiB':>20}")
    for way, facts in found.items():
        times = [1000 * second for second in facts["seconds"]]
        spread = f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})"
        print(f"{way:10}{spread:>36}{facts['bytes'] / 2**20:>20.1f}")
    theirs, own = found["official"], found["ours"]
    low, high = min(own["seconds"]) / max(theirs["seconds"]), max(own["seconds"]) / min(theirs["seconds"])
    ratio = statistics.median(own["seconds"]) / statistics.median(theirs["seconds"])
    print(f"ours / official: time {ratio:.4f} ({low:.4f} to {high:.4f}), memory {own['bytes'] / theirs['bytes']:.4f}")


if __name__ == "__main__":
    main()
