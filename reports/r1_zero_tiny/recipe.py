"""Does R1-Zero in miniature learn to reason, or only a form? Several seeds, each from nothing, each with its controls.

For every seed: `python scripts/train.py experiment=r1_zero_tiny` from an empty folder (timed), then its base pre-trained further
on fresh text for at least the FLOPs that RL took (the control), then the same held-out problems for four models: the base, the
trained model, the trained model with an empty think forced on it, the control. Rows are appended to `results.csv` as they
come, with commit and fingerprint, and a seed that is there is not run again, so that no run is lost; rows of another
configuration are refused, so that no table mixes two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from r1_lightning.artefacts.store import CONFIG, Artefact, open_artefact
from r1_lightning.evaluation.curves import draw_curves, expected_band, summarise, training_flops
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.run.commands.evaluate import EMPTY_THINK, evaluate
from r1_lightning.run.commands.recipe import Made, Recipe, Row
from r1_lightning.run.commands.report_runs import made_by, rollout_means, train

EXPERIMENT = "experiment=r1_zero_tiny"
FIELDS = ("seed", "model", "measure", "value", "low", "high", "fingerprint", "commit")
CURVE_FIELDS = ("seed", "step", "reward_mean", "accuracy_mean", "format_mean", "completion_tokens_mean")
PROBLEMS, SAMPLES = 1000, 16


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


def more_files(rows: Sequence[Row], points: Sequence[Row]) -> dict[str, str]:
    """The band that the curve of another seed should lie in, and the commits that made the rows."""
    commits = sorted({row["commit"] for row in rows})
    band = json.dumps(expected_band(points), indent=1)
    return {"expected.json": f"{band}\n", "commit.txt": "\n".join(commits) + "\n"}


RECIPE = Recipe(
    seeds=[0, 1, 2, 3, 4],
    key={"seed": int},
    fields=FIELDS,
    runs=lambda options: [(seed,) for seed in options.seeds],
    overrides=overrides,
    make=make,
    table=summarise,
    curve_fields=CURVE_FIELDS,
    draw=draw_curves,
    more_files=more_files,
    is_of_run=lambda row: row["model"] == "trained",  # base and control have fingerprints of their own
)
