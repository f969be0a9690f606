"""Why R1 takes no learned reward for reasoning: RL against a reward model, its score and the true accuracy side by side.

R1 trains its reasoning with rules only, because a neural reward model is open to reward hacking in long RL (R1v2 section 2.2),
and lets preference rewards join for the last 400 of 1,700 steps (section 3.2.2, B.5). Here both can be seen, because for sums the
truth is known. Every seed pre-trains a base, trains a reward model on pairs of the base's own completions (right beside wrong, by
the rule), and then runs GRPO twice from the base: against the model's score alone, and against the rule alone. Each run logs
both. Rows are appended as they come, with commit and fingerprint; a run that is there is not made again, rows of another recipe are
refused.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.store import Artefact, open_artefact
from r1_lightning.run.commands.recipe import Made, Recipe, read, spread
from r1_lightning.run.commands.report_runs import made_by, train

FIELDS = ("seed", "run", "measure", "value", "fingerprint", "commit")
CURVE_FIELDS = ("seed", "run", "step", "score", "accuracy", "format", "tokens")
EXPERIMENT = "experiment=reward_hacking"
# The rewards that count: what each run follows, under its name in the tables.
RUNS = {
    "score": (),
    "rule": ("reward.weights.score=0.0", "reward.weights.accuracy=1.0"),
}
WINDOW = 10  # steps to a point of a curve, and to the first and the last mean in the table
CURVES = {
    "score": "rollout/score_mean",
    "accuracy": "rollout/accuracy_mean",
    "format": "rollout/format_mean",
    "tokens": "rollout/completion_tokens_mean",
}
HELD_OUT = ("pass_at_1", "pass_at_1_lenient", "format_rate", "completion_tokens_mean")
SHOWN = {
    "score_first": "score, first 10 steps",
    "score_last": "score, last 10 steps",
    "accuracy_first": "accuracy, first 10 steps",
    "accuracy_best": "accuracy, best 10 steps",
    "accuracy_last": "accuracy, last 10 steps",
    "base/pass_at_1": "held out, strict accuracy of the base",
    "pass_at_1": "held out, strict accuracy",
    "base/pass_at_1_lenient": "held out, lenient accuracy of the base",
    "pass_at_1_lenient": "held out, lenient accuracy",
    "format_rate": "held out, well formed",
    "completion_tokens_mean": "held out, completion tokens",
}


def overrides(seed: int, run: str) -> list[str]:
    """The arguments of `scripts/train.py` for one run."""
    return [EXPERIMENT, f"seed={seed}", *RUNS[run]]


def curve_of(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    """Means over `WINDOW` steps of a run's logged rollouts, by `CURVES`; `step` is the last of each window, from 1."""
    windows = [rows[start : start + WINDOW] for start in range(0, len(rows), WINDOW)]
    points = []
    for number, window in enumerate(windows):
        means = {name: mean(float(row[metric]) for row in window) for name, metric in CURVES.items()}
        points.append({"step": float(number * WINDOW + len(window)), **means})
    return points


def measures_of(artefact: Artefact, curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What the table shows of one finished run."""
    measures = {f"{name}_first": curve[0][name] for name in ("score", "accuracy")}
    measures |= {f"{name}_last": curve[-1][name] for name in ("score", "accuracy")}
    measures["accuracy_best"] = max(point["accuracy"] for point in curve)
    for name in HELD_OUT:
        for prefix, key in (("base/", "eval_base"), ("", "eval")):
            value = artefact.metrics[f"{key}/arithmetic/{name}"]
            measures[prefix + name] = math.nan if value is None else value
    return measures


def make(seed: int, run: str, root: Path) -> Made:
    """The rows and the curve of one run."""
    artefact, _ = train(overrides(seed, run), root)
    logged = [row for row in read(artefact.folder / METRICS) if row.get(CURVES["score"])]
    curve = curve_of(logged)
    measures = measures_of(artefact, curve)
    model = open_artefact((artefact.folder / artefact.inputs["score"]["folder"]).resolve())
    pair_accuracy = model.metrics["eval/preferences/pair_accuracy"]
    measures["pair_accuracy"] = math.nan if pair_accuracy is None else pair_accuracy
    common, made = {"seed": seed, "run": run}, made_by(artefact)
    rows = [{**common, "measure": name, "value": f"{value:.6g}", **made} for name, value in measures.items()]
    points = [{name: f"{value:.6g}" for name, value in point.items()} for point in curve]
    return Made(rows, [{**common, **point} for point in points])


def render(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table: a line per measure, a column per run, the mean over seeds and [smallest, largest]."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        values[row["measure"], row["run"]].append(float(row["value"]))
    seeds = sorted({row["seed"] for row in rows}, key=int)
    lines = [
        f"Seeds: {', '.join(seeds)}. Mean over seeds, [smallest, largest].",
        "",
        "| | RL against the reward model's score | RL against the rule |",
        "|---|---|---|",
    ]
    for measure, label in SHOWN.items():
        lines.append(f"| {label} | " + " | ".join(spread(values[measure, run]) for run in RUNS) + " |")
    pairs = values["pair_accuracy", "score"]
    lines += [
        "",
        f"The reward model tells right from wrong in {spread(pairs)} of held-out pairs of the base's completions.",
    ]
    return "\n".join(lines) + "\n"


def draw(curves: Sequence[Mapping[str, str]], path: Path) -> None:
    """Score and true accuracy over optimizer steps: a panel per run, a pair of lines per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(RUNS), figsize=(10, 3.6), sharey=True, constrained_layout=True)
    titles = {"score": "RL against the reward model's score", "rule": "RL against the rule (accuracy)"}
    for axis, run in zip(axes, RUNS, strict=True):
        for seed in sorted({row["seed"] for row in curves if row["run"] == run}, key=int):
            rows = [row for row in curves if row["run"] == run and row["seed"] == seed]
            steps = [float(row["step"]) for row in rows]
            for name, colour, label in (
                ("score", "tab:red", "reward model's score"),
                ("accuracy", "tab:blue", "accuracy"),
            ):
                line = axis.plot(steps, [float(row[name]) for row in rows], color=colour, linewidth=1.2)[0]
                line.set_label(label)
        handles, labels = axis.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        if unique:
            axis.legend(unique.values(), unique.keys(), fontsize=8)
        axis.set(xlabel="optimizer step", title=titles[run], ylim=(0, 1))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


RECIPE = Recipe(
    seeds=[0, 1, 2],
    key={"seed": int, "run": str},
    fields=FIELDS,
    runs=lambda options: itertools.product(options.seeds, RUNS),
    overrides=overrides,
    make=make,
    table=render,
    curve_fields=CURVE_FIELDS,
    draw=draw,
)
