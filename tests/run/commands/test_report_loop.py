"""The loop over runs: each is made once, rows of another recipe are kept apart, a report is drawn from rows alone."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from r1_lightning.run.commands.recipe import Made, Recipe, Row, append, read, spread
from r1_lightning.run.commands.report_loop import redraw, require_same_recipe, write_report
from r1_lightning.run.commands.report_runs import planned_fingerprint
from r1_lightning.types.errors import InvalidInput

EXPERIMENT = "experiment=r1_zero_tiny"


class _Runs:
    """Runs that are noted; `fails` is raised in place of the rows of one."""

    def __init__(self, fails: int | None = None, error: Exception | None = None) -> None:
        self.made: list[int] = []
        self.fails, self.error = fails, error or RuntimeError("killed")

    def __call__(self, seed: int, root: Path) -> Made:
        if seed == self.fails:
            raise self.error
        self.made.append(seed)
        made = {"fingerprint": planned_fingerprint(EXPERIMENT, f"seed={seed}")}
        points = [{"seed": seed, "step": step} for step in (0, 1)]
        return Made([{"seed": seed, "value": seed / 10, **made}], points, {"last.txt": f"{seed} in {root.name}"})


def _recipe(runs: _Runs) -> Recipe:
    def table(rows: Sequence[Row]) -> str:
        return spread([float(row["value"]) for row in rows], digits=2) + "\n"

    def draw(points: Sequence[Row], path: Path) -> None:
        path.write_text(f"{len(points)} points")

    return Recipe(
        seeds=[3, 4],
        key={"seed": int},
        fields=("seed", "value", "fingerprint"),
        runs=lambda options: [(seed,) for seed in options.seeds],
        overrides=lambda seed: [EXPERIMENT, f"seed={seed}"],
        make=runs,
        table=table,
        curve_fields=("seed", "step"),
        draw=draw,
        more_files=lambda rows, points: {"counts.txt": f"{len(rows)} {len(points)}"},
    )


def _write(runs: _Runs, folder: Path, *seeds: int) -> int:
    return write_report(_recipe(runs), folder, [(seed,) for seed in seeds], Path("root"))


def test_a_run_that_fails_ends_the_report_with_a_line_and_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = _Runs(fails=7, error=subprocess.CalledProcessError(130, "train.py"))
    assert _write(runs, tmp_path, 7) == 130
    assert capsys.readouterr().err.startswith("error: seed 7 was not made;") and read(tmp_path / "results.csv") == []


def test_a_row_of_another_recipe_is_refused(tmp_path: Path) -> None:
    now, recipe, path = planned_fingerprint(EXPERIMENT, "seed=3"), _recipe(_Runs()), tmp_path / "r.csv"
    append(path, recipe.fields, [{"seed": 3, "value": 0.5, "fingerprint": now}])
    require_same_recipe(recipe, path)
    append(path, recipe.fields, [{"seed": 3, "value": 0.5, "fingerprint": "0123456789"}])
    with pytest.raises(InvalidInput, match=f"r.csv: seed 3 has fingerprint 0123456789 and would now have {now}"):
        require_same_recipe(recipe, path)


def test_runs_are_made_once_and_an_ended_report_leaves_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = _Runs(fails=4)
    with pytest.raises(RuntimeError, match="killed"):
        _write(runs, tmp_path, 3, 4)
    assert (tmp_path / "table.md").read_text() == "0.30 [0.30, 0.30]\n"
    # A kill between the points of seed 4 and its rows: the points are there and are not added again.
    append(tmp_path / "curves.csv", ("seed", "step"), [{"seed": 4, "step": step} for step in (0, 1)])
    runs.fails = None
    assert _write(runs, tmp_path, 3, 4) == 0
    assert runs.made == [3, 4]
    assert [row["seed"] for row in read(tmp_path / "curves.csv")] == ["3", "3", "4", "4"]
    assert (tmp_path / "curve.png").read_text() == "4 points" and (tmp_path / "counts.txt").read_text() == "2 4"
    assert (tmp_path / "last.txt").read_text() == "4 in root"
    assert capsys.readouterr().out == f"seed 3: already in {tmp_path / 'results.csv'}\n0.35 [0.30, 0.40]\n\n"


def test_a_report_is_drawn_again_from_its_rows_and_without_rows_it_is_refused(tmp_path: Path) -> None:
    assert _write(_Runs(), tmp_path, 3) == 0
    (tmp_path / "table.md").unlink()
    assert redraw(_recipe(_Runs()), tmp_path) == "0.30 [0.30, 0.30]\n" == (tmp_path / "table.md").read_text()
    with pytest.raises(InvalidInput, match=r"empty/results.csv: there are no rows to draw"):
        redraw(_recipe(_Runs()), tmp_path / "empty")


def test_rows_of_a_control_may_have_another_fingerprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _add_old_row(tmp_path)
    assert _write(_Runs(), tmp_path, 4) == 2
    assert "results.csv: seed 3 has fingerprint 0123 and would now have" in capsys.readouterr().err
    assert not (tmp_path / "table.md").exists()
    recipe = dataclasses.replace(_recipe(_Runs()), is_of_run=lambda row: False)
    assert write_report(recipe, tmp_path, [(4,)], tmp_path) == 0


def test_rows_of_an_old_recipe_are_drawn_and_only_added_to_by_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _add_old_row(tmp_path)
    assert redraw(_recipe(_Runs()), tmp_path) == "0.50 [0.50, 0.50]\n"
    assert _write(_Runs(), tmp_path, 3) == 0  # it is there: nothing is made, and a note says what of
    seen = capsys.readouterr()
    assert seen.out.startswith(f"note: {tmp_path / 'results.csv'}: seed 3 has fingerprint 0123 and would now have ")
    assert seen.out.endswith("0.50 [0.50, 0.50]\n\n") and seen.err == ""
    runs = _Runs()
    assert _write(runs, tmp_path, 3, 4) == 2 and runs.made == []
    assert capsys.readouterr().err.startswith("error: ")


def _add_old_row(folder: Path) -> None:
    append(folder / "results.csv", ("seed", "value", "fingerprint"), [{"seed": 3, "value": 0.5, "fingerprint": "0123"}])
