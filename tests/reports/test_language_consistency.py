"""The report on the language reward: its table by hand, what it takes of a run, and runs that are not made twice."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.store import Artefact
from r1_lightning.run.commands.recipe import append, read
from r1_lightning.run.commands.report_loop import write_report
from r1_lightning.run.commands.report_runs import planned_fingerprint
from tests.reports.recipes import recipe_module

recipe = recipe_module("language_consistency")
WEIGHTS, curve_of, draw, overrides = recipe.WEIGHTS, recipe.curve_of, recipe.draw, recipe.overrides
render, rows_of = recipe.render, recipe.rows_of
CURVE = (
    "step,rollout/reward_mean,rollout/language_mean,rollout/accuracy_mean,rollout/completion_tokens_mean\n"
    "0,2.0,0.9,0.5,30\n1,,,,\n"
)


def row(seed: int, weight: float | str, value: float, measure: str = "language_consistency") -> dict[str, str]:
    return {"task": "mathematics", "seed": str(seed), "weight": str(weight), "measure": measure, "value": str(value)}


def test_the_table_by_hand() -> None:
    rows = [
        row(0, "base", 0.9),
        row(0, 0.0, 0.7),
        row(0, 1.0, 1.0),
        row(1, "base", 0.8),
        row(1, 0.0, 0.75),
        row(1, 1.0, 0.95),
    ]
    line = render(rows).splitlines()[4]
    # Means 0.85, 0.725, 0.975; differences 0.3 and 0.2.
    cells = "0.850 [0.800, 0.900] | 0.725 [0.700, 0.750] | 0.975 [0.950, 1.000] | +0.250 [+0.200, +0.300]"
    assert line == f"| language consistency (eq 7) | {cells} |"
    assert "not run" in render(rows).splitlines()[5]
    assert render(rows).splitlines()[-1] == "**Code**: not run."


def artefact(folder: Path, **metrics: float | None) -> Artefact:
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return Artefact(folder, "grpo", "0123456789abcdef", complete=True, metrics=named)


def test_rows_name_the_run_and_its_base_once(tmp_path: Path) -> None:
    run = artefact(tmp_path, eval__arithmetic__pass_at_1=0.5, eval_base__arithmetic__pass_at_1=0.25, train__loss=1.0)
    without, with_it = (
        [(r["weight"], r["measure"], r["value"]) for r in rows_of("mathematics", 3, w, run)] for w in WEIGHTS
    )
    assert without == [(0.0, "pass_at_1", "0.5"), ("base", "pass_at_1", "0.25")]
    assert with_it == [(1.0, "pass_at_1", "0.5")]


def test_the_curve_is_that_of_the_rollouts_and_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / METRICS).parent.mkdir()
    (tmp_path / METRICS).write_text(CURVE)
    points = list(curve_of("code", 1, 1.0, artefact(tmp_path)))
    expected = {"language_mean": "0.9000", "accuracy_mean": "0.5000", "completion_tokens_mean": "30.0000"}
    assert points == [{"task": "code", "seed": 1, "weight": 1.0, "step": "0", **expected}]
    draw([{key: str(value) for key, value in point.items()} for point in points], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_runs_differ_in_the_weight_alone_and_share_their_base() -> None:
    assert [a for a in overrides("code", 1, 0.0) if a not in overrides("code", 1, 1.0)] == [
        "reward.weights.language=0.0"
    ]
    assert planned_fingerprint(*overrides("code", 1, 0.0)) != planned_fingerprint(*overrides("code", 1, 1.0))


def test_what_is_there_is_not_run_again_and_rows_of_another_recipe_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def train(arguments: list[str], root: Path) -> tuple[Artefact, float]:
        ran.append(arguments[3])
        (tmp_path / METRICS).parent.mkdir(exist_ok=True)
        (tmp_path / METRICS).write_text(CURVE)
        digits = planned_fingerprint(*arguments)
        return Artefact(tmp_path, "grpo", digits, metrics={"eval/arithmetic/pass_at_1": 0.5}), 1.0

    def write(seed: int) -> int:
        options = Namespace(tasks=["mathematics"], seeds=[seed])
        return write_report(recipe.RECIPE, tmp_path, list(recipe.RECIPE.runs(options)), tmp_path)

    monkeypatch.setattr(recipe, "train", train)
    assert write(1) == 0 and write(1) == 0
    assert ran == ["reward.weights.language=0.0", "reward.weights.language=1.0"]
    assert [r["value"] for r in read(tmp_path / "results.csv")] == ["0.5", "0.5"]
    old: dict[str, Any] = {**row(2, 1.0, 0.5), "fingerprint": "0123456789", "commit": "c"}
    append(tmp_path / "results.csv", recipe.FIELDS, [old])
    assert write(1) == 0 and capsys.readouterr().out.count("note: ") == 1  # nothing is added to them
    assert write(3) == 2
    refused = "task mathematics, seed 2, weight 1.0 has fingerprint 0123456789 and would now have"
    assert refused in capsys.readouterr().err


def test_the_base_belongs_to_the_run_without_the_reward() -> None:
    assert (
        recipe.RECIPE.run_of(row(2, "base", 0.5)) == ("mathematics", 2, 0.0) == recipe.RECIPE.run_of(row(2, 0.0, 0.5))
    )
