"""Does R1-Zero in miniature learn to reason, or only a form? Several seeds, each from nothing, each with its controls.

For every seed: `python scripts/train.py experiment=r1_zero_tiny` from an empty folder (timed), then its base pre-trained further
on fresh text for at least the FLOPs that RL took (the control), then the same held-out problems for four models: the base, the
trained model, the trained model with an empty think forced on it, the control. Rows are appended to `results.csv` as they
come, with commit and fingerprint, and a seed that is there is not run again, so that no run is lost; rows of another
configuration are refused, so that no table mixes two.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from r1_lightning.artefacts.files import write_text
from r1_lightning.artefacts.fingerprint import SHORT_DIGITS
from r1_lightning.artefacts.store import CONFIG, Artefact, open_artefact
from r1_lightning.evaluation.curves import draw_curves, summarise, training_flops
from r1_lightning.evaluation.metrics import Measure
from r1_lightning.run.cli import BAD_INPUT
from r1_lightning.run.evaluate import EMPTY_THINK, evaluate
from r1_lightning.run.reports import EXPERIMENT, METRICS, append, commit_at_start, read, require_recipe, train
from r1_lightning.types.errors import InvalidInput

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
    return rows, [{"seed": seed, **point} for point in _curve(trained.folder)], yaml.safe_dump(config, sort_keys=False)


def _rows(seed: int, model: str, artefact: Artefact, measures: Mapping[str, Measure]) -> Iterator[dict[str, object]]:
    for name, measure in measures.items():
        yield _row(seed, model, name, measure.value, measure.interval.low, measure.interval.high, artefact)


def _row(
    seed: int, model: str, measure: str, value: float, low: float, high: float, artefact: Artefact
) -> dict[str, object]:
    numbers = [f"{number:.6g}" for number in (value, low, high)]
    return dict(
        zip(
            FIELDS,
            (seed, model, measure, *numbers, artefact.fingerprint[:SHORT_DIGITS], commit_at_start()),
            strict=True,
        )
    )


def _curve(folder: Path) -> Iterator[dict[str, object]]:
    for row in read(folder / METRICS):
        if row.get("rollout/reward_mean"):
            means = {name: f"{float(row[f'rollout/{name}']):.4f}" for name in CURVE_FIELDS[2:]}
            yield {"step": row["step"], **means}


def main() -> int:
    """The command line of `scripts/report_r1_zero_tiny.py`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4], help="which seeds to run, if not yet run"
    )
    parser.add_argument("--root", type=Path, default=Path("runs/report"), help="where the runs go, a folder per seed")
    parser.add_argument("--out", type=Path, default=Path("reports/r1_zero_tiny"), help="the report's folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results, curves = options.out / "results.csv", options.out / "curves.csv"
    commit_at_start()
    try:
        check_same_recipe(read(results), results)
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    for seed in options.seeds:
        if any(row["seed"] == str(seed) for row in read(results)):
            print(f"seed {seed}: already in {results}")
            continue
        rows, curve, config = run_seed(seed, options.root / f"seed{seed}")
        write_text(options.out / "config.yaml", config)
        append(curves, CURVE_FIELDS, curve)
        append(results, FIELDS, rows)
    table, expected = summarise(read(results), read(curves))
    write_text(options.out / "table.md", table)
    write_text(options.out / "expected.json", json.dumps(expected, indent=1) + "\n")
    write_text(options.out / "commit.txt", "\n".join(sorted({row["commit"] for row in read(results)})) + "\n")
    draw_curves(read(curves), options.out / "curve.png")
    print(table)
    return 0


def check_same_recipe(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Raise `InvalidInput` where a row's trained model is of another configuration than today's."""
    found = {row["seed"]: row["fingerprint"] for row in rows if row["model"] == "trained"}
    for seed, fingerprint in found.items():
        require_recipe(path, f"seed {seed}", fingerprint, [EXPERIMENT, f"seed={seed}"])
