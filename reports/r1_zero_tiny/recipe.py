"""Does R1-Zero in miniature learn to reason, or only a form? Several seeds, each from nothing, each with its controls.

For every seed: `python scripts/train.py experiment=r1_zero_tiny` from an empty folder (timed), then its base pre-trained further
on fresh text for at least the FLOPs that RL took (the control), then the same held-out problems for four models: the base, the
trained model, the trained model with an empty think forced on it, the control. Rows are appended to `results.csv` as they
come, with commit and fingerprint, and a seed that is there is not run again, so that no run is lost; rows of another
configuration are refused, so that no table mixes two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import yaml

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.store import CONFIG, Artefact, open_artefact
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.model.config import ModelConfig
from r1_lightning.model.cost import FORWARD_FLOPS, TRAINING_FLOPS, count_parameters, meta_backbone
from r1_lightning.review.bands import LEAST_SEEDS, Band, make_band
from r1_lightning.review.expected import text_of
from r1_lightning.review.series import Series
from r1_lightning.run.commands.evaluate import EMPTY_THINK, evaluate
from r1_lightning.run.commands.recipe import Made, Recipe, Row, read, spread
from r1_lightning.run.commands.report_runs import made_by, rollout_means, train

EXPERIMENT = "experiment=r1_zero_tiny"
FIELDS = ("seed", "model", "measure", "value", "low", "high", "fingerprint", "commit")
CURVE_FIELDS = ("seed", "step", "reward_mean", "accuracy_mean", "format_mean", "completion_tokens_mean")
PROBLEMS, SAMPLES = 1000, 16
SHOWN = (
    ("pass_at_1", "accuracy, strict (format and answer)"),
    ("pass_at_1_lenient", "accuracy, lenient (right answer at the end)"),
    ("cons_at_16", "cons@16"),
    ("format_rate", "format"),
    ("completion_tokens_mean", "completion tokens"),
    ("mixed_language_rate", "completions mixing languages"),
)
MODELS = ("base", "trained", "trained, empty think", "control")


def overrides(seed: int) -> list[str]:
    """The arguments of `scripts/train.py` for one seed."""
    return [EXPERIMENT, f"seed={seed}"]


def make(seed: int, root: Path) -> Made:
    """All rows, the curve and the configuration of one seed."""
    root = root / f"seed{seed}"
    from_nothing = not root.exists()
    trained, seconds = train(overrides(seed), root)
    base = open_artefact((trained.folder / trained.inputs["base"]["folder"]).resolve())
    control, _ = train(["experiment=r1_zero_tiny_control", f"init_from={base.folder}", f"seed={seed}"], root)
    settings = {"problems": PROBLEMS, "samples": SAMPLES}
    rows: list[dict[str, object]] = []
    for model, artefact, prefix in (
        ("base", base, ""),
        ("trained", trained, ""),
        ("trained, empty think", trained, EMPTY_THINK),
        ("control", control, ""),
    ):
        _, measures = evaluate(artefact.folder, settings, prefix)
        rows += list(_rows(seed, model, artefact, measures))
    costs = {
        "training_flops": ("trained", trained, training_flops(trained.folder)),
        "control_flops": ("control", control, training_flops(control.folder)),
    }
    if from_nothing:  # a resumed or reused run has no time of its own
        costs["command_s"] = ("trained", trained, seconds)
    for measure, (model, artefact, value) in costs.items():
        rows.append(_row(seed, model, measure, value, value, value, artefact))
    config = yaml.safe_load((trained.folder / CONFIG).read_text(encoding="utf-8"))
    del config["paths"]  # where a run lay is nobody else's concern
    curve = [{"seed": seed, **point} for point in rollout_means(trained, CURVE_FIELDS[2:])]
    return Made(rows, curve, {"config.yaml": yaml.safe_dump(config, sort_keys=False)})


def _rows(seed: int, model: str, artefact: Artefact, measures: Mapping[str, Measure]) -> Iterator[dict[str, object]]:
    for name, measure in measures.items():
        yield _row(seed, model, name, measure.value, measure.interval.low, measure.interval.high, artefact)


def _row(
    seed: int, model: str, measure: str, value: float, low: float, high: float, artefact: Artefact
) -> dict[str, object]:
    numbers = {name: f"{number:.6g}" for name, number in (("value", value), ("low", low), ("high", high))}
    return {"seed": seed, "model": model, "measure": measure, **numbers, **made_by(artefact)}


def training_flops(folder: Path) -> float:
    """Estimate the FLOPs of a finished stage's training from its logged tokens: 2 per weight and token forward, 4 backward.

    A GRPO step counts one forward and backward of the policy and one forward of the reference over its packed tokens; a rollout
    counts one forward per sampled token. Not counted: attention scores (in RL and control alike); the prompt forward, once per
    group (in the default run about 3 % of the sampled tokens, in RL's favour); the MTP module of pre-training (about a quarter of a
    pre-training step, in the control's favour).
    """
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    shape = {
        key: value for key, value in config["model"].items() if key not in ("_target_", "yarn")
    }  # YaRN has no weights
    vocab_size = config["task"]["tokenizer"]["vocab_size"]
    weights = count_parameters(meta_backbone(ModelConfig(vocab_size=vocab_size, **shape))).activated
    rows = read(folder / METRICS)
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


def render(results: Sequence[Mapping[str, str]]) -> str:
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


def draw(curves: Sequence[Mapping[str, str]], path: Path) -> None:
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


def expected_band(curves: Sequence[Mapping[str, str]]) -> Band | None:
    """Return the band in which the curves of another seed are expected (`r1_lightning/review/bands.py`); None of too few seeds."""
    seeds = sorted({int(row["seed"]) for row in curves})
    if len(seeds) < LEAST_SEEDS:
        return None
    series: dict[str, list[Series]] = {}
    for name in CURVE_FIELDS[2:]:
        of_seeds = [[(int(r["step"]), float(r[name])) for r in curves if int(r["seed"]) == seed] for seed in seeds]
        series[f"rollout/{name}"] = [
            Series(tuple(step for step, _ in points), tuple(value for _, value in points)) for points in of_seeds
        ]
    return make_band("r1_zero_tiny", series, seeds)


def more_files(rows: Sequence[Row], points: Sequence[Row]) -> dict[str, str]:
    """The commits that made the rows, and of enough seeds the band of their curves."""
    commits, band = sorted({row["commit"] for row in rows}), expected_band(points)
    files = {"commit.txt": "\n".join(commits) + "\n"}
    return files if band is None else {"expected.json": text_of(band), **files}


RECIPE = Recipe(
    seeds=[0, 1, 2, 3, 4],
    key={"seed": int},
    fields=FIELDS,
    runs=lambda options: [(seed,) for seed in options.seeds],
    overrides=overrides,
    make=make,
    table=render,
    curve_fields=CURVE_FIELDS,
    draw=draw,
    more_files=more_files,
    is_of_run=lambda row: row["model"] == "trained",  # base and control have fingerprints of their own
)
