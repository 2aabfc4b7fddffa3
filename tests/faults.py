"""Faults in the numerics, each of which some test must notice: see `planted_faults.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What is planted: `new` in place of `old`, which occurs once in `file`; and who should notice."""

    what: str
    file: str
    old: str
    new: str
    tests: str
    """Test files, one space between, beneath tests/."""
    first: str = ""
    """Words in the name of a test of theirs that is run before the rest, to be quick; "": none."""


SFT = "scorers/alignment/test_sft.py scorers/alignment/test_parts.py"
FAULTS = (
    # ------------------------------------------------------------------ scorers: how an answer is read
    Fault(
        "the spread leaves out what is within a branch", "scorers/mllm/readout.py",
        "(values - mean) ** 2 + within)", "(values - mean) ** 2)", "scorers/test_readout.py",
    ),
    Fault(
        "unfollowed branches have no width", "scorers/mllm/readout.py",
        "variances[open_] = within.mean()", "variances[open_] = 0.0", "scorers/test_readout.py",
    ),
    Fault(
        "followed branches have the mean's width", "scorers/mllm/readout.py",
        "variances[np.searchsorted(nodes, followed)] = within", "pass", "scorers/test_readout.py",
    ),
    Fault(
        "all that begins as a number counts as one", "scorers/mllm/readout.py",
        "* weights.sum()) * continued", "* weights.sum())", "scorers/test_readout.py",
    ),
    Fault(
        "half of min_mass is enough", "scorers/mllm/answers.py",
        "reading.mass < min_mass:", "reading.mass < min_mass / 2:",
        "scorers/test_mllm.py scorers/test_readout.py",
        first="min_mass or mass",
    ),
    Fault(
        "one NaN makes a whole batch NaN", "scorers/target.py",
        "total = term.weight * unit if", "unit = unit + 0 * unit.sum()\n            total = term.weight * unit if",
        "scorers/test_ensemble.py",
    ),
    Fault(
        "a gradient without its baseline", "scorers/mllm/gradients.py",
        "(values - weights @ values)", "values", "scorers/test_gradients.py",
    ),
    Fault(
        "a sliding window sees one token more", "scorers/mllm/branching.py",
        "< text_config.sliding_window", "<= text_config.sliding_window", "scorers/test_branching.py",
    ),
    Fault(
        "answers begin one position late", "scorers/mllm/branching.py",
        "planes[:, row, :n].max() + 1", "planes[:, row, :n].max() + 2", "scorers/test_branching.py",
    ),
    Fault(
        "CLIP's pictures are not brought to unit length", "scorers/models/clip.py",
        "encode_image(stacked, normalize=True)", "encode_image(stacked, normalize=False)", "scorers/test_clip.py",
    ),
    Fault(
        "Kendall's tau forgets ties of one side", "scorers/benchmark/metrics.py",
        "np.sqrt(untied_x * untied_y)", "np.sqrt(untied_x * untied_x)", "scorers/test_benchmark_metrics.py",
    ),
    Fault(
        "a comparison takes what the first alone has read", "scorers/benchmark/metrics.py",
        "both = first.read & second.read", "both = first.read", "scorers/test_benchmark_metrics.py",
    ),
    # ------------------------------------------------------------------ scorers: alignment
    Fault(
        "the learning rate is a step ahead", "scorers/alignment/training/trainer.py",
        "(step + 0.5)", "(step + 1.5)", f"{SFT} scorers/alignment/test_running.py",
        first="the_rate_rises",
    ),
    Fault(
        "the cosine begins with the warm-up", "scorers/alignment/training/callbacks.py",
        "(progress - warmup) / (1 - warmup)", "progress", f"{SFT} scorers/alignment/test_running.py",
        first="the_rate_rises",
    ),
    Fault(
        "a resumed alignment forgets the minutes already spent", "scorers/alignment/training/callbacks.py",
        '"attributes": {"spent": self.seconds()}', '"attributes": {"spent": 0.0}',
        f"{SFT} scorers/alignment/test_running.py",
        first="out_of_memory_says",
    ),
    Fault(
        "vectors decay too", "scorers/alignment/training/trainer.py",
        "config.weight_decay if decays else 0.0", "config.weight_decay", SFT,
        first="vectors_do_not_decay",
    ),
    Fault(
        "a soft digit has too much of the truth", "scorers/alignment/soft_labels.py",
        "soft[digit] += 1 - eta", "soft[digit] += 1", "scorers/alignment/test_losses.py",
    ),
    Fault(
        "a normal distribution too narrow", "scorers/alignment/soft_labels.py",
        "logs = -0.5 *", "logs = -1.0 *", "scorers/alignment/test_losses.py",
    ),
    Fault(
        "the expected value counts a place before it is reached", "scorers/alignment/training/losses.py",
        "(before.exp() * leaves)", "(reached.exp() * leaves)", "scorers/alignment/test_losses.py",
    ),
    Fault(
        "the value term is shared by the batch at hand", "scorers/alignment/training/losses.py",
        "(len(gaps) if num_answers is None else num_answers)", "len(gaps)",
        f"scorers/alignment/test_losses.py {SFT}",
    ),
    Fault(
        "a reward by the highest value, not the range", "scorers/alignment/training/rewards.py",
        "/ (dim.high - dim.low)", "/ dim.high", "scorers/alignment/test_grpo.py",
    ),
    # ------------------------------------------------------------------ guidance
    Fault(
        "the spread counts prompts with one image", "guidance/finetuning/objectives/advantages.py",
        "counted.sum().clamp_min(1)).sqrt()\n    return", "read.sum().clamp_min(1)).sqrt()\n    return",
        "guidance/finetuning/test_losses.py",
    ),
    Fault(
        "the negative model is on the wrong side", "guidance/finetuning/objectives/losses.py",
        "(1 + beta) * old - beta * output", "(1 - beta) * old + beta * output",
        "guidance/finetuning/test_losses.py",
    ),
    Fault(
        "the worse image's reference is forgotten", "guidance/finetuning/objectives/losses.py",
        "- (worse - reference_worse)", "- (worse - reference_better)", "guidance/finetuning/test_losses.py",
    ),
    Fault(
        "a resumed fine-tuning forgets the minutes already spent", "guidance/finetuning/loop.py",
        "self.state, tensors = found", "self.state, tensors = found\n        self.state.seconds = 0.0",
        "pipelines/test_finetuning.py",
        first="more_rounds_can",
    ),
    Fault(
        "the alarm knows no tolerance", "guidance/finetuning/panel.py",
        "high < -self.tolerances[name]", "high < 0", "guidance/finetuning/test_panel.py",
    ),
    Fault(
        "particles are weighed by their whole score at every look", "guidance/search/fk.py",
        "log_weights + now - before", "log_weights + now", "guidance/test_search.py",
        first="weighed_by_what_they_gained",
    ),
    Fault(
        "copies of a particle keep the weights of before", "guidance/search/fk.py",
        "log_weights = torch.zeros(count, dtype=torch.float64)\n                # every row", "# every row",
        "guidance/test_search.py", first="begin_anew",
    ),
    Fault(
        "copies of a particle are measured from another's score", "guidance/search/fk.py",
        "pool.select(parents), now[parents]", "pool.select(parents), now", "guidance/test_search.py",
        first="begin_anew",
    ),
    Fault(
        "resampling is not random", "guidance/search/fk.py",
        "dtype=torch.float64) + uniform", "dtype=torch.float64) + 0.5", "guidance/test_search.py", first="systematic",
    ),
    Fault(
        "a neighbour's noise is too small", "guidance/search/noise.py",
        "math.sqrt(1 - radius**2)", "1 - radius", "guidance/test_search.py",
    ),
    Fault(
        "noise is driven off its length", "guidance/search/gradient.py",
        "((size - 1) / length**2 - 1)", "(1 - (size - 1) / length**2)", "guidance/test_gradient.py",
    ),
    Fault(
        "different is what differs on average", "guidance/choosing.py",
        "apart[:, taken].amin(1)", "apart[:, taken].mean(1)", "guidance/test_choosing.py",
    ),
    # ------------------------------------------------------------------ pipelines
    Fault(
        "the clean prediction of flows and Karras' kin is by the next step's level", "pipelines/driving/diffusion.py",
        "return _level(scheduler, sigmas[index]),", "return _level(scheduler, sigmas[index + 1]),",
        "pipelines/test_driving.py pipelines/test_trajectories.py",
    ),
    Fault(
        "the clean prediction of DDPM's kin is by the next step's level", "pipelines/driving/diffusion.py",
        "return _variance_preserving(scheduler, timestep),", "return _variance_preserving(scheduler, later),",
        "pipelines/test_driving.py pipelines/test_trajectories.py", first="make_up_its_latents",
    ),
    Fault(
        "fresh noise at the wrong level", "pipelines/driving/diffusion.py",
        "kept = alpha * next_sigma / max(next_alpha * sigma, 1e-12)", "kept = next_sigma / max(sigma, 1e-12)",
        "pipelines/test_trajectories.py",
    ),
    Fault(
        "velocities of scaled latents are too long", "pipelines/driving/diffusion.py",
        "found: torch.Tensor = (alpha * noise - sigma * clean) / length",
        "found: torch.Tensor = alpha * noise - sigma * clean", "pipelines/test_learner.py",
        first="targets_agree",
    ),
    Fault(
        "a mix of noises is its first one, weighted", "pipelines/driving/trajectories.py",
        "noise.mix[min(part, len(noise.mix) - 1)][0]", "noise.mix[0][0]",
        "pipelines/test_trajectories.py pipelines/test_record.py guidance/test_search.py",
    ),
    Fault(
        "noises are mixed without their weights", "pipelines/driving/trajectories.py",
        "scaled = drawn * _column(weights, drawn) if", "scaled = drawn if",
        "pipelines/test_trajectories.py", first="a_mix_of_noises",
    ),
    Fault(
        "latents that are gone on with are scaled twice", "pipelines/driving/trajectories.py",
        "latents = latents / start.scale", "pass", "pipelines/test_trajectories.py",
        first="scaled_once",
    ),
    Fault(
        "the untrained model is the trained one", "pipelines/driving/learner.py",
        "layer.enable_adapters(False)", "layer.enable_adapters(True)", "pipelines/test_learner.py",
        first="the_reference_is",
    ),
    Fault(
        "a study's difference has its sign turned", "pipelines/study/study.py",
        "paired_difference(by_arm[\"original\"][name], by_arm[arm][name])",
        "paired_difference(by_arm[arm][name], by_arm[\"original\"][name])", "pipelines/test_study.py",
    ),
    Fault(
        "votes of several people count as several pairs", "pipelines/study/study.py",
        "binomtest(round(wins / votes * len(pairs)), len(pairs))", "binomtest(wins, votes)",
        "pipelines/test_study.py",
    ),
    Fault(
        "votes go to the other encoder", "pipelines/study/study.py",
        "[pair][side] == \"aligned\"", "[pair][side] == \"original\"", "pipelines/test_study.py", first="voting_page",
    ),
    Fault(
        "who chose neither has chosen the original", "pipelines/study/study.py",
        "ties += 1\n", "ties += 1\n                per_pair.setdefault(pair, []).append(0)\n",
        "pipelines/test_study.py", first="voting_page",
    ),
    # ------------------------------------------------------------------ integrations
    Fault(
        "an adapter on the Hub is taken for a plain model", "scorers/mllm/checkpoints.py",
        "if adapter is None and hub_file(model, ADAPTER_FILE) is not None:",
        "if adapter is None and (Path(model) / ADAPTER_FILE).is_file():", "integrations/test_hub.py",
    ),
    Fault(
        "a published model's questions stay behind", "scorers/publishing/judges.py",
        "    facts.write(target)\n", "", "integrations/test_hub.py",
    ),
    Fault(
        "folders of one's machine are published", "scorers/publishing/judges.py",
        "(ADAPTER_FILE, FACTS_FILE, RECORD)", "(ADAPTER_FILE, FACTS_FILE)", "integrations/test_hub.py",
    ),
    Fault(
        "the figures of another judge are published", "scorers/publishing/judges.py",
        "and of and digest not in of", "and not of", "integrations/test_hub.py",
    ),
    Fault(
        "intervals lack their upper end", "scorers/publishing/cards.py",
        "[round(end, 6) for end in interval]", "[round(interval[0], 6)] * 2", "integrations/test_hub.py",
    ),
    Fault(
        "the Hub is not asked about the card", "scorers/publishing/uploading.py",
        "card.validate()", "pass", "integrations/test_hub.py",
    ),
    Fault(
        "a text that a person wrote is overwritten", "scorers/publishing/uploading.py",
        "if MARK in before.content", "if True", "integrations/test_hub.py",
    ),
    Fault(
        "a LoRA's change is its value after", "pipelines/publishing.py",
        "interval(saved.values[name] - before.values[name])", "interval(saved.values[name])",
        "integrations/test_hub.py",
    ),
    Fault(
        "a saved block forgets its target", "integrations/modular.py",
        '"target": target, "n": self.n', '"target": "fake", "n": self.n', "integrations/test_modular.py",
    ),
    Fault(
        "a judge is copied with its block", "integrations/modular.py",
        "memo[id(self.target)], memo[id(self._target_given)] = self.target, self._target_given", "pass",
        "integrations/test_modular.py",
    ),
    Fault(
        "back-ends without a kernel are said to work", "_cli/info.py",
        'return f"fails on {device}: {why}"', "return None", "pipelines/test_attention.py",
    ),
)  # fmt: skip
