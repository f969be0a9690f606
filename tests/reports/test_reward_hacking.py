"""The report on reward hacking: windows, measures and table by hand, a picture, and runs that are not made twice."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.commands.recipe import Made, append, read
from r1_lightning.run.commands.report_loop import write_report
from r1_lightning.run.commands.report_runs import planned_fingerprint
from tests.reports.recipes import recipe_module

report = recipe_module("reward_hacking")
CURVE_FIELDS, CURVES, FIELDS, RUNS = report.CURVE_FIELDS, report.CURVES, report.FIELDS, report.RUNS
curve_of, measures_of, overrides = report.curve_of, report.measures_of, report.overrides


def logged(*values: tuple[float, float]) -> list[dict[str, str]]:
    """Rows of metrics.csv with these scores and accuracies."""
    rest = {CURVES["format"]: "1.0", CURVES["tokens"]: "40"}
    return [{CURVES["score"]: str(score), CURVES["accuracy"]: str(accuracy), **rest} for score, accuracy in values]


def test_windows_by_hand() -> None:
    points = curve_of(logged(*[(0.0, 1.0)] * 5, *[(1.0, 0.0)] * 5, *[(0.9, 0.1)] * 4))
    assert [point["step"] for point in points] == [10, 14]
    assert points[0] == {"step": 10, "score": 0.5, "accuracy": 0.5, "format": 1.0, "tokens": 40.0}
    assert (points[1]["score"], points[1]["accuracy"]) == (pytest.approx(0.9), pytest.approx(0.1))


def test_measures_by_hand() -> None:
    held_out = {f"{key}/arithmetic/{name}": 0.25 for key in ("eval", "eval_base") for name in report.HELD_OUT}
    artefact = Artefact(Path("x"), "grpo", "0" * 64, metrics={**held_out, "eval/arithmetic/pass_at_1": 0.5})
    curve = curve_of(logged(*[(0.2, 0.3)] * 10, *[(0.5, 0.8)] * 10, *[(0.9, 0.4)] * 10))
    found = measures_of(artefact, curve)
    shown = {
        name: found[name] for name in ("score_first", "score_last", "accuracy_first", "accuracy_best", "accuracy_last")
    }
    assert shown == pytest.approx(
        {"score_first": 0.2, "score_last": 0.9, "accuracy_first": 0.3, "accuracy_best": 0.8, "accuracy_last": 0.4}
    )
    assert (found["pass_at_1"], found["base/pass_at_1"]) == (0.5, 0.25)
    assert set(report.SHOWN) <= set(found)


def row(seed: int, run: str, measure: str, value: float) -> dict[str, Any]:
    made = {"fingerprint": planned_fingerprint(*overrides(seed, run)), "commit": "c"}
    return {"seed": seed, "run": run, "measure": measure, "value": value, **made}


def test_the_table_by_hand() -> None:
    rows = [row(0, "score", "accuracy_last", 0.25), row(1, "score", "accuracy_last", 0.75)]
    rows += [row(0, "rule", "accuracy_last", 0.9), row(0, "score", "pair_accuracy", 0.8)]
    text = report.render([{key: str(value) for key, value in item.items()} for item in rows])
    assert "| accuracy, last 10 steps | 0.500 [0.250, 0.750] | 0.900 [0.900, 0.900] |" in text
    assert "| score, last 10 steps | not run | not run |" in text
    assert "in 0.800 [0.800, 0.800] of held-out pairs" in text and text.startswith("Seeds: 0, 1.")


def test_two_runs_are_two_models_on_one_base_and_one_reward_model() -> None:
    from r1_lightning.run.config.compose import compose_stage, composing
    from r1_lightning.run.graph.node import Node
    from r1_lightning.run.graph.plan import plan

    nodes = []
    with composing():
        for run in RUNS:
            nodes.append(plan(compose_stage(overrides(0, run))))
    assert nodes[0].fingerprint != nodes[1].fingerprint
    for role in ("base", "score"):
        assert nodes[0].inputs[role].fingerprint == nodes[1].inputs[role].fingerprint
    score = nodes[0].inputs["score"]
    assert isinstance(score, Node) and score.inputs["base"].fingerprint == nodes[0].inputs["base"].fingerprint
    weights = [dict(node.stage.config.reward.weights) for node in nodes]
    assert weights == [
        {"score": 1.0, "accuracy": 0.0, "format": 0.0},
        {"score": 0.0, "accuracy": 1.0, "format": 0.0},
    ]


def test_what_is_there_is_not_run_again_and_rows_of_another_recipe_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[int, str]] = []

    def make(seed: int, run: str, root: Path) -> Made:
        ran.append((seed, run))
        point = dict.fromkeys(CURVE_FIELDS, "0.5") | {"seed": seed, "run": run, "step": 10}
        return Made([row(seed, run, "accuracy_last", 0.5)], [point])

    def write(seed: int) -> int:
        runs = list(report.RECIPE.runs(Namespace(seeds=[seed])))
        return write_report(dataclasses.replace(report.RECIPE, make=make), tmp_path, runs, tmp_path)

    assert write(1) == 0 and write(1) == 0
    assert ran == [(1, "score"), (1, "rule")]
    assert len(read(tmp_path / "curves.csv")) == 2 and (tmp_path / "curve.png").stat().st_size > 1000
    assert (tmp_path / "table.md").read_text().startswith("Seeds: 1.")
    append(tmp_path / "results.csv", FIELDS, [row(2, "rule", "accuracy_last", 0.5) | {"fingerprint": "0123456789"}])
    assert write(1) == 0 and capsys.readouterr().out.count("note: ") == 1  # nothing is added to them
    assert write(3) == 2
    assert "seed 2, run rule has fingerprint 0123456789 and would now have" in capsys.readouterr().err
