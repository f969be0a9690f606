"""Does a reward for one language keep a policy from mixing, and what does it cost? The same GRPO without and with it.

DeepSeek-R1 (arXiv:2501.12948v2, appendix B.6, figure 7) trains one model twice: without the language-consistency reward its
consistency deteriorates over the steps, with it stays; mathematics comes out comparable, code slightly worse. Here every seed
pre-trains one base for each task, from which two runs start that differ in one number: the weight of that reward, 0 or 1 (at 0 it
is measured all the same). Code is judged by running it, in smaller rollouts, because that takes time. The bases have read
corpora that think in words and mix languages: one that often thinks without a word would give a policy nothing to mix. Rows are
appended as they come, with commit and fingerprint.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.cli import BAD_INPUT
from r1_lightning.run.reports import EXPERIMENT, METRICS, append, commit_at_start, read, require_recipe, train
from r1_lightning.types.errors import InvalidInput

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
    made = {"fingerprint": artefact.fingerprint[:SHORT_DIGITS], "commit": commit_at_start()}
    for name, value in artefact.metrics.items():
        model, measure = name.partition("/")[0], name.rpartition("/")[2]
        arm = {"eval": weight, "eval_base": BASE if weight == WEIGHTS[0] else None}.get(model)
        if arm is not None and measure in SHOWN:
            shown = math.nan if value is None else value
            yield {"task": task, "seed": seed, "weight": arm, "measure": measure, "value": f"{shown:.6g}", **made}


def curve_of(task: str, seed: int, weight: float, artefact: Artefact) -> Iterator[dict[str, Any]]:
    """Rollout means over the steps of one run."""
    for row in read(artefact.folder / METRICS):
        if row.get("rollout/reward_mean"):
            means = {name: f"{float(row[f'rollout/{name}']):.4f}" for name in MEANS}
            yield {"task": task, "seed": seed, "weight": weight, "step": row["step"], **means}


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
        cells = [*(_cell(list(arm.values()), digits) for arm in arms), _cell(differences, digits, "+")]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(numbers: Sequence[float], digits: int, sign: str = "") -> str:
    if not numbers:
        return "not run"
    shown = [f"{number:{sign}.{digits}f}" for number in (mean(numbers), min(numbers), max(numbers))]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


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


def check_same_recipe(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Raise `InvalidInput` where a row's model is of another configuration than today's."""
    for row in rows:
        weight = WEIGHTS[0] if row["weight"] == BASE else float(row["weight"])
        what = f"{row['task']}, seed {row['seed']}, language weight {row['weight']}"
        require_recipe(path, what, row["fingerprint"], overrides(row["task"], int(row["seed"]), weight))


def main() -> int:
    """The command line of `scripts/report_language_consistency.py`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="which seeds to run, if not yet run")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS), help="which tasks to run")
    parser.add_argument("--root", type=Path, default=Path("runs/language_consistency"), help="where the runs go")
    parser.add_argument("--out", type=Path, default=Path("reports/language_consistency"), help="the report's folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results, curves = options.out / "results.csv", options.out / "curves.csv"
    commit_at_start()
    try:
        check_same_recipe(read(results), results)
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    for run in itertools.product(options.tasks, options.seeds, WEIGHTS):
        if any((row["task"], row["seed"], row["weight"]) == tuple(map(str, run)) for row in read(results)):
            print(f"{run[0]}, seed {run[1]}, language weight {run[2]}: already in {results}")
            continue
        artefact, _ = train([*overrides(*run), f"paths.root={options.root}"])
        append(curves, CURVE_FIELDS, list(curve_of(*run, artefact)))
        append(results, FIELDS, list(rows_of(*run, artefact)))
        write_text(options.out / "table.md", render(read(results)))
        draw(read(curves), options.out / "curve.png")
    print(render(read(results)))
    return 0
