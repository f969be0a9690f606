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

from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.store import CONFIG, Artefact, open_artefact
from r1_lightning.evaluation.curves import draw_curves, expected_band, summarise, training_flops
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.run.commands.evaluate import EMPTY_THINK, evaluate
from r1_lightning.run.commands.report import (
    EXPERIMENT,
    Report,
    Row,
    made_by,
    report_options,
    rollout_means,
    train,
    write_report,
)

FIELDS = ("seed", "model", "measure", "value", "low", "high", "fingerprint", "commit")
CURVE_FIELDS = ("seed", "step", "reward_mean", "accuracy_mean", "format_mean", "completion_tokens_mean")
PROBLEMS, SAMPLES = 1000, 16


def run_seed(seed: int, root: Path) -> tuple[list[dict[str, object]], list[dict[str, object]], str]:
    """All rows, the curve and the configuration of one seed."""
    common = [f"seed={seed}", f"paths.root={root}"]
    from_nothing = not root.exists()
    trained, seconds = train([EXPERIMENT, *common])
    base = open_artefact((trained.folder / trained.inputs["base"]["folder"]).resolve())
    control, _ = train(["experiment=r1_zero_tiny_control", f"init_from={base.folder}", *common])
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
    return rows, curve, yaml.safe_dump(config, sort_keys=False)


def _rows(seed: int, model: str, artefact: Artefact, measures: Mapping[str, Measure]) -> Iterator[dict[str, object]]:
    for name, measure in measures.items():
        yield _row(seed, model, name, measure.value, measure.interval.low, measure.interval.high, artefact)


def _row(
    seed: int, model: str, measure: str, value: float, low: float, high: float, artefact: Artefact
) -> dict[str, object]:
    numbers = {name: f"{number:.6g}" for name, number in (("value", value), ("low", low), ("high", high))}
    return {"seed": seed, "model": model, "measure": measure, **numbers, **made_by(artefact)}


def main() -> int:
    """The command line of `scripts/report_r1_zero_tiny.py`."""
    options = report_options(__doc__, "r1_zero_tiny", seeds=[0, 1, 2, 3, 4], root="runs/report").parse_args()

    def make(seed: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        rows, curve, config = run_seed(seed, options.root / f"seed{seed}")
        write_text(options.out / "config.yaml", config)
        return rows, curve

    def write_more(rows: Sequence[Row], curves: Sequence[Row]) -> None:
        write_text(options.out / "expected.json", json.dumps(expected_band(curves), indent=1) + "\n")
        write_text(options.out / "commit.txt", "\n".join(sorted({row["commit"] for row in rows})) + "\n")

    report = Report(
        key={"seed": int},
        fields=FIELDS,
        runs=[(seed,) for seed in options.seeds],
        label=lambda seed: f"seed {seed}",
        overrides=lambda seed: [EXPERIMENT, f"seed={seed}"],
        make=make,
        render=summarise,
        curve_fields=CURVE_FIELDS,
        draw=draw_curves,
        is_of_run=lambda row: row["model"] == "trained",  # base and control have fingerprints of their own
        write_more=write_more,
    )
    return write_report(report, options.out)
