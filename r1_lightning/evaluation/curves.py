"""Report tools for runs over several seeds: a table, the expected band of a learning curve, a plot, and training FLOPs."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import yaml

from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import FORWARD_FLOPS, TRAINING_FLOPS, count_parameters, meta_backbone

# The band from the smallest to the largest of 5 seeds is widened by this much on both sides, because rounding differs by machine.
BAND_MARGIN = 0.05
SHOWN = (
    ("pass_at_1", "accuracy, strict (format and answer)"),
    ("pass_at_1_lenient", "accuracy, lenient (right answer at the end)"),
    ("cons_at_16", "cons@16"),
    ("format_rate", "format"),
    ("completion_tokens_mean", "completion tokens"),
    ("mixed_language_rate", "completions mixing languages"),
)
MODELS = ("base", "trained", "trained, empty think", "control")


def summarise(results: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table: mean and range over seeds, and the gains per seed."""
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in results:
        values[row["model"], row["measure"]][row["seed"]] = float(row["value"])
    seeds = sorted({row["seed"] for row in results})
    lines = [
        f"Seeds: {', '.join(seeds)}. Mean over seeds, [smallest, largest].",
        "",
        "| | " + " | ".join(MODELS) + " |",
    ]
    lines.append("|---" * (len(MODELS) + 1) + "|")
    for measure, label in SHOWN:
        cells = [spread(values[model, measure].values()) for model in MODELS]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += ["", "| gain, per seed | " + " | ".join(seeds) + " |", "|---" * (len(seeds) + 1) + "|"]
    for label, after, before, measure in (
        ("strict, trained - base", "trained", "base", "pass_at_1"),
        ("lenient, trained - base", "trained", "base", "pass_at_1_lenient"),
        ("strict, trained - empty think", "trained", "trained, empty think", "pass_at_1"),
        ("lenient, trained - empty think", "trained", "trained, empty think", "pass_at_1_lenient"),
        ("strict, control - base", "control", "base", "pass_at_1"),
        ("lenient, control - base", "control", "base", "pass_at_1_lenient"),
    ):
        gains = [values[after, measure][seed] - values[before, measure][seed] for seed in seeds]
        lines.append(f"| {label} | " + " | ".join(f"{gain:+.3f}" for gain in gains) + " |")
    for label, model, measure in (
        ("RL, FLOPs", "trained", "training_flops"),
        ("control, FLOPs", "control", "control_flops"),
    ):
        lines.append(f"| {label} | " + " | ".join(f"{values[model, measure][seed]:.2e}" for seed in seeds) + " |")
    ratios = [values["control", "control_flops"][s] / values["trained", "training_flops"][s] for s in seeds]
    lines.append("| control / RL, FLOPs (at least 1) | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + " |")
    seconds = values["trained", "command_s"]  # only of seeds whose run started from scratch and was not interrupted
    timed = [f"{seconds[seed]:.0f}" if seed in seconds else "not timed" for seed in seeds]
    lines.append("| the whole command, s | " + " | ".join(timed) + " |")
    if seconds:
        lines += ["", f"The whole command, median of {len(seconds)}: {median(seconds.values()):.0f} s."]
    return "\n".join(lines) + "\n"


def spread(numbers: Collection[float], digits: int | None = None, sign: str = "") -> str:
    """Return a table cell over seeds: `mean [smallest, largest]`, or "not run".

    `digits=None` shows 1 decimal for lengths in tokens and 3 for shares in 0..1; `sign="+"` also marks positive numbers.
    """
    if not numbers:
        return "not run"
    average = mean(numbers)
    if digits is None:
        digits = 1 if average > 1.5 else 3
    shown, low, high = (f"{number:{sign}.{digits}f}" for number in (average, min(numbers), max(numbers)))
    return f"{shown} [{low}, {high}]"


def expected_band(curves: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return per step the band of reward and accuracy that contains every seed, with a margin for other machines."""
    by_step: dict[int, list[Mapping[str, str]]] = defaultdict(list)
    for row in curves:
        by_step[int(row["step"])].append(row)
    band: dict[str, Any] = {"margin": BAND_MARGIN, "steps": sorted(by_step)}
    for name in ("reward_mean", "accuracy_mean"):
        numbers = {step: [float(row[name]) for row in rows] for step, rows in by_step.items()}
        band[name] = [
            [round(min(numbers[step]) - BAND_MARGIN, 3), round(max(numbers[step]) + BAND_MARGIN, 3)]
            for step in band["steps"]
        ]
    return band


def draw_curves(curves: Sequence[Mapping[str, str]], path: Path) -> None:
    """Plot reward, accuracy and completion length over optimizer steps, one line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = (
        ("reward_mean", "reward (accuracy + format)"),
        ("accuracy_mean", "accuracy"),
        ("completion_tokens_mean", "tokens"),
    )
    figure, axes = pyplot.subplots(1, len(panels), figsize=(11, 3.2), constrained_layout=True)
    for axis, (name, label) in zip(axes, panels, strict=True):
        for seed in sorted({row["seed"] for row in curves}):
            rows = [row for row in curves if row["seed"] == seed]
            axis.plot([int(r["step"]) for r in rows], [float(r[name]) for r in rows], linewidth=1, label=f"seed {seed}")
        axis.set(xlabel="optimizer step", title=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def training_flops(folder: Path) -> float:
    """Estimate the FLOPs of a finished stage's training from its logged tokens: 2 per weight and token forward, 4 backward.

    A GRPO step counts one forward and backward of the policy and one forward of the reference over its packed tokens; a rollout
    counts one forward per sampled token. Not counted: attention scores (in RL and control alike); the prompt forward, once per
    group (in the default run about 3 % of the sampled tokens, in RL's favour); the MTP module of pre-training (about a quarter of a
    pre-training step, in the control's favour).
    """
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    shape = {
        key: value for key, value in config["model"].items() if key not in ("_target_", "yarn")
    }  # YaRN has no weights
    vocab_size = config["task"]["tokenizer"]["vocab_size"]
    weights = count_parameters(meta_backbone(ModelConfig(vocab_size=vocab_size, **shape))).activated
    with (folder / "tensorboard" / "metrics.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    trained_tokens = sum(float(row["perf/step_tokens"]) for row in rows if row.get("perf/step_tokens"))
    is_rl = any(row.get("rollout/reward_mean") for row in rows)
    if not is_rl:
        return TRAINING_FLOPS * weights * trained_tokens
    rollout = config["rollout"]
    # The log repeats a rollout's metrics in the row of each step that trains on it.
    completions_per_step = rollout["prompts_per_rollout"] * rollout["group_size"] / rollout["minibatches_per_rollout"]
    lengths = [float(row["rollout/completion_tokens_mean"]) for row in rows if row.get("rollout/reward_mean")]
    with_reference = (TRAINING_FLOPS + FORWARD_FLOPS) * weights * trained_tokens
    return with_reference + FORWARD_FLOPS * weights * completions_per_step * sum(lengths)
