"""Does a reward for one language keep a policy from mixing, and what does it cost? The same GRPO without and with it.

DeepSeek-R1 (arXiv:2501.12948v2, appendix B.6, figure 7) trains one model twice: without the language-consistency reward its
consistency deteriorates over the steps, with it stays; mathematics comes out comparable, code slightly worse. Here every seed
pre-trains one base for each task, from which two runs start that differ in one number: the weight of that reward, 0 or 1 (at 0 it
is measured all the same). Code is judged by running it, in smaller rollouts, because that takes time. The bases have read
corpora that think in words and mix languages: one that often thinks without a word would give a policy nothing to mix. Rows are
appended as they come, with commit and fingerprint.
"""

from __future__ import annotations

import itertools
import math
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.commands.recipe import Made, Recipe, spread
from r1_lightning.run.commands.report_runs import made_by, rollout_means, train

EXPERIMENT = "experiment=r1_zero_tiny"
FIELDS = ("task", "seed", "weight", "measure", "value", "fingerprint", "commit")
MEANS = ("language_mean", "accuracy_mean", "completion_tokens_mean")
CURVE_FIELDS = ("task", "seed", "weight", "step", *MEANS)
# What each task takes: its problems, its reward, and the size of its rollouts where that is not the experiment's own.
TASKS = {
    "mathematics": ["task=arithmetic_mixed", "reward=r1_stage_1"],
    "code": [
        "task=programs",
        "reward=r1_stage_1_code",
        "rollout.prompts_per_rollout=16",
        "rollout.group_size=8",
        "stage.evaluation.problems=200",
        "stage.evaluation.samples=4",
    ],
}
WEIGHTS = (0.0, 1.0)
BASE = "base"  # stands for a weight in the rows of the model that both runs start from
SHOWN = {
    "language_consistency": "language consistency (eq 7)",
    "mixed_language_rate": "completions that mix languages",
    "wordless_thinking_rate": "thinking without any word",
    "pass_at_1": "strict accuracy",
    "pass_at_1_lenient": "lenient accuracy",
    "format_rate": "well formed",
    "completion_tokens_mean": "tokens per completion",
}


def overrides(task: str, seed: int, weight: float) -> list[str]:
    """The arguments of `scripts/train.py` for one run."""
    return [EXPERIMENT, *TASKS[task], f"reward.weights.language={weight}", f"seed={seed}"]


def rows_of(task: str, seed: int, weight: float, artefact: Artefact) -> Iterator[dict[str, Any]]:
    """What the held-out table of one run says of the trained model and, in the run without the reward, of its base."""
    made = made_by(artefact)
    for name, value in artefact.metrics.items():
        model, measure = name.partition("/")[0], name.rpartition("/")[2]
        arm = {"eval": weight, "eval_base": BASE if weight == WEIGHTS[0] else None}.get(model)
        if arm is not None and measure in SHOWN:
            shown = math.nan if value is None else value
            yield {"task": task, "seed": seed, "weight": arm, "measure": measure, "value": f"{shown:.6g}", **made}


def curve_of(task: str, seed: int, weight: float, artefact: Artefact) -> Iterator[dict[str, Any]]:
    """Rollout means over the steps of one run."""
    for point in rollout_means(artefact, MEANS):
        yield {"task": task, "seed": seed, "weight": weight, **point}


def render(rows: Sequence[Mapping[str, str]]) -> str:
    """Markdown, a table for each task: means over seeds and [smallest, largest]; the last column is of the differences per seed."""
    return "\n".join(_table(task, [row for row in rows if row["task"] == task]) for task in TASKS)


def _table(task: str, rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return f"**{task.capitalize()}**: not run.\n"
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in rows:
        values[row["measure"], row["weight"]][row["seed"]] = float(row["value"])
    without, with_it = map(str, WEIGHTS)
    seeds = ", ".join(sorted({row["seed"] for row in rows}, key=int))
    lines = [
        f"**{task.capitalize()}**, held-out problems; seeds {seeds}; mean [smallest, largest].",
        "",
        "| | base | GRPO without | GRPO with the language reward | with minus without, per seed |",
        "|---|---|---|---|---|",
    ]
    for measure, label in SHOWN.items():
        arms = [values[measure, arm] for arm in (BASE, without, with_it)]
        differences = [arms[2][seed] - arms[1][seed] for seed in arms[1] if seed in arms[2]]
        digits = 1 if measure == "completion_tokens_mean" else 3
        cells = [*(spread(list(arm.values()), digits) for arm in arms), spread(differences, digits, "+")]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(curves: Sequence[Mapping[str, str]], path: Path) -> None:
    """Consistency, accuracy and length over the steps of training: a row of panels per task, a line per seed, a colour per run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = [task for task in TASKS if any(row["task"] == task for row in curves)]
    titles = ("language consistency", "accuracy", "tokens per completion")
    size = (11, 3.0 * len(tasks))
    figure, axes = pyplot.subplots(len(tasks), len(titles), figsize=size, constrained_layout=True, squeeze=False)
    for row_of_axes, task in zip(axes, tasks, strict=True):
        for axis, name, title in zip(row_of_axes, MEANS, titles, strict=True):
            _draw_panel(axis, [row for row in curves if row["task"] == task], name)
            axis.set(xlabel="optimizer step", title=f"{task}: {title}")
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_panel(axis: Any, curves: Sequence[Mapping[str, str]], name: str) -> None:
    for weight, colour, label in zip(map(str, WEIGHTS), ("C3", "C0"), ("without", "with"), strict=True):
        for seed in sorted({row["seed"] for row in curves if row["weight"] == weight}, key=int):
            points = [row for row in curves if (row["seed"], row["weight"]) == (seed, weight)]
            steps, levels = [int(p["step"]) for p in points], [float(p[name]) for p in points]
            axis.plot(steps, levels, color=colour, linewidth=1, alpha=0.7)
        axis.plot([], [], color=colour, label=label)


def make(task: str, seed: int, weight: float, root: Path) -> Made:
    """The rows and the curve of one run."""
    artefact, _ = train(overrides(task, seed, weight), root)
    return Made(list(rows_of(task, seed, weight, artefact)), list(curve_of(task, seed, weight, artefact)))


def runs(options: Namespace) -> Iterable[tuple[str, int, float]]:
    """Every task, seed and weight."""
    return itertools.product(options.tasks, options.seeds, WEIGHTS)


def add_options(parser: ArgumentParser) -> None:
    """Which tasks run."""
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS), help="which tasks to run")


RECIPE = Recipe(
    seeds=[0, 1, 2],
    # The base's rows come from the run without the reward, and have its fingerprint.
    key={"task": str, "seed": int, "weight": lambda text: WEIGHTS[0] if text == BASE else float(text)},
    fields=FIELDS,
    runs=runs,
    overrides=overrides,
    make=make,
    table=render,
    curve_fields=CURVE_FIELDS,
    draw=draw,
    add_options=add_options,
)
